//! Bad input of every kind that reaches the command line: a clear error that names what is wrong, and nothing lost.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::job::Job;
use crate::support::output::{check, committed};
use crate::support::process::{Finished, Process, tidegate};
use crate::support::random::Random;
use crate::support::{SOON, WHOLE_JOB, input, oracle, wait_for};

/// Exit codes of the binary that scripts rely on.
mod exit {
    pub const JOB_FAILED: i32 = 1;
    pub const REFUSED: i32 = 2;
    pub const SYSTEM: i32 = 71;
}

/// `tidegate run …`, to its end.
fn run(folder: &Path, arguments: &[&str]) -> Finished {
    let mut line = vec!["run"];
    line.extend(arguments);
    tidegate(folder, WHOLE_JOB, &line)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}

/// The command failed with `code`, and said each of `words`.
#[track_caller]
fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(code), "{finished:#?}");
    for word in words {
        assert!(finished.stderr.contains(word), "does not say {word:?}: {finished:#?}");
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
}

/// A good text with one flight of each kind of damage; returns the good part, the whole, and the bad line numbers.
fn damaged_flights(folder: &Path) -> (String, PathBuf, [usize; 3]) {
    let good: Vec<String> = input::flights_text().lines().take(1001).map(str::to_owned).collect();
    let mut bad = good.clone();
    bad.insert(
        900,
        "2013,1,1,517,2,830,11,UA,1545,N14228,EWR,IAH,1400,2013-01-01T10:00:00Z,extra,extra".into(),
    );
    bad.insert(500, "2013,1,1".into());
    bad.insert(10, "2013,1,1,517,soon,830,late,UA,1545,N14228,EWR,IAH,1400,2013-01-01T10:00:00Z".into());
    let file = folder.join("damaged.csv");
    std::fs::write(&file, bad.join("\n") + "\n").expect("the folder can be written");
    (good.join("\n") + "\n", file, [11, 502, 903])
}

#[test]
fn malformed_lines_are_counted_and_named_and_the_rest_comes_out() {
    let mut cluster = Cluster::start(1, &[]);
    let (good, file, lines) = damaged_flights(cluster.folder());
    let output = cluster.output("out");
    let mut job =
        Job::submit(&mut cluster, "delays", 2, &["--input", path(&file), "--output", path(&output)]);
    job.finish(&cluster, WHOLE_JOB);
    check(&output, oracle::delays(&good));
    let said = cluster.taskmanagers[0].errors();
    for line in lines {
        assert!(said.contains(&format!("damaged.csv, line {line}")), "line {line} is not named: {said}");
    }
    let malformed = wait_for("the malformed lines to be counted", SOON, || {
        job.metric_of(&cluster, "parse", "malformed-records").filter(|malformed| *malformed > 0)
    });
    assert_eq!(malformed, 3);
    let said = job.said();
    assert!(said.contains("3 malformed lines skipped"), "the summary says so: {said}");
    cluster.stop();
}

#[test]
fn malformed_lines_fail_the_job_when_asked_to() {
    let folder = folder();
    let (_, file, lines) = damaged_flights(folder.path());
    let output = folder.path().join("output");
    let flags = ["delays", "--", "--input", path(&file), "--output", path(&output), "--on-error", "fail"];
    let finished = run(folder.path(), &flags);
    let line = format!("damaged.csv, line {}", lines[0]);
    refused(&finished, exit::JOB_FAILED, &[&line, "arr_delay", "late"]);
    assert!(committed(&output).is_empty(), "a failed job commits nothing");
}

