//! Jobs whose records go from one byte to 16 MiB: across TaskManagers with checkpoints, a cancel and a restore, through three
//! exchanges in a row, and inside one process with forks and a broadcast.

mod cluster;

use std::sync::Arc;

use cluster::{Cluster, Shape};
use tidegate_stream::testing::{Harness, Setup, collect, items};
use tidegate_stream::{Args, Job, JobResult, Jobs};

const BLOBS: u64 = 160;
const MIB: usize = 1 << 20;

/// The bytes of a number: the number itself, and more from it, so that a byte out of place is seen.
fn blob(number: u64, most: usize) -> Vec<u8> {
    let len = match number {
        30 => most,
        77 => most - 1,
        _ => [1, 9, 5_000, 40_000, 4_096, MIB, 70, 333_333, 12, 100_000][number as usize % 10].min(most),
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|at| (number ^ (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

/// Length and hash: what becomes of a blob in the output.
fn digest(bytes: &[u8]) -> (u64, u64) {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
    });
    (bytes.len() as u64, hash)
}

fn expected(most: usize) -> Vec<(u64, u64)> {
    let mut all: Vec<_> = (0..BLOBS).map(|number| digest(&blob(number, most))).collect();
    all.sort_unstable();
    all
}

/// Three exchanges in a row: each task in the middle reads a large record while it writes the next one.
fn chain(job: &mut Job, args: &Args) -> JobResult {
    let most: usize = args.required("most")?;
    job.source("n", items(0..BLOBS))
        .map("blob", move |n| blob(*n, most))
        .rebalance()
        .map("again", |bytes| bytes.to_vec())
        .key_by(|bytes: &Vec<u8>| bytes.len() as u64 % 7)
        .process("count", |_: &u64, bytes, count: &mut Option<u64>, out| {
            *count = Some(count.unwrap_or(0) + 1);
            out.emit(bytes.to_vec());
        })
        .rebalance()
        .map("digest", |bytes| digest(bytes))
        .sink("out", collect("out"));
    Ok(())
}

/// A fork: by key, in turn, and to everybody.
fn fork(job: &mut Job, args: &Args) -> JobResult {
    let most: usize = args.required("most")?;
    let blobs = job.source("n", items(0..BLOBS)).map("blob", move |n| blob(*n, most)).fork();
    blobs.branch().broadcast().map("all", |bytes| digest(bytes)).sink("all", collect("all"));
    blobs.branch().rebalance().map("each", |bytes| digest(bytes)).sink("each", collect("each"));
    blobs
        .branch()
        .key_by(|bytes: &Vec<u8>| bytes.len() as u64)
        .process("keyed", |_: &u64, bytes, _: &mut Option<u64>, out| out.emit(digest(bytes)))
        .sink("keyed", collect("keyed"));
    Ok(())
}

/// Each task reads from both processes and writes to both. Sixteen MiB is what a record may have.
#[test]
fn records_up_to_sixteen_mebibytes_cross_three_exchanges_with_checkpoints_and_a_cancel() {
    let record_max = (16 << 20) + 4096;
    let shape = Shape { slots: 1, segments: 6 * 513 + 128, segment_bytes: 32 << 10, record_max };
    let mut cluster =
        Cluster::with_args(shape, Jobs::new([("job", chain)]), &["--most", "16777216"], 2, Arc::default());
    cluster.checkpoint();
    cluster.checkpoint();
    cluster.restart();
    cluster.checkpoint();
    cluster.restart();
    let mut out = cluster.finish().collected::<(u64, u64)>("out");
    out.sort_unstable();
    assert_eq!(out, expected(16 * MIB));
}

/// The same with the least segments that the plan takes: nothing waits for what only it could free.
#[test]
fn the_least_segments_suffice_for_records_of_any_size() {
    let record_max = (64 << 10) + 4096;
    // Six regions of 17 segments; six ports of two, and four links of two.
    let shape = Shape { slots: 1, segments: 6 * 17 + 6 * 2 + 2 * 2, segment_bytes: 4096, record_max };
    let mut cluster =
        Cluster::with_args(shape, Jobs::new([("job", chain)]), &["--most", "65536"], 2, Arc::default());
    cluster.checkpoint();
    let mut out = cluster.finish().collected::<(u64, u64)>("out");
    out.sort_unstable();
    assert_eq!(out, expected(64 << 10));
}

#[test]
fn forks_and_broadcasts_of_large_records_stay_in_a_process() {
    let setup = Setup::new(fork).args(&["--most", "300000"]).parallelism(2).slots(2);
    let setup = setup.segments(1024, 4096).record_max(300_000 + 4096);
    let mut harness = Harness::start(setup).expect("it starts");
    harness.checkpoint().expect("it completes");
    harness.restart().expect("it is restored");
    harness.finish().expect("it ends");
    for (name, times) in [("all", 2), ("each", 1), ("keyed", 1)] {
        let mut out = harness.collected::<(u64, u64)>(name);
        out.sort_unstable();
        let mut all: Vec<_> = expected(300_000).into_iter().flat_map(|row| vec![row; times]).collect();
        all.sort_unstable();
        assert_eq!(out, all, "{name}");
    }
}

#[test]
fn a_record_above_the_limit_fails_its_task_by_name() {
    let setup = Setup::new(fork).args(&["--most", "300000"]).segments(1024, 4096).record_max(200_000);
    let mut harness = Harness::start(setup).expect("it starts");
    let said = harness.finish().expect_err("a blob has 300,000 bytes");
    assert!(said.contains("at most 200000") && said.contains("max-record-size"), "{said}");
}
