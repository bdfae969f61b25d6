//! A script: the bytes of an input, taken from the front as choices. Where they end, every further choice is 0.
//!
//! It borrows the bytes and owns the place. Written by hand rather than derived, so that seeds can be written too, and a
//! changed byte changes one choice.

/// What is left of the choices.
pub struct Script<'a>(pub &'a [u8]);

impl Script<'_> {
    /// The next byte, `None` at the end.
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }
}

#[cfg(feature = "control")]
impl Script<'_> {
    /// The next eight bytes, little-endian.
    pub fn wide(&mut self) -> u64 {
        u64::from_le_bytes([0; 8].map(|_: u8| self.byte()))
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }
}
