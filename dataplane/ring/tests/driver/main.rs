//! The drivers against real sockets on loopback. Where io_uring is forbidden its part is skipped, with the reason printed.
//!
//! Nothing here sleeps: every step waits for a completion, a byte on a peer's blocking socket, or a thread.

mod bell;
mod close;
mod faults;
mod modes;
mod shm;
mod side;
mod stream;
mod table;
