//! The smallest change of one value that makes a refused plan hold. Stateless; each candidate is tried before it is offered.
//!
//! Where the arithmetic gives a value, that one is tried; else the present value is left in steps that double until the plan
//! holds, and the last step is halved until it is the smallest.
//!
//! Always: trials of one search ≤ `SEARCH_STEPS_MAX`; what is offered was resolved and held.

use super::component::Name;
use super::error::{Change, PlanError, Reason, Unreadable};
use super::keys;
use super::reader::SIZE_MAX;
use super::{Process, Request, derive, fraction};
use crate::MemorySize;
use crate::limits::{CHANGES_MAX, NATIVE_SEGMENT_BYTES_MAX, SEARCH_STEPS_MAX, SEGMENT_BYTES_MIN};

/// A value to try, or to search for.
enum Candidate {
    /// This size.
    Size(&'static str, u64),
    /// This text.
    Text(&'static str, String),
    /// No value.
    Remove(&'static str),
    /// The least size above this one.
    Raise(&'static str, u64),
    /// The largest size below this one.
    Lower(&'static str, u64),
    /// The largest fraction below the present one, in hundredths; a total for comparing it with changes of sizes.
    LowerFraction(&'static str, u64),
}

/// Changes that help, the smallest first, at most `CHANGES_MAX`.
pub(super) fn smallest(request: &Request<'_>, refusal: &PlanError) -> Vec<Change> {
    let helpful = helpful(request, refusal);
    helpful.into_iter().map(|(_, change)| change).take(CHANGES_MAX).collect()
}

/// Two changes that help together, where none does alone: one value less, and the smallest change then. Empty if there are
/// none.
pub(super) fn pair(request: &Request<'_>) -> Vec<Change> {
    let mut best: Option<(u64, [Change; 2])> = None;
    for setting in request.settings.of_process(request.process) {
        let settings = request.settings.without(setting.key);
        let fewer = Request { settings: &settings, ..request.clone() };
        let Err(refusal) = derive(&fewer) else { continue };
        let first = Change { key: setting.key, from: Some(setting.value.trim().to_owned()), to: None };
        if let Some((distance, second)) = helpful(&fewer, &refusal).into_iter().next()
            && second.key != first.key
            && best.as_ref().is_none_or(|(least, _)| distance < *least)
        {
            best = Some((distance, [first, second]));
        }
    }
    best.map(|(_, changes)| changes.to_vec()).unwrap_or_default()
}

/// Each change that helps with its distance from what is there, by distance.
fn helpful(request: &Request<'_>, refusal: &PlanError) -> Vec<(u64, Change)> {
    let mut helpful: Vec<(u64, Change)> = Vec::new();
    for candidate in candidates(request, refusal) {
        if let Some(found) = attempt(request, candidate)
            && !helpful.iter().any(|(_, change)| change.key == found.1.key)
        {
            helpful.push(found);
        }
    }
    helpful.sort_by_key(|(distance, _)| *distance);
    helpful
}

struct Keys {
    process: &'static str,
    flink: &'static str,
    metaspace: &'static str,
    overhead_min: &'static str,
    overhead_max: &'static str,
    overhead_fraction: &'static str,
}

const fn keys_of(process: Process) -> Keys {
    match process {
        Process::TaskManager => Keys {
            process: keys::TM_PROCESS,
            flink: keys::TM_FLINK,
            metaspace: keys::TM_METASPACE,
            overhead_min: keys::TM_OVERHEAD_MIN,
            overhead_max: keys::TM_OVERHEAD_MAX,
            overhead_fraction: keys::TM_OVERHEAD_FRACTION,
        },
        Process::JobManager => Keys {
            process: keys::JM_PROCESS,
            flink: keys::JM_FLINK,
            metaspace: keys::JM_METASPACE,
            overhead_min: keys::JM_OVERHEAD_MIN,
            overhead_max: keys::JM_OVERHEAD_MAX,
            overhead_fraction: keys::JM_OVERHEAD_FRACTION,
        },
    }
}

fn candidates(request: &Request<'_>, refusal: &PlanError) -> Vec<Candidate> {
    use Candidate::{Lower, LowerFraction, Raise, Remove, Size, Text};
    let present = |key: &str| super::configured_size(request.settings, key).unwrap_or(0);
    let raise = |key: &'static str| Raise(key, present(key));
    let lower = |key: &'static str| Lower(key, present(key));
    // What Flink's own configuration file has.
    let recommended = if request.process == Process::TaskManager { "1728m" } else { "1600m" };
    let Keys { process, flink, metaspace, overhead_min, overhead_max, overhead_fraction } =
        keys_of(request.process);
    let part_keys = || refusal.parts.iter().filter_map(|part| part.component.key(request.process));
    let inside = refusal.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
    match &refusal.reason {
        Reason::NothingConfigured => vec![Text(process, recommended.to_owned())],
        Reason::Inconsistent { component, min, max, .. } => {
            let (bounds, fraction) = match component {
                Name::ManagedMemory => (None, keys::TM_MANAGED_FRACTION),
                Name::NetworkMemory => {
                    (Some((keys::TM_NETWORK_MIN, keys::TM_NETWORK_MAX)), keys::TM_NETWORK_FRACTION)
                }
                _ => (Some((overhead_min, overhead_max)), overhead_fraction),
            };
            let mut list = Vec::new();
            if let Some((min_key, max_key)) = bounds.filter(|_| min > max) {
                list.extend([Size(min_key, *max), Size(max_key, *min), Remove(min_key), Remove(max_key)]);
            }
            list.push(Remove(fraction));
            list
        }
        Reason::RecordSize { room: None, .. } => vec![lower(keys::TM_RECORD)],
        Reason::RecordSize { .. } => {
            vec![lower(keys::TM_RECORD), raise(keys::TM_NETWORK_MIN), raise(keys::TM_NETWORK_MAX)]
        }
        Reason::NoRoomForFlink { .. } => vec![raise(process), lower(overhead_min), lower(metaspace)],
        Reason::ProcessTooSmall { .. } | Reason::OverheadOutOfRange { .. } => {
            // Flink memory and metaspace are the parts; the overhead has to come out within its range.
            let mut list = Vec::new();
            if let Reason::OverheadOutOfRange { derived, min, max } = refusal.reason {
                list.push(Size(process, inside.saturating_add(if derived < min { min } else { max })));
                list.push(if derived < min {
                    Size(overhead_min, derived)
                } else {
                    Size(overhead_max, derived)
                });
                list.push(raise(flink));
            }
            list.extend([Raise(process, inside), lower(flink), Remove(flink), Remove(process)]);
            list
        }
        Reason::PartsExceedFlink { flink: total, .. } => {
            // A part has to give up at least what the sum is too much.
            let over = inside.saturating_sub(*total);
            let mut list = vec![raise(flink), raise(process), Remove(flink)];
            list.extend(part_keys().map(|key| Lower(key, present(key).saturating_sub(over))));
            list.extend([lower(keys::TM_NETWORK_MIN), Remove(keys::TM_TASK_HEAP)]);
            list.push(LowerFraction(keys::TM_MANAGED_FRACTION, *total));
            list.push(LowerFraction(keys::TM_NETWORK_FRACTION, *total));
            list
        }
        Reason::TaskHeapBelowMin { found, .. } => {
            let mut list = vec![raise(flink), raise(process), raise(keys::TM_TASK_HEAP)];
            list.extend(part_keys().map(lower));
            list.extend([lower(keys::TM_NETWORK_MIN), Size(keys::TM_TASK_HEAP_MIN, *found)]);
            list.push(LowerFraction(keys::TM_MANAGED_FRACTION, inside));
            list.push(LowerFraction(keys::TM_NETWORK_FRACTION, inside));
            list
        }
        Reason::NetworkOutOfRange { derived, min, .. } => {
            let bound = if derived < min { keys::TM_NETWORK_MIN } else { keys::TM_NETWORK_MAX };
            let mut list = vec![Size(bound, *derived), Remove(keys::TM_TASK_HEAP)];
            if derived < min {
                list.extend([
                    raise(flink),
                    raise(process),
                    lower(keys::TM_TASK_HEAP),
                    lower(keys::TM_MANAGED),
                ]);
                list.push(LowerFraction(keys::TM_MANAGED_FRACTION, inside));
            } else {
                list.extend([
                    raise(keys::TM_TASK_HEAP),
                    raise(keys::TM_MANAGED),
                    lower(flink),
                    lower(process),
                ]);
            }
            list
        }
        Reason::PartsDoNotAddUp { sum, .. } => {
            u64::try_from(*sum).map(|sum| Size(flink, sum)).into_iter().collect()
        }
        Reason::JobManagerParts { heap, off_heap, flink: total } => {
            let mut list = vec![raise(flink), raise(process), lower(keys::JM_OFF_HEAP), lower(keys::JM_HEAP)];
            if let (Some(heap), Some(off_heap)) = (heap, off_heap) {
                list.push(Size(flink, heap.saturating_add(*off_heap)));
                list.push(Size(keys::JM_HEAP, total.saturating_sub(*off_heap)));
                list.push(Size(keys::JM_OFF_HEAP, total.saturating_sub(*heap)));
            }
            list.extend([Remove(flink), Remove(keys::JM_HEAP)]);
            list
        }
        Reason::JobManagerOffHeap { sum, .. } => {
            let sum = u64::try_from(*sum).unwrap_or(SIZE_MAX);
            vec![Size(keys::JM_OFF_HEAP, sum), lower(keys::JM_NETWORK), lower(keys::JM_METADATA)]
        }
        Reason::Unreadable { key, why } => match why {
            // What was meant can only be guessed from a unit that is nearly one.
            Unreadable::Size(_) => {
                let text = request.settings.get(key).map(|setting| setting.value.as_str());
                let mut list: Vec<_> = text.and_then(meant).map(|text| Text(key, text)).into_iter().collect();
                list.push(Remove(key));
                if *key == process {
                    list.push(Text(key, recommended.to_owned()));
                }
                list
            }
            Unreadable::Count { max } => {
                let text = request.settings.get(key).map_or("", |setting| setting.value.as_str());
                // A whole number that is refused is none, or too many.
                let too_many =
                    text.bytes().all(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte != b'0');
                let near = if too_many { *max } else { 1 };
                vec![Text(key, near.to_string()), Text(key, "1".to_owned())]
            }
            Unreadable::Fraction | Unreadable::Weights(_) => vec![Remove(key)],
        },
        Reason::SegmentSize { found, buffers: None } => vec![Size(keys::TM_SEGMENT, nearest_segment(*found))],
        Reason::SegmentSize { .. } => vec![Size(keys::TM_SEGMENT, NATIVE_SEGMENT_BYTES_MAX)],
        Reason::NegativeWeight { .. } => vec![Remove(keys::TM_WEIGHTS)],
        Reason::NotResolved { .. } => Vec::new(),
    }
}

/// The power of two that is nearest and allowed in both profiles.
fn nearest_segment(found: u64) -> u64 {
    let found = found.clamp(SEGMENT_BYTES_MIN, NATIVE_SEGMENT_BYTES_MAX);
    // At most the bound, which is a power of two itself.
    let above = found.next_power_of_two();
    let below = above / 2;
    if below >= SEGMENT_BYTES_MIN && found - below < above - found { below } else { above }
}

/// Tries a candidate; how far it is from the present value, and the change, if it helps.
fn attempt(request: &Request<'_>, candidate: Candidate) -> Option<(u64, Change)> {
    let from = |key: &str| request.settings.get(key).map(|setting| setting.value.trim().to_owned());
    let as_size = |key: &'static str, bytes: u64| {
        let present = super::configured_size(request.settings, key);
        let distance = present.map_or(bytes, |present| present.abs_diff(bytes));
        let to = MemorySize::from_bytes(bytes).ok()?.to_string();
        Some((distance, Change { key, from: from(key), to: Some(to) }))
    };
    match candidate {
        Candidate::Size(key, bytes) if holds(request, key, &format!("{bytes}b")) => as_size(key, bytes),
        Candidate::Text(key, text) if holds(request, key, &text) => {
            Some((0, Change { key, from: from(key), to: Some(text) }))
        }
        Candidate::Remove(key) if request.settings.get(key).is_some() => {
            let settings = request.settings.without(key);
            derive(&Request { settings: &settings, ..request.clone() }).ok()?;
            // Offered after every change of a size: more than one number follows from it.
            Some((u64::MAX, Change { key, from: from(key), to: None }))
        }
        Candidate::Raise(key, start) => {
            super::configured_size(request.settings, key)?;
            as_size(
                key,
                search(request, key, |step| start.checked_add(step).filter(|next| *next <= SIZE_MAX))?,
            )
        }
        Candidate::Lower(key, start) => {
            super::configured_size(request.settings, key).filter(|present| *present > 0)?;
            as_size(key, search(request, key, |step| start.checked_sub(step))?)
        }
        Candidate::LowerFraction(key, total) => lower_fraction(request, key, total),
        Candidate::Size(..) | Candidate::Text(..) | Candidate::Remove(_) => None,
    }
}

/// The smallest step at which the plan holds, as the value at that step: doubles until it holds, then halves. `at` is
/// `None` where there is no such value.
fn search(request: &Request<'_>, key: &'static str, at: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let works = |step: u64| at(step).is_some_and(|bytes| holds(request, key, &format!("{bytes}b")));
    let mut trials = 0..SEARCH_STEPS_MAX;
    if works(0) {
        return at(0);
    }
    let (mut low, mut high) = (0, 1u64);
    loop {
        trials.next()?;
        at(high)?;
        if works(high) {
            break;
        }
        (low, high) = (high, high.checked_mul(2)?);
    }
    while high - low > 1 && trials.next().is_some() {
        let middle = low + (high - low) / 2;
        if works(middle) { high = middle } else { low = middle }
    }
    at(high)
}

fn lower_fraction(request: &Request<'_>, key: &'static str, total: u64) -> Option<(u64, Change)> {
    let setting = request.settings.get(key)?;
    let present = fraction::parse(&setting.value).filter(|fraction| (0.0..1.0).contains(fraction))?;
    let hundredths = (0..100u32).rev().filter(|hundredth| f64::from(*hundredth) / 100.0 < present);
    let to =
        hundredths.map(|hundredth| format!("0.{hundredth:02}")).find(|text| holds(request, key, text))?;
    let less = present - fraction::parse(&to)?;
    let distance = fraction::multiply(total, less).unwrap_or(u64::MAX);
    Some((distance, Change { key, from: Some(setting.value.trim().to_owned()), to: Some(to) }))
}

fn holds(request: &Request<'_>, key: &'static str, value: &str) -> bool {
    let settings = request.settings.with(key, value);
    let changed = Request { settings: &settings, ..request.clone() };
    derive(&changed).is_ok()
}

/// `16 kib`, `1.5g` and the like are no sizes; what was probably meant is the number with the first letter of its unit, or a
/// whole number of the next smaller unit.
fn meant(text: &str) -> Option<String> {
    const UNITS: &str = "bkmgt";
    let text = text.trim();
    let letters = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = (text.get(..letters)?.trim_end(), text.get(letters..)?.chars().next()?);
    let place = UNITS.find(unit.to_ascii_lowercase())?;
    let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole(number) {
        return Some(format!("{number}{}", UNITS.get(place..=place)?));
    }
    let (whole, part) = number.split_once(['.', ','])?;
    let smaller = place.checked_sub(1)?;
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let digits: u128 = format!("{whole}{part}").parse().ok().filter(|_| is_whole(whole) && is_whole(part))?;
    Some(format!("{}{}", digits.checked_mul(1024)? / scale, UNITS.get(smaller..=smaller)?))
}

#[cfg(test)]
mod tests {
    use super::meant;

    #[test]
    fn what_is_nearly_a_size() {
        for (text, size) in
            [("16 kib", "16k"), ("4GiB", "4g"), ("1.5g", "1536m"), (" 0,25 GB", "256m"), ("1.0001t", "1024g")]
        {
            assert_eq!(meant(text).as_deref(), Some(size), "{text}");
        }
        for text in [
            "",
            "g",
            "1.5",
            "1.5b",
            "-1g",
            "1.2.3g",
            ".5g",
            "5.g",
            "1 fortnight",
            "99999999999999999999999999999999999999999.9g",
        ] {
            assert_eq!(meant(text), None, "{text}");
        }
    }
}
