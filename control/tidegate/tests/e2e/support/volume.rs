//! File systems of our own: small ones in memory, and on files that take the place of disks.
//!
//! They are mounted in a mount namespace that one thread and its children have for themselves, so that nobody else sees them
//! and the kernel takes them away with the last of those, however they end.

use std::ffi::c_ulong;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::namespaces::run;

/// Runs `test` on a thread with mounts of its own.
pub fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
    let test = move || {
        // SAFETY: the thread is new and shares no file descriptors table with this flag; the kernel gives it a working
        // directory of its own, on which nothing here depends.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may");
        run(&["mount", "--make-rprivate", "/"]).expect("root may");
        test();
    };
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A file system in memory. Gone when dropped, though it may be in use.
pub struct Memory {
    place: PathBuf,
}

impl Memory {
    pub fn mount(place: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(place).expect("the folder of the test can be written");
        let size = format!("size={bytes}");
        run(&["mount", "-t", "tmpfs", "-o", &size, "tidegate", text(place)]).expect("root may");
        Self { place: place.to_owned() }
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let now = rustix::fs::statvfs(&self.place).expect("it is mounted");
        (now.f_blocks - now.f_bfree) * now.f_frsize
    }

    /// Files and folders in it.
    pub fn files(&self) -> u64 {
        let now = rustix::fs::statvfs(&self.place).expect("it is mounted");
        now.f_files - now.f_ffree
    }

    /// It may hold so much from now on; refused where it holds more.
    pub fn limit(&self, what: &str, limit: u64) -> Result<(), String> {
        run(&["mount", "-o", &format!("remount,{what}={limit}"), text(&self.place)])
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", text(&self.place)]);
    }
}

/// A disk with ext4 on it, which is a file.
pub struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    /// Needs `mkfs.ext4` and a free loop device; an error says what was refused.
    pub fn mount(image: &Path, place: &Path, bytes: u64, features: &str) -> Result<Self, String> {
        let file = File::create(image).map_err(|error| format!("{}: {error}", image.display()))?;
        file.set_len(bytes).map_err(|error| format!("{}: {error}", image.display()))?;
        std::fs::create_dir_all(place).map_err(|error| format!("{}: {error}", place.display()))?;
        // Nothing is left for later: all that is written from now on is ours.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run(&["mkfs.ext4", "-q", "-F", "-O", features, "-E", options, text(image)])?;
        let disk = Self { image: image.to_owned(), place: place.to_owned() };
        disk.attach()?;
        Ok(disk)
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The power fails: what was not written by now never is, the journal included.
    pub fn lose_power(&self) {
        /// `EXT4_IOC_SHUTDOWN`, which is `_IOR('X', 125, __u32)`.
        const SHUTDOWN: c_ulong = 0x8004_587d;
        const WITHOUT_THE_JOURNAL: u32 = 2;
        let folder = File::open(&self.place).expect("it is mounted");
        // SAFETY: the call reads the number behind the pointer, which lives until it returns.
        let done = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN as _, &WITHOUT_THE_JOURNAL) };
        assert_eq!(done, 0, "ext4 can be shut down: {}", std::io::Error::last_os_error());
    }

    /// The disk comes back, once nobody uses it any more.
    pub fn attach_again(&self) {
        run(&["umount", text(&self.place)]).expect("nobody uses it");
        self.attach().expect("the journal can be read");
    }

    fn attach(&self) -> Result<(), String> {
        run(&["mount", "-o", "loop", text(&self.image), text(&self.place)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", text(&self.place)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are UTF-8")
}
