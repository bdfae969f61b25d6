//! Connections between TaskManagers that are reset in the middle, carry bytes in crumbs, or are not read from.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ledger::{Size, binary};
use super::network::{FIRST, cluster, hosts};
use super::trial::Trial;
use super::{root, rounds, skip_unless, times};
use crate::support::cluster::Cluster;
use crate::support::hosts::{Hosts, address};
use crate::support::namespaces::run;
use crate::support::proxy::{Pieces, Proxy};
use crate::support::random::Random;
use crate::support::{SOON, sockets, wait_for};

/// Long enough payloads that a cut comes in the middle of one.
const LONG: Size = Size { partitions: 4, records: 40_000, keys: 100, payload: 2_000 };

/// F13: the kernel resets a connection between TaskManagers, in the middle of whatever it carries.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_connection_is_reset_in_the_middle() {
    skip_unless!(root().and_then(|()| run(&["ss", "-K", "src", "127.255.255.254"])));
    let mut random = Random::announced("F13");
    for strikes in rounds(times(4, 1_000), 5) {
        let mut trial = Trial::start(Cluster::of(binary, 2, &["--transport", "tcp"]), LONG);
        for _ in 0..strikes {
            trial.ready();
            std::thread::sleep(random.up_to(Duration::from_millis(300)));
            let before = trial.now();
            let [one, two] = [0, 1].map(|at| trial.cluster.taskmanagers[at].id());
            let ends = sockets::between(one, two);
            assert!(!ends.is_empty(), "two TaskManagers that share a job have a connection");
            let (local, remote) = random.pick(&ends).addresses();
            run(&["ss", "-K", "src", &local, "dst", &remote]).expect("it worked a moment ago");
            println!("back after {:?}", trial.restored(&before));
        }
        trial.finish();
    }
}

/// Every connection between the two TaskManagers goes through a program.
fn proxies(hosts: &Hosts, cluster: &Cluster, pieces: Pieces) -> [Proxy; 2] {
    [(1, 2), (2, 1)].map(|(near, far)| {
        let list = cluster.get("/taskmanagers").expect("the JobManager is there");
        let list = list["taskmanagers"].as_array().expect("a list").clone();
        let pid = u64::from(cluster.taskmanagers[far - 1].id());
        let one = list.iter().find(|one| one["pid"].as_u64() == Some(pid)).expect("it is registered");
        let port = one["dataPort"].as_u64().expect("a number") as u16;
        Proxy::start(hosts, FIRST, near, far, SocketAddr::from((address(far), port)), pieces)
    })
}

/// F17: what TaskManagers send each other comes in pieces of one to seven bytes, or in large ones, at random.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn bytes_come_in_crumbs() {
    let hosts = skip_unless!(hosts());
    for _ in 0..times(1, 20) {
        let cluster = cluster(&hosts, &["--segment-size", "4k"]);
        let proxies = proxies(&hosts, &cluster, Pieces::Crumbs);
        let mut trial = Trial::start(cluster, Size { records: 25_000, ..LONG });
        trial.ready();
        trial.complete();
        let carried = proxies.each_ref().map(Proxy::carried);
        println!("bytes and pieces, each way: {carried:?}");
        assert!(carried.iter().all(|(bytes, pieces)| *bytes > 1 << 20 && *pieces > 10_000), "{carried:?}");
        trial.finish();
        proxies.into_iter().for_each(|proxy| proxy.stop(&hosts, FIRST));
    }
}

/// F18: a peer takes a connection and never reads from it. For as long as that is borne the job waits and loses nothing; in
/// the long run it is given up, and the job goes on over another connection.
#[test]
#[ignore = "needs root; run by cargo xtask faults"]
fn a_peer_does_not_read() {
    let hosts = skip_unless!(hosts());
    for _ in 0..times(1, 3) {
        let cluster = cluster(&hosts, &["--segments", "64", "--segment-size", "4k"]);
        let proxies = proxies(&hosts, &cluster, Pieces::Whole);
        let mut trial = Trial::start(cluster, LONG);
        let before = trial.ready();
        let (long, start) = (times(0, 1) == 1, Instant::now());
        proxies[0].stall(true);
        if long {
            wait_for("the connection to be given up", 2 * SOON, || {
                (trial.job.attempts(&trial.cluster)? > before.attempt).then_some(())
            });
        } else {
            std::thread::sleep(Duration::from_secs(8));
            assert_eq!(trial.now().attempt, before.attempt, "{}", trial.job.exceptions(&trial.cluster));
        }
        println!("not read for {:?}", start.elapsed());
        proxies[0].stall(false);
        trial.goes_on(SOON);
        trial.finish();
        proxies.into_iter().for_each(|proxy| proxy.stop(&hosts, FIRST));
    }
}
