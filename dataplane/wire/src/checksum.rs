//! CRC32C (W-4), in one call or piece by piece. No state but the caller's [`PayloadCrc`].
//!
//! Always true: the checksum of a concatenation does not depend on where it was cut, and every engine agrees with
//! the table below (tested against each other).

/// CRC32C of `bytes` (W-4).
///
/// ```
/// assert_eq!(tidegate_wire::payload_crc(b"123456789"), 0xE306_9283);
/// ```
#[must_use]
pub fn payload_crc(bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    return crc_fast::crc32_iscsi(bytes);
    #[cfg(not(feature = "std"))]
    {
        let mut crc = PayloadCrc::new();
        crc.update(bytes);
        crc.finish()
    }
}

/// CRC32C over bytes that come in pieces: a payload that was received in several parts.
///
/// ```
/// use tidegate_wire::{PayloadCrc, payload_crc};
/// let mut crc = PayloadCrc::new();
/// crc.update(b"1234");
/// crc.update(b"56789");
/// assert_eq!(crc.finish(), payload_crc(b"123456789"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PayloadCrc {
    #[cfg(feature = "std")]
    digest: crc_fast::Digest,
    #[cfg(not(feature = "std"))]
    register: u32,
}

impl PayloadCrc {
    /// The checksum of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(feature = "std")]
            digest: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi),
            #[cfg(not(feature = "std"))]
            register: u32::MAX,
        }
    }

    /// Takes in the next `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        #[cfg(feature = "std")]
        self.digest.update(bytes);
        #[cfg(not(feature = "std"))]
        {
            self.register = table_step(self.register, bytes);
        }
    }

    /// The checksum of all bytes taken in so far.
    #[must_use]
    pub fn finish(&self) -> u32 {
        #[cfg(feature = "std")]
        return self.digest.finalize() as u32;
        #[cfg(not(feature = "std"))]
        return !self.register;
    }
}

impl Default for PayloadCrc {
    fn default() -> Self {
        Self::new()
    }
}

/// The Castagnoli polynomial 0x1EDC6F41, bit-reflected (W-4).
#[cfg(any(test, not(feature = "std")))]
const POLYNOMIAL: u32 = 0x82F6_3B78;

#[cfg(any(test, not(feature = "std")))]
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ (POLYNOMIAL & (register & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
};

#[cfg(any(test, not(feature = "std")))]
fn table_step(register: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(register, |register, &byte| {
        (register >> 8) ^ TABLE[((register ^ u32::from(byte)) & 0xFF) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// W-4: the check value of the algorithm, and the empty input.
    #[test]
    fn check_values() {
        assert_eq!(payload_crc(b"123456789"), 0xE306_9283);
        assert_eq!(payload_crc(b""), 0);
        assert_eq!(payload_crc(&[0; 32]), 0x8A91_36AA);
        assert_eq!(payload_crc(&[0xFF; 32]), 0x62A8_AB43);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

        /// W-4: the engine in use, the table, and any cut of the bytes agree.
        #[test]
        fn engines_and_cuts_agree(bytes in proptest::collection::vec(any::<u8>(), 0..5000), cut in any::<prop::sample::Index>()) {
            let at = cut.index(bytes.len() + 1);
            let mut pieces = PayloadCrc::new();
            pieces.update(&bytes[..at]);
            pieces.update(&bytes[at..]);
            prop_assert_eq!(payload_crc(&bytes), !table_step(u32::MAX, &bytes));
            prop_assert_eq!(pieces.finish(), payload_crc(&bytes));
        }
    }
}
