//! The shell on a real directory: create-if-absent, damage, renames, deletions.

use std::fs;
use std::path::Path;
use tidegate_checkpoint::metadata::Alignment;
use tidegate_checkpoint::sink::{Move, Moved};
use tidegate_checkpoint::*;
use xxhash_rust::xxh3::xxh3_64;

const JOB: u128 = 9;

fn metadata(root: &Path, id: u64, state: &[u8]) -> Metadata {
    let path = format!("{}/1-0-0-x.state", layout::checkpoint_dir(JOB, id));
    let file = root.join(&path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, state).unwrap();
    Metadata {
        job: JOB,
        epoch: 1,
        attempt: 1,
        id,
        base: None,
        job_name: "job".into(),
        args: Vec::new(),
        parallelism: 1,
        graph_fingerprint: 1,
        binary_fingerprint: 1,
        triggered_ms: 0,
        completed_ms: 0,
        alignment: Alignment::Aligned,
        last: false,
        operators: Vec::new(),
        tasks: vec![TaskPart {
            task: Task { vertex: 0, subtask: 0 },
            finished: false,
            alignment_ns: 0,
            bytes: 0,
            operators: vec![OperatorPart {
                operator: 1,
                inline: Vec::new(),
                object: Some(Object { path, len: state.len() as u64, hash: xxh3_64(state) }),
                groups: Vec::new(),
                committables: Vec::new(),
                schema: 0,
            }],
        }],
    }
}

fn put(metadata: &Metadata, outputs: bool) -> StoreOp {
    StoreOp::PutMetadata { metadata: Box::new(metadata.clone()), outputs }
}

#[tokio::test]
async fn metadata_is_published_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let m = metadata(dir.path(), 3, b"state");
    let (job, id) = (JOB, 3);
    assert_eq!(store.execute(StoreOp::ReadMetadata { job, id }).await, StoreDone::Absent);
    assert_eq!(store.execute(put(&m, true)).await, StoreDone::Created);
    assert_eq!(store.execute(put(&m, false)).await, StoreDone::Exists);
    assert_eq!(store.execute(StoreOp::VoidMetadata { job, id }).await, StoreDone::Exists);
    assert_eq!(store.execute(StoreOp::Verify { job, id }).await, StoreDone::Metadata(Box::new(m)));
    assert_eq!(store.execute(StoreOp::VoidMetadata { job, id: 4 }).await, StoreDone::Created);
    assert_eq!(store.execute(put(&metadata(dir.path(), 4, b""), false)).await, StoreDone::Exists);
    assert_eq!(store.execute(StoreOp::ReadMetadata { job, id: 4 }).await, StoreDone::Void);
}

