//! Credit bookkeeping, barrier alignment and the order of bytes on a link, without I/O and without a clock.
//!
//! Everything here is a plain state machine: the caller feeds what arrived and asks what to do. The exchange crate owns the
//! buffers and the ring and drives these machines; a simulator or a fuzzer can drive the same ones.
//!
//! * [`credit`]: how many segments a producer may send ([`SendCredit`]) and how many a consumer has promised
//!   ([`ReceiveCredit`]), per channel;
//! * [`grant`]: how a gate divides its quota between hungry channels ([`GrantPolicy`]);
//! * [`align`]: which channels of a gate wait for a barrier ([`Alignment`]);
//! * [`large`]: when a record larger than a segment may be sent, and which slice of it comes next ([`SendLarge`],
//!   [`ReceiveLarge`]), per channel;
//! * [`order`]: which entries may still come on a channel ([`ReceiveOrder`], [`SendOrder`]);
//! * [`train`]: where the next bytes of a link belong ([`TrainReceiver`]).
//!
//! The invariant that ties them together, asserted in release builds: credits at the sender + in flight + queued + held by
//! the operator ≤ what the channel was granted ≤ the gate's quota; slices of large records lie in the gate's region instead.
#![forbid(unsafe_code)]

pub mod align;
pub mod credit;
pub mod error;
pub mod grant;
pub mod large;
pub mod limits;
pub mod order;
pub mod train;

pub use align::{Alignment, Outcome};
pub use credit::{ReceiveCredit, SendCredit};
pub use error::Violation;
pub use grant::GrantPolicy;
pub use large::{ReceiveLarge, SendLarge};
pub use order::{ReceiveOrder, SendOrder};
pub use train::{Place, Step, TrainReceiver};
