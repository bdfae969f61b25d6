//! The core against a model, and both engines against the disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use proptest::prelude::*;
use tidegate_stream::files::{Appender, FileEvent, FileId, FileTarget, Files};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::limits::{FILE_BUFFER_BYTES, FILE_BUFFERS_PER_SLOT, FILES_OPEN_MAX};

impl Chunk for Vec<u8> {
    fn filled(&self) -> &[u8] {
        self
    }
}

// ---- the core ----

const KEY: FileKey = FileKey { slot: 0, file: 7 };

fn create(core: &mut Core<Vec<u8>>) {
    core.handle_request(Request::Create { key: KEY, path: "out/part".into(), name: "part".into() });
}

fn done(core: &mut Core<Vec<u8>>, operation: Operation<Vec<u8>>, result: io::Result<()>) {
    let (key, buffer) = match operation {
        Operation::Write { key, buffer, .. } => (key, Some(buffer)),
        Operation::Open { key, .. }
        | Operation::Sync { key }
        | Operation::Close { key }
        | Operation::SyncDirectory { key, .. }
        | Operation::Remove { key, .. } => (key, None),
    };
    core.handle_done(Done { key, result, buffer });
}

/// Answers operations with success until there are none; gives their names.
fn succeed(core: &mut Core<Vec<u8>>) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(operation) = core.poll_operation() {
        names.push(name(&operation));
        done(core, operation, Ok(()));
    }
    names
}

fn name(operation: &Operation<Vec<u8>>) -> &'static str {
    match operation {
        Operation::Open { .. } => "open",
        Operation::Write { .. } => "write",
        Operation::Sync { .. } => "sync",
        Operation::Close { .. } => "close",
        Operation::SyncDirectory { .. } => "sync directory",
        Operation::Remove { .. } => "remove",
    }
}

fn events(core: &mut Core<Vec<u8>>) -> Vec<Event<Vec<u8>>> {
    std::iter::from_fn(|| core.poll_event()).collect()
}

#[test]
fn a_file_is_synced_with_its_directory_before_its_receipt() {
    let mut core = Core::default();
    create(&mut core);
    core.handle_request(Request::Append { key: KEY, buffer: b"ab".to_vec() });
    core.handle_request(Request::Append { key: KEY, buffer: b"cde".to_vec() });
    core.handle_request(Request::Finish { key: KEY });
    let opened = core.poll_operation().expect("the file is opened first");
    assert!(core.poll_operation().is_none(), "one operation of a file at a time");
    done(&mut core, opened, Ok(()));
    let mut synced = None;
    while let Some(operation) = core.poll_operation() {
        if let Operation::SyncDirectory { directory, .. } = &operation {
            synced = Some(directory.clone());
            assert!(!events(&mut core).iter().any(|event| matches!(event, Event::Finished { .. })));
        }
        done(&mut core, operation, Ok(()));
    }
    assert_eq!(synced, Some("out".into()));
    let receipt = events(&mut core).into_iter().find_map(|event| match event {
        Event::Finished { name, len, hash, .. } => Some((name, len, hash)),
        _ => None,
    });
    assert_eq!(receipt, Some(("part".to_owned(), 5, xxh3_64(b"abcde"))));
    assert_eq!(core.files_open(), 0);
}

