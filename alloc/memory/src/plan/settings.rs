//! The configuration of a process: values in layers, of which a later one wins. Texts in, values with their origin out; files
//! and the environment are read by the caller.
//!
//! Owner of the state: [`Settings`], one per resolution.
//!
//! Always: a key has at most one value per layer; the value that holds is that of the highest layer, whatever the order in
//! which layers were added; a value's key is a known one, never an alias.

use std::collections::BTreeMap;

use super::keys::{ALIASES, Alias, KEYS, Known, Preset, TM_WEIGHTS, variable};
use super::origin::{Input, Origin};
use super::text::{Entry, Syntax, SyntaxError, entries};
use super::{Change, Process, Profile};
use crate::limits::{NEAREST_DISTANCE_MAX, SETTING_TEXT_BYTES_MAX, SETTINGS_MAX};

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value as it was written.
    pub value: String,
    /// Where.
    pub origin: Origin,
    /// The spelling of the Flink.NET documents, if it was used.
    pub alias: Option<&'static Alias>,
}

/// A key that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// As it was written.
    pub key: String,
    /// Where.
    pub origin: Origin,
    /// The known key or alias that differs least, if one is near.
    pub nearest: Option<&'static str>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "configuration: `{}` ({}) is not a known key", self.key, self.origin)?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// Layers of values.
#[derive(Clone)]
pub struct Settings {
    /// All tables of keys: the plan's own, and what others added.
    tables: Vec<&'static [Known]>,
    /// By key, then layer.
    values: BTreeMap<&'static str, BTreeMap<u8, Setting>>,
    unknown: Vec<Unknown>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    /// No values; the keys of the plan are known.
    pub fn new() -> Self {
        Self { tables: vec![KEYS], values: BTreeMap::new(), unknown: Vec::new() }
    }

    /// Makes further keys known: those of other parts of the process, which the plan does not read.
    #[must_use]
    pub fn with_keys(mut self, keys: &'static [Known]) -> Self {
        self.tables.push(keys);
        self
    }

    /// Adds the values of a configuration file, already read. `path` is for messages.
    ///
    /// # Errors
    /// The text is malformed, or names a key twice (also where one name is an alias of the other).
    pub fn add_file(&mut self, path: &str, text: &str, syntax: Syntax) -> Result<(), ConfigError> {
        let read = entries(text, syntax).map_err(|error| ConfigError::Syntax { path: clip(path), error })?;
        for Entry { key, value, line } in read {
            self.insert(&key, &value, Origin::File { path: path.to_owned(), line })?;
        }
        Ok(())
    }

    /// Adds the variables whose name is that of a known key or alias ([`variable`]). Others are not looked at, except that
    /// one which starts with `TIDEGATE_TASKMANAGER_` or `TIDEGATE_JOBMANAGER_` can only be a misspelled key.
    ///
    /// # Errors
    /// Two variables set the same key.
    pub fn add_environment<N, V>(
        &mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<(), ConfigError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let names: BTreeMap<String, &'static str> = self.names().map(|name| (variable(name), name)).collect();
        for (name, value) in variables {
            let name = name.as_ref();
            let origin = Origin::Env { name: name.to_owned() };
            if let Some(key) = names.get(name) {
                self.insert(key, value.as_ref(), origin)?;
            } else if ["TIDEGATE_TASKMANAGER_", "TIDEGATE_JOBMANAGER_"]
                .iter()
                .any(|start| name.starts_with(start))
            {
                let near = names.iter().map(|(variable, key)| (variable.as_str(), *key));
                let nearest = nearest(name, near);
                self.push_unknown(Unknown { key: name.to_owned(), origin, nearest })?;
            }
        }
        Ok(())
    }

