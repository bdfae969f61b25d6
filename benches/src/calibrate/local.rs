//! What one core does alone: copying, checksums, system calls. No state.

use std::error::Error;
use std::hint::black_box;

use tidegate_wire::payload_crc;

use super::{Figure, Setting, sample, throughput, time};

const HOT: usize = 64 << 10;
const COLD: usize = 256 << 20;
const FRAME: usize = 32 << 10;
const CALLS: u32 = 1_000;

/// Copying what is in the first caches.
pub fn memcpy_hot(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    const TIMES: u32 = 100;
    let (from, mut to) = (vec![1u8; HOT], vec![0u8; HOT]);
    let samples = sample(setting.budget, TIMES, || {
        for _ in 0..TIMES {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
    });
    throughput("memcpy, 64 KiB again and again", HOT, &samples)
}

/// Copying what is in no cache: every sample is the next piece of two large buffers.
pub fn memcpy_cold(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    const PIECE: usize = 8 << 20;
    let (from, mut to) = (vec![1u8; COLD], vec![2u8; COLD]);
    let mut at = 0;
    let samples = sample(setting.budget, 1, || {
        to[at..at + PIECE].copy_from_slice(black_box(&from[at..at + PIECE]));
        black_box(&mut to);
        at = (at + PIECE) % COLD;
    });
    throughput(super::MEMCPY_COLD, PIECE, &samples)
}

/// CRC32C of one frame.
pub fn checksum(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    const TIMES: u32 = 100;
    let frame = vec![7u8; FRAME];
    let samples = sample(setting.budget, TIMES, || {
        for _ in 0..TIMES {
            black_box(payload_crc(black_box(&frame)));
        }
    });
    throughput("CRC32C of 32 KiB", FRAME, &samples)
}

/// A system call that does nothing.
pub fn system_call(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    let samples = sample(setting.budget, CALLS, || {
        for _ in 0..CALLS {
            black_box(rustix::process::getppid());
        }
    });
    time("empty system call", &samples)
}
