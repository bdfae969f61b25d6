//! How the consumers in a slot share its managed memory: a weight for each kind, a share for each kind that is present.
//! Stateless.
//!
//! Always: shares of the kinds that are present add up to at most one; a kind without a weight, or absent, has none.

use serde::Serialize;

/// What draws on managed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Consumer {
    /// Operators: sorting, joins, caches.
    Operator,
    /// Keyed state.
    StateBackend,
    /// Python processes; kept as a kind so that configurations carry over.
    Python,
}

impl Consumer {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Operator, Self::StateBackend, Self::Python];

    /// As it is spelled in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "OPERATOR",
            Self::StateBackend => "STATE_BACKEND",
            Self::Python => "PYTHON",
        }
    }
}

/// A weight for each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    of: [Option<u32>; 3],
    /// Names that are no kind, in the order they were given. Flink ignores them.
    pub unknown: Vec<String>,
}

/// Why a text is not a list of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WeightsError {
    NotAPair(String),
    NotANumber { consumer: String, found: String },
    Negative { consumer: String, found: i64 },
    Twice(String),
}

impl Weights {
    /// Reads what `Display` writes; `None` if that is not what it is.
    pub fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    /// Reads `OPERATOR:70,STATE_BACKEND:70`, with or without braces around it.
    pub(super) fn parse(text: &str) -> Result<Self, WeightsError> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let mut weights = Self::default();
        for pair in inner.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((consumer, found)) = pair.split_once(':') else {
                return Err(WeightsError::NotAPair(pair.to_owned()));
            };
            let quotes = ['\'', '"'];
            let (consumer, found) = (consumer.trim().trim_matches(quotes), found.trim().trim_matches(quotes));
            let place = Consumer::ALL.iter().position(|kind| kind.name() == consumer);
            let Some(place) = place else {
                weights.unknown.push(consumer.to_owned());
                continue;
            };
            let consumer = consumer.to_owned();
            // The range of a Java int, of which only the upper half is a weight.
            let Ok(weight) = found.parse::<i32>() else {
                return Err(WeightsError::NotANumber { consumer, found: found.to_owned() });
            };
            let Ok(weight) = u32::try_from(weight) else {
                return Err(WeightsError::Negative { consumer, found: i64::from(weight) });
            };
            if weights.of[place].replace(weight).is_some() {
                return Err(WeightsError::Twice(consumer));
            }
        }
        Ok(weights)
    }

    /// The weight of a kind; zero if it has none.
    pub fn of(&self, consumer: Consumer) -> u32 {
        self.of[consumer as usize].unwrap_or(0)
    }

    /// The share of `consumer` where the kinds in `present` are, truncated at 16 digits as Flink does. State that is kept
    /// on the heap is no consumer: leave it out of `present`.
    pub fn share(&self, consumer: Consumer, present: &[Consumer]) -> f64 {
        let scaled = self.share_scaled(consumer, present);
        // Through text, so that the double is the one nearest to the 16 digits.
        format!("{scaled}e-16").parse().unwrap_or(0.0)
    }

    /// Bytes of `consumer` in a slot with `managed` bytes. At most `managed`.
    pub fn bytes(&self, consumer: Consumer, present: &[Consumer], managed: u64) -> u64 {
        let product = (managed as f64 * self.share(consumer, present)).floor();
        // A float that is too large becomes the largest integer, so the bound holds.
        (product as u64).min(managed)
    }

    fn share_scaled(&self, consumer: Consumer, present: &[Consumer]) -> u64 {
        const DIGITS: u128 = 10_000_000_000_000_000;
        let is = |kind: Consumer| present.contains(&kind);
        let sum: u128 =
            Consumer::ALL.into_iter().filter(|kind| is(*kind)).map(|kind| u128::from(self.of(kind))).sum();
        if sum == 0 || !is(consumer) {
            return 0;
        }
        u64::try_from(u128::from(self.of(consumer)) * DIGITS / sum).unwrap_or(0)
    }
}

/// The form that is read back.
impl std::fmt::Display for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for kind in Consumer::ALL {
            if let Some(weight) = self.of[kind as usize] {
                write!(f, "{separator}{}:{weight}", kind.name())?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Consumer::{Operator, Python, StateBackend};
    use super::*;
    use proptest::prelude::*;

    fn defaults() -> Weights {
        Weights::parse("OPERATOR:70,STATE_BACKEND:70,PYTHON:30").expect("the default")
    }

    #[test]
    fn shares_of_what_is_present() {
        let weights = defaults();
        assert_eq!(weights.share(Operator, &[Operator, StateBackend]), 0.5);
        let all = [Operator, StateBackend, Python];
        assert_eq!(weights.share(Operator, &all), 0.4117647058823529);
        assert_eq!(weights.share(Python, &all), 0.1764705882352941);
        assert_eq!(weights.share(Operator, &[Operator, Python]), 0.7);
        assert_eq!(weights.share(Python, &[Operator, Python]), 0.3);
        assert_eq!(weights.share(StateBackend, &[Operator, Python]), 0.0);
        assert_eq!(Weights::default().share(Operator, &all), 0.0);
        assert_eq!(weights.bytes(Operator, &all, 1000), 411);
    }

    #[test]
    fn texts() {
        let weights = Weights::parse(" { OPERATOR: 1, 'PYTHON': \"2\" } ").expect("braces and quotes");
        assert_eq!((weights.of(Operator), weights.of(StateBackend), weights.of(Python)), (1, 0, 2));
        assert_eq!(Weights::parse(""), Ok(Weights::default()));
        assert_eq!(Weights::parse("DATAPROC:1").expect("ignored").unknown, ["DATAPROC"]);
        let negative = WeightsError::Negative { consumer: "OPERATOR".into(), found: -1 };
        assert_eq!(Weights::parse("OPERATOR:-1"), Err(negative));
        assert!(matches!(Weights::parse("OPERATOR"), Err(WeightsError::NotAPair(_))));
        assert!(matches!(Weights::parse("OPERATOR:1.5"), Err(WeightsError::NotANumber { .. })));
        assert!(matches!(Weights::parse("OPERATOR:2147483648"), Err(WeightsError::NotANumber { .. })));
        assert!(matches!(Weights::parse("OPERATOR:1,OPERATOR:1"), Err(WeightsError::Twice(_))));
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_whole(a: u16, b: u16, c: u16, managed in 0..=i64::MAX as u64) {
            let weights = Weights::parse(&format!("OPERATOR:{a},STATE_BACKEND:{b},PYTHON:{c}")).expect("weights");
            let scaled: u64 = Consumer::ALL.iter().map(|kind| weights.share_scaled(*kind, &Consumer::ALL)).sum();
            prop_assert!(scaled <= 10_000_000_000_000_000);
            for kind in Consumer::ALL {
                prop_assert!(weights.bytes(kind, &Consumer::ALL, managed) <= managed);
            }
            prop_assert_eq!(Weights::parse(&weights.to_string()), Ok(weights));
        }

        #[test]
        fn any_text_is_weights_or_an_error(text in "\\PC*") {
            let _ = Weights::parse(&text);
        }
    }
}
