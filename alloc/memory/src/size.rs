//! Memory sizes as users write them: a whole number and a unit, the same texts that Flink accepts. Stateless.
//!
//! Always: a size is below 2⁶³ bytes; printing a size and parsing the text gives the size.

use std::fmt;
use std::str::FromStr;

use crate::limits::SIZE_TEXT_BYTES_MAX;

/// A number of bytes, at most 2⁶³ - 1.
///
/// ```
/// use tidegate_memory::MemorySize;
/// let size: MemorySize = "64 MB".parse()?;
/// assert_eq!(size.bytes(), 67_108_864);
/// assert_eq!(size.to_string(), "64m");
/// assert_eq!(MemorySize::from_bytes(134_217_730)?.human(), "128.000mb (134217730 bytes)");
/// # Ok::<(), tidegate_memory::SizeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemorySize(u64);

struct Unit {
    bytes: u64,
    /// Accepted in any case. The first is printed by `Display`, the second by `human`.
    names: &'static [&'static str],
}

const UNITS: [Unit; 5] = [
    Unit { bytes: 1, names: &["b", "bytes"] },
    Unit { bytes: 1 << 10, names: &["k", "kb", "kibibytes"] },
    Unit { bytes: 1 << 20, names: &["m", "mb", "mebibytes"] },
    Unit { bytes: 1 << 30, names: &["g", "gb", "gibibytes"] },
    Unit { bytes: 1 << 40, names: &["t", "tb", "tebibytes"] },
];

const BYTES_MAX: u64 = i64::MAX as u64;

impl MemorySize {
    /// No bytes.
    pub const ZERO: Self = Self(0);
    /// The largest size: what an unlimited maximum resolves to.
    pub const MAX: Self = Self(BYTES_MAX);

    /// Checks that `bytes` is below 2⁶³.
    pub const fn from_bytes(bytes: u64) -> Result<Self, SizeError> {
        if bytes > BYTES_MAX { Err(SizeError::TooLarge) } else { Ok(Self(bytes)) }
    }

    /// `count` × 1 MiB.
    ///
    /// # Panics
    /// If that is 2⁶³ or more. Meant for constants, where the panic is a compile error.
    pub const fn from_mebibytes(count: u64) -> Self {
        assert!(count <= BYTES_MAX >> 20, "a size is below 2^63 bytes");
        Self(count << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// For people: the largest unit the size exceeds with three decimals, and the exact bytes.
    pub fn human(self) -> String {
        match UNITS.iter().skip(1).rev().find(|unit| self.0 > unit.bytes) {
            Some(unit) => {
                let approximate = self.0 as f64 / unit.bytes as f64;
                format!("{approximate:.3}{} ({} bytes)", unit.names[1], self.0)
            }
            None => format!("{} bytes", self.0),
        }
    }
}

/// The shortest exact form, in the largest unit that divides the size: `32k`, `1g`, `1000b`.
impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|unit| self.0 >= unit.bytes && self.0.is_multiple_of(unit.bytes));
        let unit = unit.unwrap_or(&UNITS[0]);
        write!(f, "{}{}", self.0 / unit.bytes, unit.names[0])
    }
}

impl FromStr for MemorySize {
    type Err = SizeError;

