//! Planted bugs: rules dropped on purpose, so that it can be shown that the tests would notice; and [`mod@rare`] points,
//! where what is legal and seldom is made to happen often.
//!
//! Only with the feature `plant`, which no release carries ([`PLANTED`] is asserted against there); without it
//! [`planted`] is the constant `false`. At most one bug is planted at a time, for the whole process.
#![cfg_attr(not(feature = "plant"), no_std)]
#![forbid(unsafe_code)]

pub mod rare;

pub use rare::{Rare, rare};

/// A bug that can be planted. The number is what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Plant {
    /// A gate takes the first channel's barrier for everybody's.
    SkipAlignment = 1,
    /// A barrier leaves before what was written ahead of it.
    BarrierOvertakesData = 2,
    /// Now and then a granted segment is not announced.
    LoseCredit = 3,
    /// Payloads are handed on whatever their checksum.
    IgnoreChecksum = 4,
    /// Channels that waited in an aborted alignment are forgotten.
    ForgetResume = 5,
    /// A gate that is torn down keeps what it had promised.
    LeakGranted = 6,
    /// Nobody tells a producer of the same process that an event was taken.
    LoseWakeUp = 7,
    /// A sender keeps its credit across a barrier.
    KeepCreditAtBarrier = 9,
    /// A sender takes a grant that crossed its barrier.
    TakeStaleGrant = 10,
    /// A consumer answers a barrier by keeping the promised segments.
    KeepPromisesAtBarrier = 11,
    /// A task says that its data has ended while it still holds some.
    EndTooEarly = 12,
    /// A restored task misses what one key group held.
    LoseKeyGroup = 13,
    /// A key is sometimes sent to the neighbour of its owner.
    WrongOwner = 14,
    /// A barrier does not leave on the last of a task's partitions.
    ForgetPartition = 15,
    /// A read-out buffer is released, and its credit never given back.
    LoseQuota = 16,
    /// A publication whose answer was lost is taken for done.
    CommitUnpublished = 17,
    /// An acknowledgement counts for whatever checkpoint is pending.
    TakeAnyAcknowledgement = 18,
    /// Commands of a JobManager that was replaced are obeyed.
    SkipEpochCheck = 19,
    /// A leader commits without asking whether it still leads.
    CommitUnconfirmed = 20,
    /// A restore takes every checkpoint it finds, whoever published it.
    IgnoreSettled = 21,
    /// A checkpoint is complete when all tasks but one have acknowledged it.
    CompleteTooEarly = 22,
    /// Old checkpoints are deleted together with the newest one.
    DeleteReferenced = 23,
    /// A file that was committed before is missed when it is committed again.
    CommitOnce = 24,
    /// Nobody notices that a TaskManager is gone.
    MissLostTaskManager = 25,
    /// Attempts that are over are not shut out of the output.
    SkipFence = 26,
    /// A file is acknowledged before its bytes are on the disk.
    SkipFsync = 27,
    /// A rename is acknowledged before the directory is on the disk.
    SkipDirectoryFsync = 28,
}

impl Plant {
    /// All of them, with the names they go by.
    pub const ALL: [(&'static str, Plant); 27] = [
        ("skip-alignment", Plant::SkipAlignment),
        ("barrier-overtakes-data", Plant::BarrierOvertakesData),
        ("lose-credit", Plant::LoseCredit),
        ("ignore-checksum", Plant::IgnoreChecksum),
        ("forget-resume", Plant::ForgetResume),
        ("leak-granted", Plant::LeakGranted),
        ("lose-wake-up", Plant::LoseWakeUp),
        ("keep-credit-at-barrier", Plant::KeepCreditAtBarrier),
        ("take-stale-grant", Plant::TakeStaleGrant),
        ("keep-promises-at-barrier", Plant::KeepPromisesAtBarrier),
        ("end-too-early", Plant::EndTooEarly),
        ("lose-key-group", Plant::LoseKeyGroup),
        ("wrong-owner", Plant::WrongOwner),
        ("forget-partition", Plant::ForgetPartition),
        ("lose-quota", Plant::LoseQuota),
        ("commit-unpublished", Plant::CommitUnpublished),
        ("take-any-acknowledgement", Plant::TakeAnyAcknowledgement),
        ("skip-epoch-check", Plant::SkipEpochCheck),
        ("commit-unconfirmed", Plant::CommitUnconfirmed),
        ("ignore-settled", Plant::IgnoreSettled),
        ("complete-too-early", Plant::CompleteTooEarly),
        ("delete-referenced", Plant::DeleteReferenced),
        ("commit-once", Plant::CommitOnce),
        ("miss-lost-taskmanager", Plant::MissLostTaskManager),
        ("skip-fence", Plant::SkipFence),
        ("skip-fsync", Plant::SkipFsync),
        ("skip-directory-fsync", Plant::SkipDirectoryFsync),
    ];

    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Plant> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, plant)| plant)
    }
}

/// Whether this build can carry planted bugs.
pub const PLANTED: bool = cfg!(feature = "plant");

#[cfg(feature = "plant")]
static ACTIVE: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Plants a bug, or takes it out again.
#[cfg(feature = "plant")]
pub fn plant(bug: Option<Plant>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u32), core::sync::atomic::Ordering::Relaxed);
}

/// Whether this bug is planted.
#[inline(always)]
#[must_use]
pub fn planted(bug: Plant) -> bool {
    #[cfg(feature = "plant")]
    return ACTIVE.load(core::sync::atomic::Ordering::Relaxed) == bug as u32;
    #[cfg(not(feature = "plant"))]
    {
        let _ = bug;
        false
    }
}
