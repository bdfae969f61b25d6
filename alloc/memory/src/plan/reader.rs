//! Values as the derivation reads them: parsed, checked for themselves, with default and origin. Stateless beside what it
//! borrows.
//!
//! Only what a derivation asks for is read, as in Flink: a malformed value that no rule needs refuses nothing.
//!
//! Always: a size is below 2^63; a range has min ≤ max and 0 ≤ fraction < 1.

use std::collections::BTreeMap;

use super::component::{Bound, Component, Cost, Name, Part, Rule};
use super::error::{PlanError, Reason, Unreadable};
use super::fraction;
use super::keys::{Preset, known};
use super::origin::{Input, Origin};
use super::settings::Settings;
use super::{Process, Profile};
use crate::MemorySize;

/// 2^63 - 1.
pub(super) const SIZE_MAX: u64 = MemorySize::MAX.bytes();

/// A default that is computed: its bytes, and from what.
#[derive(Clone, Debug, Default)]
pub(super) struct Stated {
    pub(super) bytes: u64,
    /// What is really needed, where the default had to yield to a configured bound.
    pub(super) needed: u64,
    pub(super) costs: Vec<Cost>,
}

/// A size that was read.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) bytes: u64,
    pub(super) input: Input,
    pub(super) rule: Rule,
}

impl Value {
    pub(super) fn component(self) -> Component {
        Component { bytes: self.bytes, rule: self.rule, inputs: vec![self.input] }
    }
}

/// Bounds and a fraction that agree.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) fraction: f64,
    pub(super) inputs: Vec<Input>,
}

pub(super) struct Reader<'a> {
    pub(super) process: Process,
    pub(super) profile: Profile,
    pub(super) settings: &'a Settings,
    pub(super) stated: BTreeMap<&'static str, Stated>,
}

impl Reader<'_> {
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.settings.get(key).is_some()
    }

    /// A refusal without parts.
    pub(super) fn refuse(&self, reason: Reason, inputs: Vec<Input>) -> PlanError {
        self.refuse_sum(reason, Vec::new(), inputs)
    }

    /// A refusal that shows a sum.
    pub(super) fn refuse_sum(&self, reason: Reason, parts: Vec<Part>, inputs: Vec<Input>) -> PlanError {
        // A value that led here in two ways is named once; defaults would only lengthen the message.
        let mut shown: Vec<Input> = Vec::new();
        for input in inputs {
            if input.origin != Origin::Default && !shown.contains(&input) {
                shown.push(input);
            }
        }
        PlanError {
            process: self.process,
            profile: self.profile,
            reason,
            parts,
            inputs: shown,
            changes: Vec::new(),
            together: Vec::new(),
        }
    }

    /// The text of a key and where it came from; its default if it is not set.
    fn text(&self, key: &'static str) -> Option<Input> {
        if let Some(input) = self.settings.input(key) {
            return Some(input);
        }
        let value = match known(key)?.preset(self.profile) {
            Preset::Text(text) => text.to_owned(),
            Preset::Stated(_) | Preset::None => return None,
        };
        Some(Input { key, value, origin: Origin::Default })
    }

    pub(super) fn size(&self, key: &'static str) -> Result<Value, PlanError> {
        if !self.is_set(key)
            && let Some(stated) = self.stated.get(key)
        {
            let input = Input { key, value: format!("{}b", stated.bytes), origin: Origin::Default };
            let costs = stated.costs.clone();
            let rule = if costs.is_empty() { Rule::Default } else { Rule::Stated { costs } };
            return Ok(Value { bytes: stated.bytes, input, rule });
        }
        let Some(input) = self.text(key) else {
            return Err(self.refuse(Reason::NothingConfigured, Vec::new()));
        };
        // The whole text, not what a message shows of it.
        let text = self.settings.get(key).map_or(input.value.as_str(), |setting| setting.value.as_str());
        match text.parse::<MemorySize>() {
            Ok(size) => {
                let rule = if input.origin == Origin::Default { Rule::Default } else { Rule::Configured };
                Ok(Value { bytes: size.bytes(), input, rule })
            }
            Err(error) => {
                let why = Unreadable::Size(error);
                Err(self.refuse(Reason::Unreadable { key, why }, vec![input]))
            }
        }
    }

    /// A number that is at least 1. As for Flink, spaces around it are not part of a number.
    pub(super) fn count(&self, key: &'static str, max: u64) -> Result<u32, PlanError> {
        let Some(input) = self.text(key) else { return Ok(1) };
        let digits = input.value.strip_prefix('+').unwrap_or(&input.value);
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count =
            digits.parse::<u32>().ok().filter(|count| whole && *count >= 1 && u64::from(*count) <= max);
        count.ok_or_else(|| {
            let why = Unreadable::Count { max };
            self.refuse(Reason::Unreadable { key, why }, vec![input])
        })
    }

    /// The text of a key that has one; a default otherwise.
    pub(super) fn whole_text(&self, key: &'static str) -> String {
        match self.settings.get(key) {
            Some(setting) => setting.value.clone(),
            None => self.text(key).map(|input| input.value).unwrap_or_default(),
        }
    }

    fn fraction(&self, key: &'static str) -> Result<(f64, Input), PlanError> {
        let Some(input) = self.text(key) else {
            return Err(self.refuse(Reason::NothingConfigured, Vec::new()));
        };
        match fraction::parse(&input.value) {
            Some(value) => Ok((value, input)),
            None => {
                let why = Unreadable::Fraction;
                Err(self.refuse(Reason::Unreadable { key, why }, vec![input]))
            }
        }
    }

    /// Bounds and fraction of a component, which must agree.
    pub(super) fn range(
        &self,
        component: Name,
        bounds: Option<(&'static str, &'static str)>,
        fraction_key: &'static str,
    ) -> Result<Range, PlanError> {
        let (mut min, mut max, mut inputs) = (0, SIZE_MAX, Vec::new());
        if let Some((min_key, max_key)) = bounds {
            let (least, most) = (self.size(min_key)?, self.size(max_key)?);
            (min, max) = (least.bytes, most.bytes);
            inputs.extend([least.input, most.input]);
        }
        let (fraction, input) = self.fraction(fraction_key)?;
        inputs.push(input);
        // Not a number is in no range.
        if min <= max && (0.0..1.0).contains(&fraction) {
            Ok(Range { min, max, fraction, inputs })
        } else {
            Err(self.refuse(Reason::Inconsistent { component, min, max, fraction }, inputs))
        }
    }
}

