//! Every seed of the fuzz targets, and many bent copies of each, through the bodies that the fuzzer runs: what anybody can
//! repeat without a fuzzer. A bug that fuzzing finds stays in the corpus under a name, and so in this test.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use tidegate_fuzz::train::{MANIFEST_BYTES, TRAIN_BYTES, cut, flip};
use tidegate_fuzz::{TARGETS, Target, mutate, seeds};

/// Bent copies of one seed, and a bound for those of all seeds of a target: seconds in all, in a debug build.
const COPIES_PER_SEED: usize = 400;
const COPIES_PER_TARGET: usize = 6_000;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Runs the body on the bytes, and says on which they were if it panics.
fn run(target: &Target, name: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.body)(bytes))) {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", target.name));
        let kept =
            fs::write(&path, bytes).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        eprintln!("target {} fails on {name}; its {} bytes are in {kept}", target.name, bytes.len());
        resume_unwind(panic);
    }
}

fn replay(target: &Target) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpus(target.name)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "target {} has no seeds", target.name);
    let copies = COPIES_PER_SEED.min(COPIES_PER_TARGET / files.len());
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy();
        run(target, &name, &bytes);
        mutate::bent(&bytes, copies, |copy| run(target, &format!("{name}-bent"), copy));
    }
}

/// One test for each target, so that they run side by side and fail apart.
macro_rules! replays {
    ($($test:ident: $target:literal,)*) => {
        $(
            #[test]
            fn $test() {
                replay(TARGETS.iter().find(|target| target.name == $target).unwrap());
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let here = BTreeSet::from([$($target),*].map(str::to_owned));
            assert_eq!(here, TARGETS.map(|target| target.name.to_owned()).into());
            let binaries = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
            let binaries = fs::read_dir(binaries).unwrap().map(|file| file.unwrap().path());
            let fuzzed: BTreeSet<String> =
                binaries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
            assert_eq!(here, fuzzed, "a binary for each target");
        }
    };
}

replays! {
    manifests: "manifest",
    hellos: "hello",
    links: "link",
    payloads: "records",
    states: "state",
    checkpoints: "checkpoint",
    messages: "rpc",
    lies: "leader",
    configurations: "config",
    plans: "plan",
    requests: "rest",
    graphs: "graph",
}

/// Bits and bytes of a payload between two places that are tried: primes, so that all bits and offsets have their turn.
const BITS_APART: usize = 251;
const BYTES_APART: usize = 101;

/// F25: every bit of the manifest of a train of 64 KiB, and many of its payloads, at a real link.
#[test]
fn a_flipped_bit_of_a_train_is_refused() {
    (0..MANIFEST_BYTES * 8).for_each(flip);
    (MANIFEST_BYTES * 8..TRAIN_BYTES * 8).step_by(BITS_APART).for_each(flip);
}

/// F26: every cut of the manifest, and many of its payloads; the peer waits, or hangs up.
#[test]
fn a_cut_train_is_waited_for_or_lost() {
    let cuts = (0..MANIFEST_BYTES).chain((MANIFEST_BYTES..TRAIN_BYTES).step_by(BYTES_APART));
    cuts.for_each(|at| cut(at, at % 2 == 1));
    for at in 0..=16 {
        let end = MANIFEST_BYTES + at * (TRAIN_BYTES - MANIFEST_BYTES) / 16;
        [end - 1, end, (end + 1).min(TRAIN_BYTES)].iter().for_each(|&at| cut(at, at % 2 == 0));
    }
}

#[test]
#[ignore = "all of F25 and F26, some minutes: run it by name after a change of links"]
fn every_flip_and_every_cut_of_a_train() {
    (0..TRAIN_BYTES * 8).for_each(flip);
    (0..=TRAIN_BYTES).for_each(|at| [false, true].into_iter().for_each(|hang_up| cut(at, hang_up)));
}

#[test]
fn the_seeds_are_those_of_this_version() {
    for seed in seeds::seeds() {
        let kept = fs::read(corpus(seed.target).join(&seed.name)).unwrap_or_default();
        assert!(
            kept == seed.bytes,
            "seed {}/{} is out of date: run the ignored test `write_the_seeds`",
            seed.target,
            seed.name
        );
    }
}

#[test]
fn seeds_are_few_and_small() {
    let files = TARGETS.iter().flat_map(|target| fs::read_dir(corpus(target.name)).unwrap());
    let (count, bytes) = files
        .fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.unwrap().metadata().unwrap().len()));
    assert!(count <= 400 && bytes <= 1 << 20, "{count} seeds of {bytes} bytes: minimise the corpora");
}

#[test]
#[ignore = "writes the seeds into fuzz/corpus: run it by name after a change of a format"]
fn write_the_seeds() {
    for seed in seeds::seeds() {
        fs::create_dir_all(corpus(seed.target)).unwrap();
        fs::write(corpus(seed.target).join(seed.name), seed.bytes).unwrap();
    }
}
