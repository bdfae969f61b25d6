//! Any bytes as the start of a train: the decoder must agree with the naive one, and never panic.
#![no_main]

#[path = "../../dataplane/wire/tests/bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::manifest(bytes));