    /// Adds one `-D` argument, `key=value`.
    ///
    /// # Errors
    /// It is not of that form (a usage error), or the key has been defined before.
    pub fn add_define(&mut self, argument: &str) -> Result<(), ConfigError> {
        match argument.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => self.insert(key, value, Origin::Define),
            _ => Err(ConfigError::NotAPair { found: clip(argument) }),
        }
    }

    /// Adds the value of a flag of its own, such as `--slots`.
    ///
    /// # Errors
    /// The key has been set by another flag.
    pub fn add_flag(&mut self, flag: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        self.insert(key, value, Origin::Flag { name: flag.to_owned() })
    }

    /// The value that holds.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key).and_then(|layers| layers.values().next_back())
    }

    /// The values of lower layers that do not hold, lowest first.
    pub fn shadowed(&self, key: &str) -> impl Iterator<Item = &Setting> {
        let all = self.values.get(key).into_iter().flat_map(BTreeMap::values);
        let count = self.values.get(key).map_or(0, BTreeMap::len);
        all.take(count.saturating_sub(1))
    }

    /// All values that hold, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.values.values().filter_map(|layers| layers.values().next_back())
    }

    /// Keys that nobody knows, in the order they were met.
    pub fn unknown(&self) -> &[Unknown] {
        &self.unknown
    }

    /// Fails if there are unknown keys.
    ///
    /// # Errors
    /// The first of them.
    pub fn refuse_unknown(&self) -> Result<(), ConfigError> {
        self.unknown.first().map_or(Ok(()), |unknown| Err(ConfigError::Unknown(unknown.clone())))
    }

    /// Every known key with its current value and origin, for a listing. A default that is not a text, or means
    /// nothing in the profile, is left empty.
    pub fn listing(&self, profile: Profile) -> Vec<Listed> {
        let known = self.tables.iter().flat_map(|table| table.iter());
        known
            .map(|known| {
                let current =
                    self.get(known.key).map(|setting| (setting.value.clone(), setting.origin.clone()));
                let (value, origin) = match (current, known.preset(profile)) {
                    (Some((value, origin)), _) => (Some(value), origin),
                    (None, Preset::Text(text)) if known.applies(profile) => {
                        (Some(text.to_owned()), Origin::Default)
                    }
                    (None, _) => (None, Origin::Default),
                };
                Listed { known, value, origin }
            })
            .collect()
    }

    /// Sets a value in the layer of flags, over whatever is there: how a change is tried out.
    #[must_use]
    pub fn with(&self, key: &'static str, value: impl Into<String>) -> Self {
        let mut changed = self.clone();
        let origin = Origin::Flag { name: "proposed".to_owned() };
        let setting = Setting { key, value: value.into(), origin, alias: None };
        changed.values.entry(key).or_default().insert(setting.origin.layer(), setting);
        changed
    }

    /// Removes a key from all layers.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let mut changed = self.clone();
        changed.values.remove(key);
        changed
    }

    /// This configuration with a proposed change.
    #[must_use]
    pub fn changed(&self, change: &Change) -> Self {
        match &change.to {
            Some(to) => self.with(change.key, to.clone()),
            None => self.without(change.key),
        }
    }

    /// The value that holds, for a message or a plan.
    pub(super) fn input(&self, key: &str) -> Option<Input> {
        let setting = self.get(key)?;
        let (value, origin) = (clip(&setting.value), setting.origin.clone());
        Some(Input { key: setting.key, value, origin })
    }

    /// Whether any value concerns `process`.
    pub(super) fn of_process(&self, process: Process) -> impl Iterator<Item = &Setting> {
        self.iter().filter(move |setting| setting.key.starts_with(process.prefix()))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        let keys = self.tables.iter().flat_map(|table| table.iter().map(|known| known.key));
        keys.chain(ALIASES.iter().map(|alias| alias.spelled))
    }

    fn insert(&mut self, spelled: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let spelled = spelled.trim();
        if value.len() > SETTING_TEXT_BYTES_MAX {
            return Err(ConfigError::TooLong { key: clip(spelled), origin, found: value.len() });
        }
        // Bounds what a hostile file can cost; real ones have tens.
        if self.values.len() + self.unknown.len() >= SETTINGS_MAX {
            return Err(ConfigError::TooMany { origin });
        }
        let known = self.tables.iter().flat_map(|table| table.iter()).find(|known| known.key == spelled);
        if let Some(known) = known {
            return self.put(known.key, spelled, value.to_owned(), origin, None);
        }
        if let Some(alias) = ALIASES.iter().find(|alias| alias.spelled == spelled) {
            for key in alias.keys {
                self.put(key, spelled, value.to_owned(), origin.clone(), Some(alias))?;
            }
            return Ok(());
        }
        if let Some(consumer) = spelled.strip_prefix(TM_WEIGHTS).and_then(|rest| rest.strip_prefix('.')) {
            return self.put_weight(consumer, value, origin);
        }
        let nearest = nearest(spelled, self.names().map(|name| (name, name)));
        self.push_unknown(Unknown { key: clip(spelled), origin, nearest })
    }

    fn put(
        &mut self,
        key: &'static str,
        spelled: &str,
        value: String,
        origin: Origin,
        alias: Option<&'static Alias>,
    ) -> Result<(), ConfigError> {
        let layers = self.values.entry(key).or_default();
        if let Some(first) = layers.get(&origin.layer()) {
            return Err(ConfigError::Duplicate {
                key,
                spelled: spelled.to_owned(),
                first: first.origin.clone(),
                second: origin,
            });
        }
        layers.insert(origin.layer(), Setting { key, value, origin, alias });
        Ok(())
    }

    /// A weight written as a key of its own, as in a nested file: joined with its neighbours of the same layer.
    fn put_weight(&mut self, consumer: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let layers = self.values.entry(TM_WEIGHTS).or_default();
        let pair = format!("{consumer}:{}", value.trim());
        match layers.get_mut(&origin.layer()) {
            Some(setting) => {
                let joined = format!("{},{pair}", setting.value);
                if joined.len() > SETTING_TEXT_BYTES_MAX {
                    return Err(ConfigError::TooLong {
                        key: TM_WEIGHTS.to_owned(),
                        origin,
                        found: joined.len(),
                    });
                }
                setting.value = joined;
            }
            None => {
                let setting = Setting { key: TM_WEIGHTS, value: pair, origin, alias: None };
                layers.insert(setting.origin.layer(), setting);
            }
        }
        Ok(())
    }

    fn push_unknown(&mut self, unknown: Unknown) -> Result<(), ConfigError> {
        if self.unknown.len() >= SETTINGS_MAX {
            return Err(ConfigError::TooMany { origin: unknown.origin });
        }
        self.unknown.push(unknown);
        Ok(())
    }
}