impl Range {
    /// The fraction of a known total.
    pub(super) fn of(&self, of: Name, base: u64) -> Component {
        // A fraction below one of a size is a size.
        let product = fraction::multiply(base, self.fraction).unwrap_or(SIZE_MAX);
        let (bytes, bound) = self.clamp(product);
        let rule = Rule::Fraction { of, base, fraction: self.fraction, product, bound, multiple_of: None };
        Component { bytes, rule, inputs: self.inputs.clone() }
    }

    /// The share in a total of which the other parts are `base`. `None` if it is 2^63 bytes or more before the bounds.
    pub(super) fn beside(&self, base: u64) -> Option<Component> {
        let product = fraction::multiply(base, fraction::inverse(self.fraction))?;
        let (bytes, bound) = self.clamp(product);
        let rule = Rule::Inverse { base, fraction: self.fraction, product, bound, multiple_of: None };
        Some(Component { bytes, rule, inputs: self.inputs.clone() })
    }

    pub(super) fn contains(&self, bytes: u64) -> bool {
        (self.min..=self.max).contains(&bytes)
    }

    /// Rounds a component made by [`of`](Self::of) or [`beside`](Self::beside) down to a multiple of `unit`, unless that is
    /// below the least.
    pub(super) fn round(&self, component: &mut Component, unit: u64) {
        let rest = component.bytes.checked_rem(unit).unwrap_or(0);
        let rounded = component.bytes - rest;
        if rest == 0 || rounded < self.min {
            return;
        }
        if let Rule::Fraction { multiple_of, .. } | Rule::Inverse { multiple_of, .. } = &mut component.rule {
            *multiple_of = Some(unit);
            component.bytes = rounded;
        }
    }

    fn clamp(&self, bytes: u64) -> (u64, Bound) {
        if bytes > self.max {
            (self.max, Bound::LoweredToMax)
        } else if bytes < self.min {
            (self.min, Bound::RaisedToMin)
        } else {
            (bytes, Bound::Within)
        }
    }
}

/// The sum of parts, which may be more than any size.
pub(super) fn sum(parts: &[Part]) -> u128 {
    parts.iter().map(|part| u128::from(part.bytes)).sum()
}

/// All inputs of some components.
pub(super) fn inputs_of<'a>(components: impl IntoIterator<Item = &'a Component>) -> Vec<Input> {
    components.into_iter().flat_map(|component| component.inputs.iter().cloned()).collect()
}
