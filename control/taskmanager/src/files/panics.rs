//! What becomes of the process when something panics on the files thread: its end, with a code of its own.
//!
//! Each case runs in a child process, which is this test once more with the case in its environment.

use std::any::Any;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread::ThreadId;
use std::time::Duration;

use tidegate_stream::files::{FileBuffer, FileMemory, FileTarget, Files};

use super::*;
use crate::limits::FILE_BUFFER_BYTES;

/// The case that a child process plays: driver and look.
const CASE: &str = "TIDEGATE_TEST_FILES_PANIC";

/// Where it panics, and at which look into a buffer that is: the loop looks twice, for the hash and the length, and the
/// operation that writes it comes third.
const PLACES: [(u32, &str); 2] = [(1, "the loop"), (3, "an operation")];

/// Memory that panics at a look of somebody else than its maker.
struct Trap {
    maker: ThreadId,
    /// Which one.
    looks: AtomicU32,
    bytes: Vec<u8>,
}

impl FileMemory for Trap {
    fn bytes(&self) -> &[u8] {
        if std::thread::current().id() != self.maker {
            assert_ne!(self.looks.fetch_sub(1, Ordering::Relaxed), 1, "the trap shuts");
        }
        &self.bytes
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

#[test]
fn a_panic_among_files_ends_the_process_with_its_own_code() {
    if let Ok(case) = std::env::var(CASE) {
        let (driver, looks) = case.split_once(' ').expect("a driver and a look");
        let driver = if driver == "Auto" { FilesDriver::Auto } else { FilesDriver::Blocking };
        return panic_at(driver, looks.parse().expect("a number"));
    }
    for driver in [FilesDriver::Auto, FilesDriver::Blocking] {
        for (looks, place) in PLACES {
            let mut child = Command::new(std::env::current_exe().expect("this binary"));
            let test = "files::panics::a_panic_among_files_ends_the_process_with_its_own_code";
            child.args(["--exact", test, "--nocapture"]).env(CASE, format!("{driver:?} {looks}"));
            let ended = child.output().expect("this binary runs");
            let errors = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(EXIT_FILES_DIED), "{driver:?}, {place}: {errors}");
            assert!(errors.contains("the trap shuts"), "{driver:?}, {place}: {errors}");
        }
    }
}

/// Writes a buffer that panics at the `looks`-th look. Comes back only if nothing ended the process.
fn panic_at(driver: FilesDriver, looks: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let deliver: Deliver = Arc::new(move |event| {
        let _ = sender.lock().expect("no panic").send(event);
    });
    let (_thread, mut slots) =
        FilesThread::start(driver, &Roots::default(), vec![deliver]).expect("a thread and a runtime");
    let files = &mut slots[0];
    let file = files.create(target(&folder.path().join("part")));
    let (maker, looks) = (std::thread::current().id(), AtomicU32::new(looks));
    let mut buffer = FileBuffer::new(Box::new(Trap { maker, looks, bytes: vec![0; FILE_BUFFER_BYTES] }));
    buffer.advance(8);
    files.append(file, buffer);
    files.finish(file);
    panic!("nothing ended the process: {:?}", events.recv_timeout(Duration::from_secs(60)));
}

fn target(path: &Path) -> FileTarget {
    FileTarget::Output { path: path.to_str().expect("UTF-8").to_owned() }
}
