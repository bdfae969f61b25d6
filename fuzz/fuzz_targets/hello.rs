//! Any bytes as a hello and as a reply: the decoder must agree with the naive one, and never panic.
#![no_main]

#[path = "../../dataplane/wire/tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::hello(bytes));
