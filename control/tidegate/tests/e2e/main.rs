//! End-to-end tests: the real binary, real processes, real input, and faults.
//!
//! | file | question |
//! |---|---|
//! | `jobs.rs` | does each job write what a plain loop over its input says? |
//! | `demo.rs` | does the demo print what that loop says? |
//! | `driver.rs` | does a job on epoll, asked for or because io_uring is forbidden, and on io_uring in a container? |
//! | `kills.rs` | does it still, when processes and connections die at random moments? |
//! | `large_state.rs` | does it still, when a checkpoint takes many steps while records flow? |
//! | `starved.rs` | does it still, with so few segments that credit is always exhausted? |
//! | `latency.rs` | is it told where the time of a job goes, in all the ways to ask? |
//! | `hangs.rs` | does it end when a slot hangs in a function of the job? |
//! | `outgrown.rs` | does a job that wants more memory than is planned fail alone, and by name? |
//! | `plans.rs` | does a TaskManager keep to its plan, and is a job refused that its slots have no room for? |
//! | `bad_input.rs` | does bad input get a clear error and lose nothing? |
//! | `outputs.rs` | which output folders are refused, and what is left in them? |
//! | `matrix.rs` | does the most important of all this hold on every driver, transport and send mode? |
//! | `readme.rs` | does the job in the README run? |
//! | `needs_root.rs` | faults that only root can make; `cargo xtask faults` runs them |
//! | `faults/` | the catalogue of faults, one job that accounts for every record under all of them; so does that |
//!
//! All of them run on any driver, transport and send mode: `cargo xtask e2e` sets `TIDEGATE_E2E` (`support/engine.rs`).
//!
//! `TIDEGATE_SEED=…` repeats the random choices of a run; the seed is printed with every failure.

mod bad_input;
mod demo;
mod driver;
mod faults;
mod hangs;
mod jobs;
mod kills;
mod large_state;
mod latency;
mod matrix;
mod needs_root;
mod outgrown;
mod outputs;
mod plans;
mod readme;
mod sizing;
mod starved;
mod support;

/// As in every binary of ours: tests run this one again, as the binary of other jobs, whose memory is to be counted.
#[global_allocator]
static HEAP: tidegate::Allocator = tidegate::Allocator::new();
