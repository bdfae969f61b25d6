//! Each call on a file of the store, of the records and of the output fails once, and the job ends right all the same.
//!
//! Sites are kinds of calls by what the path is for; of each the first, one in the middle and the last fails. A site of the
//! list that no run reaches fails the test, and so does one that is reached and not in the list.

use std::collections::BTreeSet;

use crate::run::run_failing;
use crate::tests::ALONE;

const SITES: &[&str] = &[
    "create directory: checkpoint",
    "create directory: checkpoints",
    "create directory: epochs",
    "create directory: job",
    "create directory: output",
    "create directory: pending output",
    "create: checkpoint",
    "create: epochs",
    "create: pending output",
    "link: checkpoint",
    "link: epochs",
    "list: checkpoint",
    "list: checkpoints",
    "list: job",
    "list: pending output",
    "look: checkpoint",
    "look: checkpoints",
    "look: epochs",
    "look: job",
    "look: output",
    "look: pending output",
    "look: record",
    "look: root",
    "remove directory: checkpoint",
    "remove directory: pending output",
    "remove: checkpoint",
    "remove: epochs",
    "remove: pending output",
    "rename: output",
    "rename: pending output",
    "rename: record",
    "sync: checkpoint",
    "sync: checkpoints",
    "sync: epochs",
    "sync: job",
    "sync: jobs",
    "sync: open file",
    "sync: output",
    "sync: pending output",
    "sync: record",
    "sync: root",
    "write: open file",
    "write: record",
];

/// Seeds whose calm runs reach all sites together.
const SEEDS: [u64; 2] = [1, 2];

#[test]
fn every_call_on_a_file_fails_once() {
    let _alone = ALONE.lock();
    let mut reached = BTreeSet::new();
    let mut wrong = Vec::new();
    for seed in SEEDS {
        let calls = run_failing(seed, None).expect("nothing fails");
        for (site, count) in &calls {
            for which in BTreeSet::from([1, count.div_ceil(2), *count]) {
                if let Err(error) = run_failing(seed, Some((site.clone(), which))) {
                    wrong.push(format!("seed {seed}, call {which} of {count}, {site}: {error}"));
                }
            }
        }
        reached.extend(calls.into_keys());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let known: BTreeSet<String> = SITES.iter().map(|site| (*site).to_owned()).collect();
    assert_eq!(reached, known);
}