    /// A whole number, optional spaces, and an optional unit in any case: `b`, `bytes`, `k`, `kb`, `kibibytes`, and so
    /// on to `t`. Without a unit it is bytes. All units are binary.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        if text.len() > SIZE_TEXT_BYTES_MAX {
            return Err(SizeError::TooLong { found: text.len() });
        }
        // ASCII spaces and control characters, no others: what Flink trims.
        let text = text.trim_matches(|c| c <= ' ');
        if text.is_empty() {
            return Err(SizeError::Empty);
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(SizeError::NoNumber { found: text.to_owned() });
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        let unit = unit.trim_matches(|c| c <= ' ').to_lowercase();
        let factor = match UNITS.iter().find(|known| known.names.contains(&unit.as_str())) {
            Some(known) => known.bytes,
            None if unit.is_empty() => 1,
            None => return Err(SizeError::UnknownUnit { found: unit }),
        };
        let bytes = number.checked_mul(factor).ok_or(SizeError::TooLarge)?;
        Self::from_bytes(bytes)
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Nothing but spaces.
    #[error("configuration: a size is empty; write a number and a unit, such as 64m")]
    Empty,
    /// Not a size by its length.
    #[error(
        "configuration: a size of {found} characters, expected at most {SIZE_TEXT_BYTES_MAX}; write a number and a unit, such as 64m"
    )]
    TooLong {
        /// Length of the text in bytes.
        found: usize,
    },
    /// It does not start with a digit: negative, or no number at all.
    #[error(
        "configuration: size `{found}` does not start with a number; write one that is not negative, such as 64m"
    )]
    NoNumber {
        /// The text.
        found: String,
    },
    /// What follows the number is no unit; `1.5g` ends here too.
    #[error(
        "configuration: `{found}` is not a unit after a whole number; units are b, k, m, g, t (or kb, kibibytes, …)"
    )]
    UnknownUnit {
        /// The text after the number.
        found: String,
    },
    /// 2⁶³ bytes or more.
    #[error("configuration: a size is 2^63 bytes or more; write a smaller one")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<u64, SizeError> {
        text.parse::<MemorySize>().map(MemorySize::bytes)
    }

    #[test]
    fn every_unit_in_every_spelling() {
        for (power, names) in [
            (0, ["b", "bytes", "", "BYTES"]),
            (10, ["k", "kb", "kibibytes", "KiB".trim_end_matches("iB")]),
            (20, ["m", "mb", "mebibytes", "MeBiBytes"]),
            (30, ["g", "gb", "gibibytes", "GB"]),
            (40, ["t", "tb", "tebibytes", "T"]),
        ] {
            for name in names {
                assert_eq!(parse(&format!("3{name}")), Ok(3 << power), "{name}");
                assert_eq!(parse(&format!("  3 \t{name} ")), Ok(3 << power), "spaces around {name}");
            }
        }
    }

    #[test]
    fn refused_texts() {
        assert_eq!(parse(""), Err(SizeError::Empty));
        assert_eq!(parse("   "), Err(SizeError::Empty));
        assert_eq!(parse("-1m"), Err(SizeError::NoNumber { found: "-1m".into() }));
        assert_eq!(parse("+1m"), Err(SizeError::NoNumber { found: "+1m".into() }));
        assert_eq!(parse("mb"), Err(SizeError::NoNumber { found: "mb".into() }));
        assert_eq!(parse("1.5g"), Err(SizeError::UnknownUnit { found: ".5g".into() }));
        assert_eq!(parse("16 kib"), Err(SizeError::UnknownUnit { found: "kib".into() }));
        assert_eq!(parse("16 16 gb"), Err(SizeError::UnknownUnit { found: "16 gb".into() }));
        assert_eq!(parse("１m"), Err(SizeError::NoNumber { found: "１m".into() }), "digits are ASCII");
        assert_eq!(
            parse("\u{a0}1m"),
            Err(SizeError::NoNumber { found: "\u{a0}1m".into() }),
            "spaces are ASCII"
        );
        assert_eq!(parse(&" ".repeat(129)), Err(SizeError::TooLong { found: 129 }));
    }

    #[test]
    fn sixty_three_bits_and_not_one_more() {
        assert_eq!(parse("9223372036854775807"), Ok(i64::MAX as u64));
        assert_eq!(parse("9223372036854775808"), Err(SizeError::TooLarge));
        assert_eq!(parse("99999999999999999999999"), Err(SizeError::TooLarge));
        assert_eq!(parse("8388607t"), Ok(8_388_607 << 40));
        assert_eq!(parse("8388608t"), Err(SizeError::TooLarge));
        assert_eq!(parse("18446744073709551615t"), Err(SizeError::TooLarge));
    }

    #[test]
    fn printing_for_people() {
        let human = |bytes| MemorySize::from_bytes(bytes).expect("small").human();
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1024), "1024 bytes");
        assert_eq!(human(1025), "1.001kb (1025 bytes)");
        assert_eq!(human(1 << 30), "1024.000mb (1073741824 bytes)");
        assert_eq!(human(1_811_939_328), "1.688gb (1811939328 bytes)");
    }

    proptest! {
        #[test]
        fn printed_sizes_parse_back(bytes in 0..=BYTES_MAX, shift in 0u32..63) {
            let size = MemorySize(bytes >> shift << shift.min(40));
            prop_assume!(size.0 <= BYTES_MAX);
            prop_assert_eq!(size.to_string().parse::<MemorySize>(), Ok(size));
        }

        #[test]
        fn any_text_is_a_size_or_an_error(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
