//! State of some MiB per subtask: a snapshot is written in many steps, and records change what is still to be written.

use crate::kills::all_segments_free;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::output::check;
use crate::support::{SOON, WHOLE_JOB, oracle, wait_for};

const KEYS: u64 = 500_000;
const RECORDS: u64 = 4_000_000;
/// The keys are all there after two seconds, and records come for fourteen more.
const RATE: u64 = 250_000;
const SUBTASKS: u64 = 4;
/// Bytes of state per subtask: half a dozen steps of a snapshot.
const LARGE: u64 = 3 << 19;

#[test]
fn a_job_with_large_state_comes_back_from_its_checkpoint() {
    let mut cluster = Cluster::start(2, &[]);
    let output = cluster.output("sums");
    let [records, keys, rate] = [RECORDS, KEYS, RATE].map(|number| number.to_string());
    let folder = output.to_str().expect("paths of the tests are UTF-8").to_owned();
    let flags = ["--records", &records, "--keys", &keys, "--rate", &rate, "--output", &folder];
    let mut job = Job::submit(&mut cluster, "keyed-sum", SUBTASKS as u32, &flags);

    let mut large = 0;
    let before = wait_for("two checkpoints of large state", SOON, || {
        let now = job.checkpoints(&cluster)?;
        if now.state_size() < SUBTASKS * LARGE {
            return None;
        }
        if large == 0 {
            large = now.completed();
        }
        (now.completed() > large).then(|| now.completed())
    });
    cluster.kill_taskmanager(1);
    cluster.start_taskmanager();
    wait_for("the job to be restored", SOON, || {
        (job.checkpoints(&cluster)?.restored() >= before).then_some(())
    });
    assert!(before > 0);

    job.finish(&cluster, WHOLE_JOB);
    check(&output, oracle::keyed_sum(RECORDS, KEYS));
    cluster.wait_slots(2 * SLOTS);
    all_segments_free(&cluster);
    cluster.stop();
}
