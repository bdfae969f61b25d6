//! A script as the life of a link: one end is ours, an exchange as it runs in production over a simulated network; the other
//! is whatever the script makes of it.
//!
//! The first byte says which end we are: a consumer that is sent trains ([`consumer`]), or a producer that is sent credit
//! ([`producer`]). The stranger builds trains that are lawful unless the script says otherwise, and bends them: bytes cut
//! anywhere, bits flipped, trains repeated or left out, foreign channels and generations, lengths, sums, credit that was
//! never granted. Both ends are watched by the wire crate's referee, which shares no code with the link.
//!
//! Oracle, besides that nothing panics:
//! - our end never breaks a rule of the protocol, whatever the other does;
//! - a stranger that breaks none is never refused; one that does is, as soon as the bytes are there;
//! - what our task reads is, per channel, the beginning of what was sent, byte by byte, and all of it if no rule was broken;
//! - at the end every segment is free again, within a bounded number of turns.

mod bench;
mod consumer;
mod producer;
pub mod train;

use crate::script::Script;

/// Any bytes as the life of a link.
pub fn link(bytes: &[u8]) {
    let script = &mut Script(bytes);
    match script.byte() % 2 {
        0 => consumer::attacked(script),
        _ => producer::attacked(script),
    }
}