/// The values, not the tables of keys.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.values.values().flat_map(BTreeMap::values);
        let pairs =
            all.map(|setting| format!("{}={} ({})", setting.key, clip(&setting.value), setting.origin));
        f.debug_list().entries(pairs).entries(&self.unknown).finish()
    }
}

/// A line of the listing of keys.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key.
    pub known: &'static Known,
    /// What holds, as text; `None` where nothing is set and the default is nothing or computed.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Why a configuration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file is malformed.
    #[error("configuration: {path}:{error}")]
    Syntax {
        /// The file as it was named.
        path: String,
        /// Line and reason.
        error: SyntaxError,
    },
    /// A key has two values in one layer.
    #[error(
        "configuration: `{spelled}` ({second}) sets {key}, which is set already ({first}); remove one of the two"
    )]
    Duplicate {
        /// The key.
        key: &'static str,
        /// The second spelling.
        spelled: String,
        /// Where it was set first.
        first: Origin,
        /// Where again.
        second: Origin,
    },
    /// A key that nobody knows, where that is refused.
    #[error("{0}")]
    Unknown(Unknown),
    /// A `-D` argument without `=`: wrong usage.
    #[error("configuration: -D expects key=value, found `{found}`")]
    NotAPair {
        /// The argument.
        found: String,
    },
    /// A value that is no value by its length.
    #[error("configuration: {key} ({origin}) has {found} bytes, expected at most {SETTING_TEXT_BYTES_MAX}")]
    TooLong {
        /// The key.
        key: String,
        /// Where.
        origin: Origin,
        /// Bytes.
        found: usize,
    },
    /// More values than any configuration has.
    #[error("configuration: more than {SETTINGS_MAX} values (at {origin}); is that the right file?")]
    TooMany {
        /// Where the bound was reached.
        origin: Origin,
    },
}

impl ConfigError {
    /// A name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::Duplicate { .. } => "duplicate-key",
            Self::Unknown(_) => "unknown-key",
            Self::NotAPair { .. } => "usage",
            Self::TooLong { .. } => "too-long",
            Self::TooMany { .. } => "too-many",
        }
    }

    /// Whether the command line was wrong rather than the configuration.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NotAPair { .. })
    }
}

