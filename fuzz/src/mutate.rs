//! Bent copies of an input, the same in every run: flipped bits, cuts, lengths at their edges, pieces left out or twice.
//!
//! No state but the generator's. Always: equal inputs give equal copies, in the same order.

/// Values at which lengths and counts go wrong, written over four or eight bytes.
const EDGES: [u64; 10] =
    [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, u64::MAX >> 1, u64::MAX];

/// Calls `run` with about `count` bent copies of `bytes`.
pub fn bent(bytes: &[u8], count: usize, mut run: impl FnMut(&[u8])) {
    if bytes.is_empty() {
        return;
    }
    let mut random = Random(bytes.len() as u64 ^ 0x7469_6465);
    let mut copy = Vec::new();
    for at in 0..count {
        copy.clear();
        copy.extend_from_slice(bytes);
        let place = random.below(bytes.len());
        match at % 8 {
            0..=2 => copy[place] ^= 1 << random.below(8),
            3 => copy.truncate(place),
            4 => write(&mut copy, place, 4, &mut random),
            5 => write(&mut copy, place, 8, &mut random),
            6 => {
                let end = (place + 1 + random.below(32)).min(copy.len());
                copy.drain(place..end);
            }
            _ => {
                let end = (place + 1 + random.below(64)).min(copy.len());
                let piece = copy[place..end].to_vec();
                copy.splice(place..place, piece);
            }
        }
        run(&copy);
    }
}

fn write(copy: &mut [u8], place: usize, width: usize, random: &mut Random) {
    let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
    let width = width.min(copy.len() - place);
    copy[place..place + width].copy_from_slice(&edge[..width]);
}

/// Knuth's linear congruential generator: good enough to choose places, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}