#[tokio::test]
async fn damage_of_any_file_is_named() {
    let state = vec![7u8; 3 << 20];
    let name = "1-0-0-x.state";
    type Damage = fn(&Path);
    let cases: [(&str, &str, Damage); 7] = [
        ("cut state", name, |path| fs::write(path, vec![7u8; (3 << 20) - 1]).unwrap()),
        ("longer state", name, |path| fs::write(path, vec![7u8; (3 << 20) + 1]).unwrap()),
        ("flipped state", name, |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[2 << 20] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("removed state", name, |path| fs::remove_file(path).unwrap()),
        ("cut metadata", "_metadata", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("empty metadata", "_metadata", |path| fs::write(path, b"").unwrap()),
        ("flipped metadata", "_metadata", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[60] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, file, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        let m = metadata(dir.path(), 1, &state);
        store.execute(put(&m, false)).await;
        damage(&dir.path().join(layout::checkpoint_dir(JOB, 1)).join(file));
        let done = store.execute(StoreOp::Verify { job: JOB, id: 1 }).await;
        let StoreDone::Damaged(reason) = done else { panic!("{what}: {done:?}") };
        assert!(reason.contains(file), "{what}: {reason}");
    }
}

#[tokio::test]
async fn a_scan_tells_everything_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let job = JOB;
    for id in 1..=3 {
        store.execute(put(&metadata(dir.path(), id, b"s"), id == 2)).await;
    }
    store.execute(StoreOp::VoidMetadata { job, id: 4 }).await;
    metadata(dir.path(), 5, b"never published");
    fs::write(dir.path().join(layout::checkpoint_dir(JOB, 3)).join("_metadata"), b"x").unwrap();
    assert_eq!(store.execute(StoreOp::Quarantine { job, id: 2 }).await, StoreDone::Done);
    assert_eq!(store.execute(StoreOp::Quarantine { job, id: 2 }).await, StoreDone::Done);
    let StoreDone::Scanned(found) = store.execute(StoreOp::Scan { job }).await else { panic!() };
    let short: Vec<(u64, bool, bool)> = found.iter().map(|s| (s.id, s.quarantined, s.outputs)).collect();
    assert_eq!(
        short,
        [(1, false, false), (2, true, true), (3, false, false), (4, false, false), (5, false, false)]
    );
    assert_eq!(found[0].state, ScannedState::Present { epoch: 1 });
    assert!(matches!(found[2].state, ScannedState::Damaged(_)));
    assert_eq!(found[3].state, ScannedState::Void);
    assert_eq!(found[4].state, ScannedState::Absent);
    let read = |id, expected| StoreOp::ReadOutputs { job, id, expected };
    assert!(
        matches!(store.execute(read(2, true)).await, StoreDone::Outputs(_)),
        "from where it was put aside"
    );
    assert!(matches!(store.execute(read(1, true)).await, StoreDone::Outputs(_)), "from the metadata");
    assert!(matches!(store.execute(read(3, true)).await, StoreDone::Damaged(_)));
    assert_eq!(store.execute(read(3, false)).await, StoreDone::Absent);
    assert_eq!(store.execute(StoreOp::Retain { job, below: 3 }).await, StoreDone::Done);
    let StoreDone::Scanned(found) = store.execute(StoreOp::Scan { job }).await else { panic!() };
    assert_eq!(found.iter().map(|s| s.id).collect::<Vec<_>>(), [3, 4, 5]);
}

#[tokio::test]
async fn one_checkpoint_that_cannot_be_read_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    for id in 1..=2 {
        store.execute(put(&metadata(dir.path(), id, b"s"), false)).await;
    }
    let old = dir.path().join(layout::checkpoint_dir(JOB, 1)).join("_metadata");
    fs::remove_file(&old).unwrap();
    fs::write(old.with_file_name("file"), b"").unwrap();
    std::os::unix::fs::symlink("file/below", &old).unwrap();
    let StoreDone::Scanned(found) = store.execute(StoreOp::Scan { job: JOB }).await else { panic!() };
    assert!(
        matches!(&found[0].state, ScannedState::Damaged(reason) if reason.contains("_metadata")),
        "{found:?}"
    );
    assert_eq!(found[1].state, ScannedState::Present { epoch: 1 });
}

#[tokio::test]
async fn what_never_was_is_discarded_and_what_is_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let job = JOB;
    let published = metadata(dir.path(), 1, b"published");
    store.execute(put(&published, false)).await;
    let declined = metadata(dir.path(), 2, b"declined");
    store.execute(StoreOp::VoidMetadata { job, id: 3 }).await;
    metadata(dir.path(), 3, b"void");
    assert_eq!(store.execute(StoreOp::Discard { job, ids: vec![1, 2, 3, 4] }).await, StoreDone::Done);
    let verified = store.execute(StoreOp::Verify { job, id: 1 }).await;
    assert_eq!(verified, StoreDone::Metadata(Box::new(published)));
    for id in [2, 3] {
        let left = fs::read_dir(dir.path().join(layout::checkpoint_dir(JOB, id))).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["_metadata"]);
    }
    assert_eq!(store.execute(put(&declined, false)).await, StoreDone::Exists, "it can never be published");
}

#[tokio::test]
async fn an_output_below_a_file_is_a_permanent_fault() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(&dir.path().join("store")).unwrap();
    let root = dir.path().join("in-the-way");
    fs::write(&root, b"").unwrap();
    let op = SinkOp::ListPending { root: root.to_str().unwrap().to_owned() };
    let StoreDone::Failed(fault) = store.execute(StoreOp::Sink(op)).await else { panic!() };
    assert!(fault.permanent && fault.reason.contains("in-the-way"), "{fault:?}");
    // The same through objects: `epochs` is a file.
    fs::write(dir.path().join("store/epochs"), b"").unwrap();
    let record = EpochRecord { epoch: 1, jobs: Vec::new() };
    let StoreDone::Failed(fault) = store.execute(StoreOp::ClaimEpoch(record)).await else { panic!() };
    assert!(fault.permanent && fault.reason.contains("epochs/1"), "{fault:?}");
}