/// Files that are being made while the job fails are gone, too, before anybody cleans up behind it: the same output can be
/// used again at once.
#[test]
fn a_job_that_fails_again_and_again_leaves_nothing_in_its_output() {
    let folder = folder();
    let (_, file, _) = damaged_flights(folder.path());
    let output = folder.path().join("output");
    for _ in 0..8 {
        let flags = ["flights-clean", "-p", "2", "--", "--input", path(&file), "--output", path(&output)];
        let finished = run(folder.path(), &[&flags[..], &["--on-error", "fail"]].concat());
        refused(&finished, exit::JOB_FAILED, &["damaged.csv"]);
        let left: Vec<_> = std::fs::read_dir(&output).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_missing_input_is_named() {
    let folder = folder();
    let output = folder.path().join("output");
    let missing = folder.path().join("no-such-file.csv");
    let finished =
        run(folder.path(), &["delays", "--", "--input", path(&missing), "--output", path(&output)]);
    assert!(!finished.status.success(), "{finished:#?}");
    assert!(finished.stderr.contains("no-such-file.csv"), "{finished:#?}");
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = folder();
    // A file where a folder should be stops root, too.
    let in_the_way = folder.path().join("in-the-way");
    std::fs::write(&in_the_way, "not a folder").expect("the folder can be written");
    let output = in_the_way.join("output");
    let flights = input::some_flights(folder.path(), 100);
    let line = ["run", "delays", "--", "--input", path(&flights), "--output", path(&output)];
    let finished = tidegate(folder.path(), SOON, &line);
    assert!(!finished.status.success(), "{finished:#?}");
    assert!(finished.stderr.contains("in-the-way"), "{finished:#?}");
    assert_eq!(std::fs::read_to_string(&in_the_way).expect("still there"), "not a folder");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let directory = folder.path().join("jobmanager");
    for [rpc, rest] in [[taken.as_str(), "127.0.0.1:0"], ["127.0.0.1:0", taken.as_str()]] {
        let line = ["jobmanager", "--rpc", rpc, "--rest", rest, "--dir", path(&directory)];
        refused(&tidegate(folder.path(), SOON, &line), exit::SYSTEM, &[&taken]);
    }
    let line = ["taskmanager", "--jobmanager", "127.0.0.1:1", "--slots", "1", "--data", &taken];
    refused(&tidegate(folder.path(), SOON, &line), exit::SYSTEM, &[&taken]);
}

#[test]
fn an_unknown_job_is_refused_with_the_known_ones() {
    let cluster = Cluster::start(1, &[]);
    let finished = cluster.submit(&["no-such-job", "--", "--input", "x"], SOON);
    refused(&finished, exit::REFUSED, &["no-such-job", "wordcount", "delays"]);
    let finished = run(cluster.folder(), &["no-such-job"]);
    refused(&finished, exit::REFUSED, &["no-such-job", "wordcount", "delays"]);
    cluster.stop();
}

#[test]
fn a_job_that_needs_more_slots_than_there_are_is_refused_with_the_numbers() {
    let cluster = Cluster::start(1, &[]);
    let flights = input::some_flights(cluster.folder(), 100);
    let output = cluster.output("out");
    let line = ["delays", "--parallelism", "5", "--", "--input", path(&flights), "--output", path(&output)];
    refused(&cluster.submit(&line, SOON), exit::REFUSED, &["5", "2", "slots"]);
    cluster.stop();
}

#[test]
fn a_job_that_needs_more_segments_than_there_are_is_refused_with_the_edge() {
    let cluster = Cluster::start(2, &["--segments", "4"]);
    let flights = input::some_flights(cluster.folder(), 100);
    let output = cluster.output("out");
    let line = ["delays", "--parallelism", "4", "--", "--input", path(&flights), "--output", path(&output)];
    refused(&cluster.submit(&line, SOON), exit::REFUSED, &["segments", "available 4", "edge", "parse"]);
    cluster.stop();
}

#[test]
fn a_record_above_the_largest_fails_the_job_with_both_sizes_and_the_key() {
    let folder = folder();
    let text = folder.path().join("long.txt");
    std::fs::write(&text, format!("short {} short\n", "x".repeat(7_000))).expect("the folder can be written");
    let output = folder.path().join("output");
    let files = ["--", "--input", path(&text), "--output", path(&output)];
    let wordcount = |flags: &[&str]| {
        let job = ["wordcount", "--parallelism", "2", "--segment-size", "4k"];
        run(folder.path(), &[&job, flags, &files[..]].concat())
    };
    let finished = wordcount(&["--max-record-size", "4k"]);
    refused(&finished, exit::JOB_FAILED, &["4096", "70", "taskmanager.network.max-record-size"]);
    assert!(committed(&output).is_empty(), "a failed job commits nothing");
    // Larger than a segment, but not than a record may be.
    for flags in [&["--max-record-size", "16k"][..], &[]] {
        let finished = wordcount(flags);
        assert!(finished.status.success(), "{finished:#?}");
        std::fs::remove_dir_all(&output).expect("it was written");
    }
}

#[test]
fn strangers_that_speak_garbage_disturb_nobody() {
    let mut random = Random::announced("garbage");
    let mut cluster = Cluster::start(2, &[]);
    let flights = input::some_flights(cluster.folder(), 40_000);
    let content = std::fs::read_to_string(&flights).expect("just written");
    let output = cluster.output("out");
    let flags = ["--input", path(&flights), "--output", path(&output), "--rate", "10000"];
    let mut job = Job::submit(&mut cluster, "flights-clean", 4, &flags);
    job.wait_running(&cluster, SOON);

    let data = data_addresses(&cluster);
    assert_eq!(data.len(), 2, "each TaskManager listens for data");
    let mut idle = Vec::new();
    for target in [cluster.rpc, cluster.rest].iter().chain(&data) {
        for length in [0, 1, 63, 64, 65, 4096, 200_000] {
            speak(*target, &garbage(&mut random, length));
        }
        speak(*target, b"GET / HTTP/1.1\r\nHost: tidegate\r\n\r\n");
        speak(*target, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff");
        speak(*target, &[0; 4096]);
        speak(*target, &[0xff; 4096]);
        // One that connects and says nothing.
        idle.push(TcpStream::connect(target).expect("the port is open"));
    }
    for target in &data {
        let answer = speak(*target, &garbage(&mut random, HELLO_LEN));
        assert_eq!(answer.len(), HELLO_REPLY_LEN, "whoever says hello wrongly is told why: {answer:?}");
        let answer = speak(*target, &hello_of_version(3));
        assert_eq!(answer[..4], *b"TGRE", "{answer:?}");
        let number = |at: usize, bytes: usize| {
            answer[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        assert_eq!(
            (number(6, 2), number(8, 8), number(16, 8)),
            (1, 2, 3),
            "code, expected, found (W-8, W-9)"
        );
    }
    for taskmanager in &cluster.taskmanagers {
        let said = || {
            let said = taskmanager.errors();
            (said.contains("a connection from 127.0.0.1") && said.contains("others since")).then_some(())
        };
        wait_for("strangers to be named in the log", SOON, said);
    }
    let refused_in_all = || {
        let list = cluster.get("/taskmanagers")?["taskmanagers"].as_array()?.clone();
        let refused = |one: &serde_json::Value| {
            let id = one["id"].as_str()?.to_owned();
            cluster.get(&format!("/taskmanagers/{id}"))?["metrics"]["dataConnectionsRefused"].as_u64()
        };
        list.iter().map(refused).collect::<Option<Vec<u64>>>()
    };
    wait_for("strangers to be counted", SOON, || {
        // Seven texts of random bytes, four that mean something elsewhere, and two hellos.
        refused_in_all()?.iter().all(|count| *count >= 13).then_some(())
    });
    job.finish(&cluster, WHOLE_JOB);
    check(&output, oracle::flights_clean(&content));
    assert_eq!(job.attempts(&cluster), Some(1), "nothing had to be restarted");
    drop(idle);
    cluster.stop();
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one() {
    for damage in [Damage::Metadata, Damage::State, Damage::BitFlip] {
        let mut cluster = Cluster::start(2, &[]);
        let text = input::text(cluster.folder(), &mut Random::new(7), 40_000);
        let expected = oracle::wordcount(&std::fs::read(&text).expect("just written"));
        let output = cluster.output("out");
        let flags = ["--input", path(&text), "--output", path(&output), "--rate", "6000"];
        let mut job = Job::submit(&mut cluster, "wordcount", 4, &flags);
        job.wait_running(&cluster, SOON);
        wait_for("three checkpoints", SOON, || (job.checkpoints(&cluster)?.completed() >= 3).then_some(()));

        cluster.kill_jobmanager();
        let newest = damage_newest(&cluster.directory(), damage);
        cluster.start_jobmanager();
        let restored = wait_for("the job to be restored", SOON, || {
            Some(job.checkpoints(&cluster)?.restored()).filter(|restored| *restored > 0)
        });
        assert!(restored < newest, "{damage:?}: checkpoint {newest} is damaged, {restored} was restored");
        let said = cluster.jobmanager.as_ref().expect("just started").errors();
        let name = format!("chk-{newest}");
        assert!(
            said.lines().any(|line| line.contains(&name) || line.contains(&format!("checkpoint {newest}"))),
            "{damage:?}: nothing is said about {name}: {said}"
        );
        job.finish(&cluster, WHOLE_JOB);
        check(&output, expected);
        cluster.stop();
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// `_metadata` is cut in the middle.
    Metadata,
    /// A state file is cut in the middle.
    State,
    /// One bit of `_metadata` is wrong.
    BitFlip,
}

/// Damages the newest complete checkpoint below the JobManager's directory and returns its number.
fn damage_newest(directory: &Path, damage: Damage) -> u64 {
    let jobs = std::fs::read_dir(directory.join("jobs")).expect("the JobManager keeps jobs here");
    let checkpoints = jobs.flatten().map(|job| job.path().join("checkpoints"));
    let complete = checkpoints.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let (number, folder) = complete
        .filter(|folder| folder.path().join("_metadata").exists())
        .filter_map(|folder| {
            let number = folder.file_name().to_str()?.strip_prefix("chk-")?.parse::<u64>().ok()?;
            Some((number, folder.path()))
        })
        .max()
        .expect("there is a complete checkpoint");
    let file = match damage {
        Damage::Metadata | Damage::BitFlip => folder.join("_metadata"),
        Damage::State => std::fs::read_dir(&folder)
            .expect("the checkpoint is there")
            .flatten()
            .map(|file| file.path())
            .filter(|file| file.extension().is_some_and(|extension| extension == "state"))
            .max_by_key(|file| file.metadata().map_or(0, |metadata| metadata.len()))
            .expect("wordcount has state"),
    };
    let mut content = std::fs::read(&file).expect("it exists");
    let middle = content.len() / 2;
    match damage {
        Damage::BitFlip => content[middle] ^= 4,
        Damage::Metadata | Damage::State => content.truncate(middle),
    }
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&file)
        .and_then(|mut file| file.write_all(&content))
        .expect("it can be written");
    number
}

/// Where the TaskManagers listen for each other.
fn data_addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    let list = cluster.get("/taskmanagers").expect("the JobManager is there");
    let list = list["taskmanagers"].as_array().expect("a list").clone();
    let address = |one: &serde_json::Value| format!("127.0.0.1:{}", one["dataPort"]).parse().ok();
    list.iter().filter_map(address).collect()
}

/// A hello that is right in everything that all versions share (W-6).
fn hello_of_version(version: u16) -> [u8; HELLO_LEN] {
    let mut hello = [0; HELLO_LEN];
    hello[..4].copy_from_slice(b"TGHI");
    hello[4..6].copy_from_slice(&version.to_le_bytes());
    let checksum = tidegate_wire::payload_crc(&hello[..HELLO_LEN - 4]);
    hello[HELLO_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
    hello
}

fn garbage(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.next() as u8).collect()
}

/// Bytes of the hello with which a data connection begins, and of the answer (clauses W-5 and W-8 of `SPEC.md`).
const HELLO_LEN: usize = 128;
const HELLO_REPLY_LEN: usize = 32;

/// Connects, says it, and returns the answer, if any; being cut off at any time is fine.
fn speak(to: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("the port is open");
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
    let _ = stream.write_all(words);
    let mut answer = vec![0; 256];
    let length = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(length);
    answer
}

/// Unused ports answer nobody: a client says so and exits in good time.
#[test]
fn a_client_without_a_jobmanager_says_so() {
    let folder = folder();
    let address = crate::support::cluster::free_address();
    let url = format!("http://{address}");
    let mut process = Process::start("list", folder.path(), &["list".into(), "--jobmanager".into(), url]);
    let status = process.wait(SOON);
    assert_eq!(status.code(), Some(69), "{}", process.errors());
    assert!(process.errors().contains(&address.to_string()), "{}", process.errors());
}
