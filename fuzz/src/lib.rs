//! What each fuzz target does with its bytes, the seeds of its corpus, and how a seed is bent.
//!
//! For the fuzzer (`fuzz_targets/`, one line each) and for the stable tests, which replay every seed and many bent copies of
//! it through the same bodies (`deploy/xtask/tests/replay.rs`). A body panics when the code under it does, or when it gives
//! a wrong answer: each has an oracle of its own, told in its module. Without the feature `control` there are the targets of
//! the data plane only, for a fuzzer that is to be fast.
//!
//! No state. Always: a body is a function of its bytes, so an input that fails once fails always.
#![forbid(unsafe_code)]

#[cfg(feature = "control")]
mod checkpoint;
#[cfg(feature = "control")]
mod config;
#[cfg(feature = "control")]
mod graph;
#[cfg(feature = "control")]
mod leader;
mod link;
pub mod mutate;
#[cfg(feature = "control")]
mod plan;
mod records;
#[cfg(feature = "control")]
mod rest;
#[cfg(feature = "control")]
mod rpc;
mod script;
#[cfg(feature = "control")]
pub mod seeds;
#[cfg(feature = "control")]
mod state;
#[path = "../../dataplane/wire/tests/bodies/mod.rs"]
mod wire;

#[cfg(feature = "control")]
pub use checkpoint::checkpoint;
#[cfg(feature = "control")]
pub use config::config;
#[cfg(feature = "control")]
pub use graph::graph;
#[cfg(feature = "control")]
pub use leader::leader;
pub use link::{link, train};
#[cfg(feature = "control")]
pub use plan::plan;
pub use records::records;
#[cfg(feature = "control")]
pub use rest::rest;
#[cfg(feature = "control")]
pub use rpc::rpc;
#[cfg(feature = "control")]
pub use state::state;
pub use wire::{hello, manifest};

/// One fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of the binary and of the folder of its corpus.
    pub name: &'static str,
    /// What it does.
    pub body: fn(&[u8]),
}

/// All targets.
#[cfg(feature = "control")]
pub const TARGETS: [Target; 12] = [
    Target { name: "manifest", body: manifest },
    Target { name: "hello", body: hello },
    Target { name: "link", body: link },
    Target { name: "records", body: records },
    Target { name: "state", body: state },
    Target { name: "checkpoint", body: checkpoint },
    Target { name: "rpc", body: rpc },
    Target { name: "leader", body: leader },
    Target { name: "config", body: config },
    Target { name: "plan", body: plan },
    Target { name: "rest", body: rest },
    Target { name: "graph", body: graph },
];