#[tokio::test]
async fn an_epoch_is_claimed_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let mut epochs = Vec::new();
    for _ in 0..3 {
        let mut opening = Opening::new(vec![JOB]);
        loop {
            match opening.step() {
                OpeningStep::Op(op) => opening.handle(store.execute(op).await),
                OpeningStep::Opened(leadership) => break epochs.push(leadership.epoch),
                step => panic!("{step:?}"),
            }
        }
        // A checkpoint of each epoch counts in the next.
        let epoch = *epochs.last().unwrap();
        let mut m = metadata(dir.path(), epoch, b"s");
        m.epoch = epoch;
        store.execute(put(&m, false)).await;
    }
    assert_eq!(epochs, [1, 2, 3]);
    let StoreDone::Epochs { settled: Some(Ok(record)), .. } = store.execute(StoreOp::ReadEpochs).await else {
        panic!()
    };
    assert_eq!(record.legal(JOB), [Legal { id: 1, epoch: 1 }, Legal { id: 2, epoch: 2 }]);
    assert_eq!(record.base(JOB), Some(2));
    assert!(dir.path().join("epochs/3").exists());
    fs::write(dir.path().join("epochs/3.settled"), b"x").unwrap();
    let mut opening = Opening::new(vec![JOB]);
    let error = loop {
        match opening.step() {
            OpeningStep::Op(op) => opening.handle(store.execute(op).await),
            OpeningStep::Failed(error) => break error,
            step => panic!("{step:?}"),
        }
    };
    assert!(error.to_string().contains("epochs/3.settled"), "{error}");
}

#[tokio::test]
async fn output_files_move_without_replacing_any() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(&dir.path().join("store")).unwrap();
    let root = dir.path().join("out");
    let pending = root.join("_pending/e1-a1");
    fs::create_dir_all(&pending).unwrap();
    fs::write(pending.join("a"), b"abc").unwrap();
    fs::write(pending.join("b"), b"abcd").unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let root_text = text(&root);
    let file =
        |name: &str, to: &str| Move { from: text(&pending.join(name)), to: text(&root.join(to)), len: 3 };
    let files = vec![file("a", "deep/er/a"), file("b", "b"), file("c", "c")];
    let sink = |op| store.execute(StoreOp::Sink(op));
    assert_eq!(
        sink(SinkOp::Rename { files }).await,
        StoreDone::Sink(SinkDone::Renamed(vec![Moved::Done, Moved::WrongLength(4), Moved::SourceAbsent]))
    );
    assert_eq!(fs::read(root.join("deep/er/a")).unwrap(), b"abc");
    fs::write(pending.join("a"), b"xyz").unwrap();
    let files = vec![file("a", "deep/er/a")];
    assert_eq!(
        sink(SinkOp::Rename { files }).await,
        StoreDone::Sink(SinkDone::Renamed(vec![Moved::TargetExists]))
    );
    let paths = vec![text(&root.join("deep/er/a")), text(&root.join("none"))];
    assert_eq!(
        sink(SinkOp::Probe { paths }).await,
        StoreDone::Sink(SinkDone::Probed(vec![Some((3, xxh3_64(b"abc"))), None]))
    );
    let fence =
        |from: &str, to: &str| SinkOp::MoveDir { root: root_text.clone(), from: from.into(), to: to.into() };
    assert_eq!(sink(fence("e1-a1", "x")).await, StoreDone::Sink(SinkDone::Moved(Moved::Done)));
    assert_eq!(sink(fence("e1-a1", "y")).await, StoreDone::Sink(SinkDone::Moved(Moved::SourceAbsent)));
    fs::create_dir_all(&pending).unwrap();
    assert_eq!(sink(fence("e1-a1", "x")).await, StoreDone::Sink(SinkDone::Moved(Moved::TargetExists)));
    for name in ["x", "e1-a1", "never"] {
        let op = SinkOp::RemoveTree { root: root_text.clone(), name: name.into() };
        assert_eq!(sink(op).await, StoreDone::Sink(SinkDone::Done));
    }
    sink(SinkOp::RemovePending { root: root_text.clone() }).await;
    assert!(!root.join("_pending").exists());
    let listed = sink(SinkOp::ListPending { root: root_text }).await;
    assert_eq!(listed, StoreDone::Sink(SinkDone::Listed(Vec::new())));
}

#[test]
fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in-the-way");
    fs::write(&path, b"").unwrap();
    let error = LocalStore::open(&path.join("below")).unwrap_err().to_string();
    assert!(error.contains("in-the-way"), "{error}");
}
