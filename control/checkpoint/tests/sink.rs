//! The committer against a file system in memory: a crash before, in and after every operation.

mod model;

use model::{Rows, World};
use tidegate_checkpoint::*;
use tidegate_graph::PendingFolder;

const JOB: u128 = 9;

fn file(attempt: u32, name: &str, rows: &[u64]) -> (Committable, Rows) {
    let rows = Rows(rows.to_vec());
    let committable = Committable {
        pending: format!("/out/_pending/00000000000000000000000000000009-e1-a{attempt}/{name}"),
        target: format!("/out/{name}"),
        len: rows.len(),
        hash: rows.hash(),
    };
    (committable, rows)
}

/// A world in which attempt 3 wrote files a and b (acknowledged) and c (not), and older checkpoint files lie
/// committed: x belongs to a checkpoint that must be taken back.
fn world() -> (World, Vec<Committable>, Vec<Committable>) {
    let mut world = World::default();
    world.make_dir("/out/_pending/00000000000000000000000000000009-e1-a3");
    let mut files = Vec::new();
    for (name, rows) in [("a", [1, 2]), ("b", [3, 4]), ("c", [5, 6])] {
        let (committable, rows) = file(3, name, &rows);
        assert!(world.write(&committable.pending, rows));
        files.push(committable);
    }
    files.pop();
    let (old, rows) = file(2, "x", &[7, 8]);
    world.files.insert(old.target.clone(), rows);
    (world, files, vec![old])
}

/// Runs the machine; `crash` counts down operations, and the last one is only done in part.
fn run(
    world: &mut World,
    mut machine: SinkCommit,
    mut crash: Option<(usize, usize)>,
) -> Result<bool, SinkError> {
    loop {
        let SinkStep::Op(op) = machine.step() else { return Ok(true) };
        if let Some((left, part)) = &mut crash {
            if *left == 0 {
                world.execute_partly(StoreOp::Sink(op), *part);
                return Ok(false);
            }
            *left -= 1;
        }
        let StoreDone::Sink(done) = world.execute(StoreOp::Sink(op)) else { panic!() };
        machine.handle(done)?;
    }
}

fn restore(files: &[Committable], old: &[Committable], attempt: u32) -> SinkCommit {
    SinkCommit::restore(JOB, vec!["/out".into()], (1, attempt), old.to_vec(), files.to_vec())
}

#[test]
fn a_restore_commits_takes_back_and_cleans() {
    let (mut world, files, old) = world();
    assert!(run(&mut world, restore(&files, &old, 4), None).unwrap());
    assert_eq!(world.visible(), [1, 2, 3, 4]);
    assert_eq!(world.pending().count(), 0);
}

#[test]
fn crashes_anywhere_any_number_of_times_change_nothing() {
    // Two crashes at every pair of places, in every part of a batch.
    for first in 0..14 {
        for second in 0..14 {
            for part in 0..3 {
                let (mut world, files, old) = world();
                let mut attempt = 4;
                for at in [first, second] {
                    run(&mut world, restore(&files, &old, attempt), Some((at, part))).unwrap();
                    attempt += 1;
                }
                assert!(run(&mut world, restore(&files, &old, attempt), None).unwrap());
                assert_eq!(world.visible(), [1, 2, 3, 4], "crashes at {first} and {second}, part {part}");
                assert_eq!(world.pending().count(), 0);
            }
        }
    }
}

#[test]
fn a_commit_that_was_cut_short_is_finished_by_a_restore() {
    for at in 0..3 {
        for part in 0..3 {
            let (mut world, files, old) = world();
            let complete = SinkCommit::complete(JOB, files.clone());
            run(&mut world, complete, Some((at, part))).unwrap();
            assert!(run(&mut world, restore(&files, &old, 4), None).unwrap());
            assert_eq!(world.visible(), [1, 2, 3, 4]);
        }
    }
}

#[test]
fn a_zombie_cannot_rename_after_the_fence_and_its_new_files_are_garbage() {
    let (mut world, files, old) = world();
    let mut machine = restore(&files, &old, 4);
    // The first two operations list and fence.
    for _ in 0..2 {
        let SinkStep::Op(op) = machine.step() else { panic!() };
        let StoreDone::Sink(done) = world.execute(StoreOp::Sink(op)) else { panic!() };
        machine.handle(done).unwrap();
    }
    let zombie = SinkCommit::complete(JOB, files.clone());
    assert!(matches!(run(&mut world, zombie, None), Err(SinkError::Missing { .. })));
    // It makes its directory anew and writes into it.
    world.make_dir("/out/_pending/00000000000000000000000000000009-e1-a3");
    assert!(world.write("/out/_pending/00000000000000000000000000000009-e1-a3/a", Rows(vec![99])));
    // The leader crashes, and the next one restores the same checkpoint.
    assert!(run(&mut world, restore(&files, &old, 5), None).unwrap());
    assert_eq!(world.visible(), [1, 2, 3, 4]);
    assert_eq!(world.pending().count(), 0);
}

#[test]
fn a_newer_leaders_attempt_is_left_alone() {
    let (mut world, files, old) = world();
    world.make_dir("/out/_pending/00000000000000000000000000000009-e2-a5");
    assert!(run(&mut world, restore(&files, &old, 4), None).unwrap());
    assert!(world.dirs.contains("/out/_pending/00000000000000000000000000000009-e2-a5"));
}

