//! Fractions of sizes, to the byte as Flink computes them. Stateless.
//!
//! An option of type float becomes a double; the product is formed in decimal, from the double's shortest decimal that
//! reads back as the double, and truncated. 0.1 is therefore 0.10000000149011612, and a tenth of 1280 MiB has two bytes
//! more than one would think.
//!
//! Always: a product is below 2^63 or there is none; for a fraction below one the product is at most the base.

/// 2^63 - 1: what a size may be.
const SIZE_MAX: u128 = i64::MAX as u128;

/// What a text says as a 32-bit fraction, widened. The texts of `Float.parseFloat`: spaces around, a sign, an exponent, a
/// type suffix, `NaN` and `Infinity` are read; whether the number is a sensible fraction is for the caller to ask.
pub(super) fn parse(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value: f32 = match unsigned {
        "NaN" => f32::NAN,
        "Infinity" => f32::INFINITY,
        _ => {
            let digits = unsigned.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(unsigned);
            // Rust reads "inf" and "nan" too, Java does not.
            if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
                return None;
            }
            // A second sign would be read as one.
            if digits.starts_with(['+', '-']) {
                return None;
            }
            digits.parse().ok()?
        }
    };
    Some(f64::from(if text.starts_with('-') { -value } else { value }))
}

/// `base` × `factor`, truncated. `None` if the product is 2^63 or more, or the factor is negative or no number.
pub(super) fn multiply(base: u64, factor: f64) -> Option<u64> {
    if !factor.is_finite() || factor < 0.0 {
        return None;
    }
    if factor == 0.0 {
        return Some(0);
    }
    let (digits, exponent) = shortest(factor)?;
    // Below 2^63 × 10^17 < 2^127.
    let product = u128::from(base).checked_mul(u128::from(digits))?;
    let scale = 10u128.checked_pow(exponent.unsigned_abs());
    let (whole, rest) = match (scale, exponent >= 0) {
        (Some(scale), true) => (product.checked_mul(scale)?, 0),
        (Some(scale), false) => (product / scale, product % scale),
        (None, true) => return (product == 0).then_some(0),
        // Ten to the 39th and more is above every product.
        (None, false) => (0, product),
    };
    // The comparison comes before the truncation.
    if whole > SIZE_MAX || (whole == SIZE_MAX && rest > 0) { None } else { u64::try_from(whole).ok() }
}

/// The share of a part in a total that still has to be found: `fraction` / (1 - `fraction`) of the other parts.
pub(super) fn inverse(fraction: f64) -> f64 {
    fraction / (1.0 - fraction)
}

/// The double as digits × 10^exponent, with the fewest digits that read back as the double (at most 17).
fn shortest(value: f64) -> Option<(u64, i32)> {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((digits, exponent - i32::try_from(fraction.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_fraction_is_the_widened_float() {
        assert_eq!(parse("0.1"), Some(0.10000000149011612));
        assert_eq!(parse("0.4"), Some(0.4000000059604645));
        assert_eq!(multiply(1280 * MIB, parse("0.1").expect("a number")), Some(134_217_730));
        assert_eq!(multiply(1280 * MIB, parse("0.4").expect("a number")), Some(536_870_920));
        assert_eq!(multiply(1280 * MIB, 0.5), Some(640 * MIB));
    }

    #[test]
    fn texts_that_java_reads() {
        for text in ["0.25", " 0.25\t", "+0.25", ".25", "25e-2", "2.5E-1", "0.25f", "0.25F", "0.25d", "0.25D"]
        {
            assert_eq!(parse(text), Some(0.25), "{text}");
        }
        assert_eq!(parse("1."), Some(1.0));
        assert_eq!(parse("-0.25"), Some(-0.25));
        assert!(parse("NaN").is_some_and(f64::is_nan));
        assert_eq!(parse("-Infinity"), Some(f64::NEG_INFINITY));
        for text in
            ["", " ", "inf", "nan", "infinity", "0,5", "10%", "+-1", "--1", "1e", ".", "f", "0.1ff", "0. 1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn products_at_the_edges() {
        assert_eq!(multiply(u64::MAX >> 1, 1.0), Some(u64::MAX >> 1));
        assert_eq!(multiply(u64::MAX >> 1, 1.0000001), None);
        assert_eq!(multiply(u64::MAX >> 1, 16_777_215.0), None);
        assert_eq!(multiply(u64::MAX >> 1, f64::from(f32::MIN_POSITIVE)), Some(0));
        assert_eq!(multiply(u64::MAX >> 1, f64::from(f32::from_bits(1))), Some(0));
        assert_eq!(multiply(0, f64::MAX), Some(0));
        assert_eq!(multiply(1, f64::MAX), None);
        assert_eq!(multiply(7, f64::NAN), None);
        assert_eq!(multiply(7, -1.0), None);
        assert_eq!(multiply(7, -0.0), Some(0));
    }

    proptest! {
        #[test]
        fn a_product_is_within_its_base(base in 0u64..=i64::MAX as u64, fraction in 0f32..1.0) {
            let product = multiply(base, f64::from(fraction)).expect("a fraction below one cannot overflow");
            prop_assert!(product <= base);
            prop_assert!((product as f64 - base as f64 * f64::from(fraction)).abs() <= 1.0 + base as f64 * 1e-15);
        }

        #[test]
        fn any_factor_and_any_text_have_an_answer(base: u64, bits: u64, text in "\\PC*") {
            let _ = multiply(base >> 1, f64::from_bits(bits));
            let _ = parse(&text);
        }
    }
}
