//! Memory that is not the arena: the accounted heap, sizes as users write them, and what the host allows.
//!
//! - [`Accounted`] is the global allocator of every Tidegate binary: mimalloc, counted per thread and per [`Account`] (a
//!   task), so that a test can assert that the data path allocates nothing, a TaskManager can report what its slots do, and
//!   a task that holds too much can be told. [`limit_process`] ends a process by name that would outgrow its plan at once.
//! - [`Budget`] is memory that consumers reserve before they use it: managed memory, and that which user code asks for.
//! - [`MemorySize`] parses and prints sizes.
//! - [`plan`] divides the memory of a process and says why: by Flink's rules to the byte, or by our own.
//! - [`cgroup_memory`], [`memlock`] and their like read the limits that a memory plan has to fit into.
//!
//! # Safety
//!
//! Every unsafe block of this crate names the rules it relies on.
//!
//! 1. **The allocator adds nothing.** Each call is mimalloc's with the same arguments and the same result; the contract
//!    of `GlobalAlloc` that callers keep towards us is the one that mimalloc needs. Counting happens beside it, allocates
//!    nothing, takes no lock, cannot panic (no arithmetic that can fail, no thread-local with a destructor).
//! 2. **A thread's pointer to its shared block lives no longer than the block.** It is set by `register_thread` and
//!    cleared when the handle is dropped; the handle owns the block, cannot leave its thread, and if it is forgotten the
//!    block is forgotten with it.
//! 3. **Calls into libc get pointers to locals of the type they fill,** or to bytes that outlive the call, with their
//!    length.
//! 4. **A thread's pointer to an account lives no longer than the account.** It is set by `Account::run`, which borrows the
//!    account until it has put the pointer before back; its guard is a local that no caller sees, so it cannot be leaked.
//! 5. **A prefetch reads nothing.** The instruction is a hint: it has no effect that a program could see, and no address makes
//!    it fault. It is here, beside the allocator, because the crates that use it forbid unsafe code.
//! 6. **A function for processors with a feature is called where that feature was found,** on the line before. Here for the
//!    same reason.

mod account;
mod budget;
mod counts;
pub mod limits;
mod limits_probe;
pub mod plan;
mod prefetch;
mod process;
mod size;
mod wide;

pub use account::{
    Account, AccountReading, Accounted, ProcessHeap, RegisterError, ThreadCounters, ThreadHandle, measure,
    outside_accounts, process_counters, process_heap, register_thread, this_thread, thread_counters,
};
pub use budget::{Budget, BudgetError, BudgetReading, Reservation};
pub use counts::Counters;
pub use limits_probe::{
    CgroupLimit, CgroupVersion, Limit, cgroup_cpu, cgroup_memory, cgroup_swap, cgroup_threads, host_memory,
    meminfo, memlock, nofile,
};
pub use prefetch::prefetch;
pub use process::{EXIT_OUTGROWN, Resident, limit_process, own_memory_file, resident};
pub use size::{MemorySize, SizeError};
pub use wide::{Loop, wide};