#[test]
fn a_failed_write_is_reported_once_and_the_rest_removed() {
    let mut core = Core::default();
    create(&mut core);
    core.handle_request(Request::Append { key: KEY, buffer: b"ab".to_vec() });
    core.handle_request(Request::Append { key: KEY, buffer: b"cd".to_vec() });
    let open = core.poll_operation().expect("opened");
    done(&mut core, open, Ok(()));
    let write = core.poll_operation().expect("written");
    done(&mut core, write, Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(succeed(&mut core), ["close", "remove"]);
    core.handle_request(Request::Append { key: KEY, buffer: b"ef".to_vec() });
    core.handle_request(Request::Finish { key: KEY });
    let events = events(&mut core);
    let recycled = events.iter().filter(|event| matches!(event, Event::Recycle { .. })).count();
    let faults: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Failed { fault, .. } => Some(fault.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(recycled, 3);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("cannot write out/part: "), "{faults:?}");
    assert!(faults[0].ends_with("free space there or name another directory"), "{faults:?}");
    assert!(!is_permanent(&faults[0]));
    assert_eq!(core.files_open(), 0);
}

#[test]
fn a_file_that_could_not_be_made_is_not_removed() {
    let mut core = Core::default();
    create(&mut core);
    let open = core.poll_operation().expect("opened");
    done(&mut core, open, Err(io::ErrorKind::AlreadyExists.into()));
    assert!(core.poll_operation().is_none(), "what exists belongs to somebody else");
    let faults: Vec<_> =
        events(&mut core).into_iter().filter(|event| matches!(event, Event::Failed { .. })).collect();
    let [Event::Failed { fault, .. }] = faults.as_slice() else { panic!("one fault: {faults:?}") };
    assert!(is_permanent(&fault.to_string()), "{fault}");
}

#[test]
fn an_abandoned_slot_leaves_nothing() {
    let mut core = Core::default();
    create(&mut core);
    core.handle_request(Request::Append { key: KEY, buffer: b"ab".to_vec() });
    let open = core.poll_operation().expect("opened");
    core.handle_request(Request::AbandonSlot { slot: 1 });
    core.handle_request(Request::AbandonSlot { slot: 0 });
    done(&mut core, open, Ok(()));
    assert_eq!(succeed(&mut core), ["close", "remove"]);
    assert!(
        !events(&mut core).iter().any(|event| matches!(event, Event::Finished { .. } | Event::Failed { .. }))
    );
    assert_eq!(core.files_open(), 0);
}

/// What the model of the property test does next.
#[derive(Debug, Clone)]
enum Step {
    Create(u64),
    Append(u64, u8),
    Finish(u64),
    Abandon(u64),
    Complete { pick: usize, fails: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4u64).prop_map(Step::Create),
        (0..4u64, any::<u8>()).prop_map(|(file, byte)| Step::Append(file, byte)),
        (0..4u64).prop_map(Step::Finish),
        (0..4u64).prop_map(Step::Abandon),
        (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(pick, fails)| Step::Complete { pick, fails }),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn buffers_come_back_and_receipts_tell_the_truth(steps in steps()) {
        let mut core: Core<Vec<u8>> = Core::default();
        let mut written: BTreeMap<FileKey, Vec<u8>> = BTreeMap::new(); // What the disk would hold.
        let mut asked: BTreeMap<FileKey, Vec<u8>> = BTreeMap::new();
        let mut created: BTreeMap<u64, FileKey> = BTreeMap::new(); // Present key of each of four names.
        let (mut next, mut lent, mut back) = (0, 0, 0);
        let mut flying: VecDeque<Operation<Vec<u8>>> = VecDeque::new();
        let mut over = Vec::new();
        let drain = (0..400).map(|_| Step::Complete { pick: 0, fails: false });
        let ends = (0..4).map(Step::Abandon);
        for step in steps.into_iter().chain(ends).chain(drain) {
            match step {
                Step::Create(file) => {
                    if let Some(old) = created.insert(file, FileKey { slot: 0, file: next }) {
                        core.handle_request(Request::Finish { key: old });
                    }
                    core.handle_request(Request::Create { key: created[&file], path: "p".into(), name: "p".into() });
                    next += 1;
                }
                Step::Append(file, byte) => if let Some(key) = created.get(&file) {
                    lent += 1;
                    asked.entry(*key).or_default().push(byte);
                    core.handle_request(Request::Append { key: *key, buffer: vec![byte] });
                },
                Step::Finish(file) => if let Some(key) = created.remove(&file) {
                    core.handle_request(Request::Finish { key });
                },
                Step::Abandon(file) => if let Some(key) = created.remove(&file) {
                    core.handle_request(Request::Abandon { key });
                },
                Step::Complete { pick, fails } => {
                    while let Some(operation) = core.poll_operation() {
                        flying.push_back(operation);
                    }
                    if !flying.is_empty() {
                        let operation = flying.remove(pick % flying.len()).expect("within");
                        if let (Operation::Write { key, offset, buffer }, false) = (&operation, fails) {
                            let file = written.entry(*key).or_default();
                            prop_assert_eq!(file.len() as u64, *offset);
                            file.extend_from_slice(buffer);
                        }
                        let result = if fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) };
                        done(&mut core, operation, result);
                    }
                }
            }
            while let Some(event) = core.poll_event() {
                match event {
                    Event::Recycle { .. } => back += 1,
                    Event::Finished { key, len, hash, .. } => {
                        let bytes = written.get(&key).cloned().unwrap_or_default();
                        prop_assert_eq!(&bytes, &asked.get(&key).cloned().unwrap_or_default());
                        prop_assert_eq!((len, hash), (bytes.len() as u64, xxh3_64(&bytes)));
                    }
                    Event::Failed { .. } => {}
                    Event::Over { key } => over.push(key),
                }
            }
        }
        prop_assert_eq!(core.files_open(), 0);
        prop_assert_eq!(lent, back);
        prop_assert_eq!(over.len() as u64, next);
    }
}

