//! A simulated network: [`Ring`](crate::Ring) without a kernel, with a seed and virtual time.
//!
//! [`SimNet`] is the world: streams between hosts, their delays and accidents, and the clock. [`SimRing`] is one slot's
//! driver in it. Nothing happens by itself: whoever runs the simulation steps the slots and moves the clock. Equal seeds and
//! equal calls give equal runs, to the bit.
//!
//! The driver is as unpleasant as the kernel may be: sends end in pieces, receives are short, completions come late and in
//! another order, zero-copy notifications come much later, connections reset, stall, and lose what was not delivered. It
//! writes received bytes when it completes the operation and not before, poisons what it was given to write to, and checks at
//! the end of every send that nobody wrote what it was still reading.

mod driver;
mod net;
mod random;

pub use driver::{SimBell, SimRing, SimWatch};
pub use net::{SimCounts, SimNet, SimSocket, Weather};
pub use random::Random;
