//! What travels in a channel besides data, in order with it.

/// An event of a channel. Events need no credit; a channel holds at most four that were not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All records before it belong to checkpoint `checkpoint` or an older one.
    Barrier {
        /// The checkpoint.
        checkpoint: u64,
    },
    /// The checkpoint can't be taken by the task upstream; nobody need wait for its barrier.
    AbortMarker {
        /// The checkpoint.
        checkpoint: u64,
    },
    /// No record follows; barriers may.
    EndOfData,
    /// Nothing follows.
    EndOfPartition,
}