#[test]
fn another_jobs_attempts_are_left_alone_whatever_their_numbers() {
    let (mut world, files, old) = world();
    let other = format!("/out/_pending/{}", PendingFolder { job: JOB + 1, epoch: 1, attempt: 3 });
    let fenced =
        format!("/out/_pending/{}{}", layout::FENCED, PendingFolder { job: JOB + 1, epoch: 1, attempt: 1 });
    for dir in [&other, &fenced] {
        world.make_dir(dir);
        assert!(world.write(&format!("{dir}/a"), Rows(vec![99])));
    }
    assert!(run(&mut world, restore(&files, &old, 4), None).unwrap());
    assert!(run(&mut world, SinkCommit::clean(JOB, vec!["/out".into()], (9, 9)), None).unwrap());
    assert_eq!(world.visible(), [1, 2, 3, 4]);
    assert!(
        world.files.contains_key(&format!("{other}/a")) && world.files.contains_key(&format!("{fenced}/a"))
    );
}

#[test]
fn a_zombie_does_not_clean_what_a_newer_leader_has_fenced() {
    let (mut world, files, _) = world();
    let fenced = format!("/out/_pending/{}", layout::fenced_dir("00000000000000000000000000000009-e2-a5"));
    world.make_dir(&fenced);
    assert!(run(&mut world, restore(&files, &[], 4), None).unwrap());
    assert!(world.dirs.contains(&fenced), "the newer leader may be committing from there");
    assert!(run(&mut world, SinkCommit::clean(JOB, vec!["/out".into()], (3, 6)), None).unwrap());
    assert_eq!(world.pending().count(), 0);
}

#[test]
fn lost_and_foreign_files_are_named() {
    let (mut world, files, old) = world();
    world.files.remove(&files[1].pending);
    let error = run(&mut world, restore(&files, &old, 4), None).unwrap_err();
    assert!(matches!(&error, SinkError::Missing { target, .. } if *target == files[1].target), "{error}");

    let (mut world, files, old) = self::world();
    world.files.insert(files[0].target.clone(), Rows(vec![42]));
    let error = run(&mut world, restore(&files, &old, 4), None).unwrap_err();
    assert!(matches!(&error, SinkError::Conflict { target, .. } if *target == files[0].target), "{error}");
    assert!(world.visible().contains(&42), "a foreign file is not replaced");

    let (mut world, files, old) = self::world();
    world.files.insert(files[0].pending.clone(), Rows(vec![1]));
    let error = run(&mut world, restore(&files, &old, 4), None).unwrap_err();
    assert!(matches!(error, SinkError::Corrupt { expected: 16, found: 8, .. }), "{error}");
}

#[test]
fn at_the_end_one_bad_file_does_not_cost_the_others_and_nothing_is_thrown_away() {
    let (mut world, files, _) = world();
    world.files.insert(files[0].target.clone(), Rows(vec![42]));
    let mut machine = SinkCommit::end(JOB, vec!["/out".into()], (1, 3), files.clone());
    while let SinkStep::Op(op) = machine.step() {
        let StoreDone::Sink(done) = world.execute(StoreOp::Sink(op)) else { panic!() };
        machine.handle(done).unwrap();
    }
    let [SinkError::Conflict { pending, .. }] = machine.failed() else { panic!("{:?}", machine.failed()) };
    assert!(world.files.contains_key(pending), "it lies where it is said to lie");
    assert_eq!(world.visible(), [3, 4, 7, 8, 42]);
    // Whoever takes the foreign file away gets the rest at the next try.
    world.files.remove(&files[0].target);
    let machine = SinkCommit::end(JOB, vec!["/out".into()], (1, 3), files);
    assert!(run(&mut world, machine, None).unwrap());
    assert_eq!(world.visible(), [1, 2, 3, 4, 7, 8]);
    assert_eq!(world.pending().count(), 0);
}

#[test]
fn only_files_with_the_recorded_content_are_taken_back() {
    let (mut world, files, old) = world();
    world.files.insert(old[0].target.clone(), Rows(vec![7, 9]));
    assert!(run(&mut world, restore(&files, &old, 4), None).unwrap());
    assert_eq!(world.visible(), [1, 2, 3, 4, 7, 9]);
}

#[test]
fn many_files_go_in_batches() {
    let mut world = World::default();
    world.make_dir("/out/_pending/00000000000000000000000000000009-e1-a3");
    let mut files = Vec::new();
    let count = limits::SINK_BATCH_FILES as u64 * 2 + 1;
    for row in 0..count {
        let (committable, rows) = file(3, &format!("part-{row}"), &[row]);
        world.write(&committable.pending, rows);
        files.push(committable);
    }
    let machine = SinkCommit::complete(JOB, files);
    let SinkStep::Op(SinkOp::Rename { files }) = machine.step() else { panic!() };
    assert_eq!(files.len(), limits::SINK_BATCH_FILES);
    assert!(run(&mut world, machine, None).unwrap());
    assert_eq!(world.visible(), (0..count).collect::<Vec<_>>());
}