/// At most 128 bytes of a text, for messages.
fn clip(text: &str) -> String {
    const BYTES: usize = 128;
    match text.char_indices().find(|(at, character)| at + character.len_utf8() > BYTES) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The name that differs least from `found`, if it differs little.
fn nearest<'a>(found: &str, names: impl Iterator<Item = (&'a str, &'static str)>) -> Option<&'static str> {
    // A text that is much longer than every name is near to none.
    if found.len() > 2 * NEAREST_DISTANCE_MAX + 128 {
        return None;
    }
    let measured = names.map(|(name, key)| (distance(found, name), key));
    let (distance, key) = measured.min_by_key(|(distance, _)| *distance)?;
    (distance <= NEAREST_DISTANCE_MAX.min(found.len() / 2)).then_some(key)
}

/// Insertions, deletions and replacements between two names, regardless of case.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<u8> = other.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, byte) in one.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (place, expected) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(byte.to_ascii_lowercase() != *expected);
            diagonal = *place;
            left = replaced.min(diagonal + 1).min(left + 1);
            *place = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::keys::{TM_NETWORK_MAX, TM_NETWORK_MIN, TM_PROCESS, TM_SLOTS, TM_TASK_HEAP};
    use super::*;

    fn value<'a>(settings: &'a Settings, key: &str) -> &'a str {
        settings.get(key).map_or("", |setting| setting.value.as_str())
    }

    #[test]
    fn later_layers_win_in_any_order() {
        let mut settings = Settings::new();
        settings.add_flag("--slots", TM_SLOTS, "5").expect("once");
        settings.add_define("taskmanager.numberOfTaskSlots=4").expect("once");
        settings
            .add_environment([("TIDEGATE_TASKMANAGER_NUMBER_OF_TASK_SLOTS", "3"), ("HOME", "/")])
            .expect("once");
        settings
            .add_file("t.yaml", "# slots\ntaskmanager.numberOfTaskSlots: 2\n", Syntax::Yaml)
            .expect("once");
        assert_eq!(value(&settings, TM_SLOTS), "5");
        let below: Vec<String> =
            settings.shadowed(TM_SLOTS).map(|setting| setting.origin.to_string()).collect();
        assert_eq!(
            below,
            ["t.yaml:2", "environment variable TIDEGATE_TASKMANAGER_NUMBER_OF_TASK_SLOTS", "-D"]
        );
        assert!(settings.unknown().is_empty());
    }

    #[test]
    fn a_key_is_set_once_in_a_layer() {
        let mut settings = Settings::new();
        settings.add_define("taskmanager.memory.process.size=1g").expect("once");
        let error = settings.add_define("taskmanager.process.memory.size=2g").expect_err("twice");
        assert!(matches!(error, ConfigError::Duplicate { key: TM_PROCESS, .. }), "{error}");
        let text = "taskmanager:\n  memory:\n    process.size: 1g\ntaskmanager.memory.process.size: 2g\n";
        let error = settings.add_file("t.yaml", text, Syntax::Yaml).expect_err("twice").to_string();
        assert!(error.contains("t.yaml:3") && error.contains("t.yaml:4"), "{error}");
    }

    #[test]
    fn aliases_set_what_they_mean() {
        let mut settings = Settings::new();
        settings.add_define("taskmanager.network.memory.size=128m").expect("known");
        settings.add_define("taskmanager.heap.memory.size=1g").expect("known");
        assert_eq!((value(&settings, TM_NETWORK_MIN), value(&settings, TM_NETWORK_MAX)), ("128m", "128m"));
        assert_eq!(value(&settings, TM_TASK_HEAP), "1g");
        assert!(settings.get(TM_TASK_HEAP).is_some_and(|setting| setting.alias.is_some()));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let mut settings = Settings::new();
        settings.add_define("taskmanager.memory.proces.size=1g").expect("kept aside");
        settings.add_define("taskmanager.numberoftaskslot=1").expect("kept aside");
        settings.add_define("pipeline.name=x").expect("kept aside");
        settings.add_environment([("TIDEGATE_TASKMANAGER_MEMORY_PROCES_SIZE", "1g")]).expect("kept aside");
        let near: Vec<Option<&str>> = settings.unknown().iter().map(|unknown| unknown.nearest).collect();
        assert_eq!(near, [Some(TM_PROCESS), Some(TM_SLOTS), None, Some(TM_PROCESS)]);
        assert!(settings.refuse_unknown().is_err());
        const OTHERS: &[Known] = &[Known { key: "pipeline.name", ..KEYS[0] }];
        let mut settings = Settings::new().with_keys(OTHERS);
        settings.add_define("pipeline.name=x").expect("known");
        assert!(settings.refuse_unknown().is_ok());
    }

    #[test]
    fn a_define_is_a_pair() {
        let mut settings = Settings::new();
        for text in ["", "taskmanager.memory.process.size", "=1g", " =1g"] {
            assert!(settings.add_define(text).is_err_and(|error| error.is_usage()), "{text}");
        }
        settings
            .add_define("taskmanager.memory.process.size=")
            .expect("an empty value is refused when it is read");
    }

    #[test]
    fn weights_may_be_nested() {
        let text = "taskmanager.memory.managed.consumer-weights:\n  OPERATOR: 1\n  PYTHON: 2\n";
        let mut settings = Settings::new();
        settings.add_file("t.yaml", text, Syntax::Yaml).expect("read");
        assert_eq!(value(&settings, TM_WEIGHTS), "OPERATOR:1,PYTHON:2");
    }
}