// ---- the thread ----

struct Running {
    thread: FilesThread,
    files: SlotFiles,
    events: Receiver<FileEvent>,
    roots: Roots,
}

fn start(driver: FilesDriver) -> Running {
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let deliver: Deliver = Arc::new(move |event| {
        let _ = sender.lock().expect("no panic").send(event);
    });
    let roots = Roots::default();
    let (thread, mut slots) =
        FilesThread::start(driver, &roots, vec![deliver]).expect("a thread and a runtime");
    Running { thread, files: slots.remove(0), events, roots }
}

impl Running {
    /// The final event of a file; other events are passed over.
    fn outcome(&self, file: FileId) -> Result<FileReceipt, String> {
        loop {
            match self.events.recv_timeout(Duration::from_secs(60)).expect("the files thread answers") {
                FileEvent::Finished { file: of, receipt } if of == file => return Ok(receipt),
                FileEvent::Failed { file: of, cause } if of == file => return Err(cause),
                _ => {}
            }
        }
    }

    /// Writes a file of these bytes, waiting for buffers as a slot would.
    fn write(&mut self, target: FileTarget, bytes: &[u8]) -> FileId {
        let mut appender = Appender::create(&mut self.files, target);
        for piece in bytes.chunks(FILE_BUFFER_BYTES) {
            while !appender.room(&mut self.files, piece.len()) {
                let event = self.events.recv_timeout(Duration::from_secs(60)).expect("a buffer becomes free");
                assert!(!matches!(event, FileEvent::Failed { .. }), "{event:?}");
            }
            appender.put(piece).expect("there is room");
        }
        appender.finish(&mut self.files).0
    }

    fn join(self) {
        drop(self.files);
        self.thread.join();
    }
}

fn output(path: &Path) -> FileTarget {
    FileTarget::Output { path: path.to_str().expect("UTF-8").to_owned() }
}

/// Each test runs on both implementations; where io_uring cannot be used the first is the second.
const DRIVERS: [FilesDriver; 2] = [FilesDriver::Auto, FilesDriver::Blocking];

#[test]
fn the_driver_says_what_it_is() {
    let running = start(FilesDriver::Blocking);
    assert_eq!(running.thread.report, "blocking calls (asked for)");
    running.join();
    let running = start(FilesDriver::Auto);
    let expected = if tidegate_ring::probe().io_uring.is_ok() { "io_uring, " } else { "blocking calls (" };
    assert!(running.thread.report.starts_with(expected), "{}", running.thread.report);
    running.join();
}

#[test]
fn files_larger_than_all_buffers_are_written_whole() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = start(driver);
        let bytes: Vec<u8> = (0..(FILE_BUFFERS_PER_SLOT + 5) * FILE_BUFFER_BYTES + 77)
            .map(|at| ((at * 7) >> 3) as u8)
            .collect();
        let path = folder.path().join("a/b/c/large");
        let file = running.write(output(&path), &bytes);
        let receipt = running.outcome(file).expect("written");
        assert_eq!(receipt.path, path.to_str().expect("UTF-8"));
        assert_eq!((receipt.len, receipt.hash), (bytes.len() as u64, xxh3_64(&bytes)));
        assert!(std::fs::read(&path).expect("it is there") == bytes, "{driver:?}: other bytes");
        running.join();
    }
}

#[test]
fn empty_files_have_a_receipt_too() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = start(driver);
        let file = running.write(output(&folder.path().join("empty")), b"");
        assert_eq!(running.outcome(file).map(|receipt| (receipt.len, receipt.hash)), Ok((0, xxh3_64(b""))));
        running.join();
    }
}

