//! No-operations through io_uring: what submitting and completing cost by themselves.
//!
//! # Safety
//!
//! The one unsafe call of this crate hands an entry to the kernel. **Rule 1:** whatever an entry points to stays valid
//! until its completion. A no-operation points to nothing.
#![allow(unsafe_code)]

use std::error::Error;

use io_uring::{IoUring, opcode, squeue};

use super::{Figure, Setting, sample, time};

const ENTRIES: u32 = 64;
const TIMES: u32 = 32;

/// One per system call.
pub fn one_by_one(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    nops(setting, "io_uring no-op, 1 a call", 1)
}

/// Many per system call.
pub fn by_thirty_two(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    nops(setting, "io_uring no-op, 32 a call", 32)
}

fn nops(setting: Setting, what: &'static str, batch: u32) -> Result<Figure, Box<dyn Error>> {
    // As the engine's ring where the kernel has that, else as it comes.
    let like_ours = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
    let mut ring: IoUring = like_ours.or_else(|_| IoUring::new(ENTRIES))?;
    let mut failed = None;
    let samples = sample(setting.budget, batch * TIMES, || {
        for _ in 0..TIMES {
            if let Err(error) = round(&mut ring, batch) {
                failed = Some(error);
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => time(what, &samples),
    }
}

/// Submits a batch and takes its completions.
fn round(ring: &mut IoUring, batch: u32) -> Result<(), Box<dyn Error>> {
    for _ in 0..batch {
        let entry: squeue::Entry = opcode::Nop::new().build();
        let mut queue = ring.submission();
        // SAFETY: rule 1, the entry points to nothing.
        unsafe { queue.push(&entry) }?;
    }
    ring.submit_and_wait(batch as usize)?;
    let completed = ring.completion().count();
    if completed == batch as usize {
        Ok(())
    } else {
        Err(format!("{completed} of {batch} no-operations completed").into())
    }
}
