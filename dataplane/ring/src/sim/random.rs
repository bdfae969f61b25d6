//! A small seeded generator (SplitMix64, Steele, Lea and Flood 2014): the same numbers on every machine and in every version.

/// Numbers that depend on nothing but the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    // Not an iterator: it never ends, and nobody wants its adapters.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product: the bias is below 2^-64 times the bound.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of the range, both ends included.
    pub fn within(&mut self, range: [u64; 2]) -> u64 {
        range[0] + self.below(range[1].saturating_sub(range[0]).saturating_add(1))
    }

    /// True so many times in 65,536.
    pub fn chance(&mut self, of_65536: u32) -> bool {
        (self.next() >> 48) < u64::from(of_65536)
    }

    /// An independent sequence.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
