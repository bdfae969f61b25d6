//! The io_uring driver against real sockets on loopback. Skipped, with the reason printed, where io_uring is forbidden.
//!
//! Nothing here sleeps: every step waits for a completion, a byte on a peer's blocking socket, or a thread.

mod bell;
mod close;
mod faults;
mod modes;
mod side;
mod stream;
mod table;