#[test]
fn snapshots_lie_below_the_store_and_are_named_relative_to_it() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = start(driver);
        let target =
            FileTarget::Snapshot { job: 5, checkpoint: 3, attempt: 2, vertex: 1, subtask: 0, operator: 0xab };
        let unknown = running.files.create(target.clone());
        assert!(running.outcome(unknown).expect_err("not entered").contains("does not run"));
        running.roots.enter(5, 2, folder.path().into(), "jobs/5/checkpoints".into());
        let file = running.write(target, b"state");
        let receipt = running.outcome(file).expect("written");
        assert_eq!(receipt.path, "jobs/5/checkpoints/chk-3/2-1-0-00000000000000ab.state");
        assert_eq!(std::fs::read(folder.path().join(&receipt.path)).expect("it is there"), b"state");
        running.join();
    }
}

#[test]
fn what_cannot_be_written_is_named_with_its_path() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = start(driver);
        let in_the_way = folder.path().join("in-the-way");
        std::fs::write(&in_the_way, "a file").expect("writable");
        let file = running.write(output(&in_the_way.join("sub/part")), b"rows");
        let cause = running.outcome(file).expect_err("a file is no folder");
        assert!(cause.contains("in-the-way/sub/part") && is_permanent(&cause), "{cause}");

        let file = running.write(output(&in_the_way), b"rows");
        let cause = running.outcome(file).expect_err("nothing is overwritten");
        assert!(cause.contains("never overwritten") && is_permanent(&cause), "{cause}");
        assert_eq!(std::fs::read_to_string(&in_the_way).expect("still there"), "a file");
        running.join();
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting a small filesystem needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    if let Err(reason) = mount_small(folder.path()) {
        println!("skipped: {reason}");
        return;
    }
    for driver in DRIVERS {
        let mut running = start(driver);
        let path = folder.path().join("large");
        let file = running.write(output(&path), &vec![1; 4 << 20]);
        let cause = running.outcome(file).expect_err("1 MiB holds no 4 MiB");
        assert!(cause.contains("large") && cause.contains("free space"), "{cause}");
        running.join();
        assert!(!path.exists(), "{driver:?}: what could not be finished is removed");
    }
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

fn mount_small(folder: &Path) -> Result<(), String> {
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "tidegate-test"]).arg(folder);
    match mount.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("mount: {error}")),
    }
}

#[test]
fn abandoned_and_forgotten_files_are_removed() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = start(driver);
        let mut abandoned = Appender::create(&mut running.files, output(&folder.path().join("abandoned")));
        assert!(abandoned.room(&mut running.files, 10));
        abandoned.put(b"0123456789").expect("there is room");
        abandoned.abandon(&mut running.files);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while running.files.open_files() > 0 {
            assert!(std::time::Instant::now() < deadline, "{driver:?}: it is never over");
            std::thread::yield_now();
        }
        assert!(!folder.path().join("abandoned").exists(), "{driver:?}: what is over is gone");
        // This one is open when the slot goes.
        let forgotten = running.files.create(output(&folder.path().join("forgotten")));
        let mut buffer = running.files.try_buffer().expect("there are buffers");
        buffer.spare_mut()[..3].copy_from_slice(b"abc");
        buffer.advance(3);
        running.files.append(forgotten, buffer);
        running.join();
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "{driver:?}: {left:?}");
    }
}

#[test]
fn open_files_are_bounded_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = start(FilesDriver::Auto);
    let files: Vec<FileId> = (0..=FILES_OPEN_MAX)
        .map(|at| running.files.create(output(&folder.path().join(at.to_string()))))
        .collect();
    let cause = running.outcome(files[FILES_OPEN_MAX]).expect_err("one too many");
    assert!(cause.contains(&FILES_OPEN_MAX.to_string()), "{cause}");
    running.join();
}

#[test]
fn a_starved_slot_hears_of_a_buffer_that_is_given_back() {
    let mut running = start(FilesDriver::Auto);
    let mut buffers: Vec<_> = std::iter::from_fn(|| running.files.try_buffer()).collect();
    assert_eq!(buffers.len(), FILE_BUFFERS_PER_SLOT);
    running.files.give_back(buffers.pop().expect("there are some"));
    assert_eq!(running.events.recv_timeout(Duration::from_secs(60)), Ok(FileEvent::BuffersFree));
    assert!(running.files.try_buffer().is_some());
    running.join();
}
