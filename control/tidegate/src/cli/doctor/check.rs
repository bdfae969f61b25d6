//! The verdict on one thing, and how verdicts are told. Stateless.
//!
//! Always: what is not `ok` says what to do.

use std::fmt::Write as _;

use serde::Serialize;
use tidegate_memory::MemorySize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and would work better.
    Warning,
    /// The process would fail, so it does not start.
    Error,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One line of a sum; a total is the sum of the lines before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Item {
    pub what: &'static str,
    pub bytes: u64,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub name: &'static str,
    pub level: Level,
    pub found: String,
    pub expected: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sum: Vec<Item>,
}

impl Check {
    /// As it should be, until one of the following says otherwise.
    pub(super) fn ok(name: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            expected: expected.into(),
            advice: None,
            sum: Vec::new(),
        }
    }

    pub(super) fn warning(self, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..self }
    }

    pub(super) fn error(self, advice: impl Into<String>) -> Self {
        Self { level: Level::Error, advice: Some(advice.into()), ..self }
    }

    /// The arithmetic behind a verdict.
    pub(super) fn because(self, sum: Vec<Item>) -> Self {
        Self { sum, ..self }
    }

    /// In one line, for a log.
    pub(super) fn line(&self) -> String {
        let advice = self.advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{}: {}, expected {}{advice}", self.name, self.found, self.expected)
    }

    /// The sum, a line for each item.
    pub(super) fn arithmetic(&self) -> impl Iterator<Item = String> {
        self.sum.iter().map(|Item { what, bytes }| format!("{what:<24} {bytes:>20}  {:>12}", short(*bytes)))
    }
}

/// All checks for people: one line each, and below it what to do.
pub(super) fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<7}  {:<width$}  {}", check.level.name(), check.name, check.found);
        let mut below = |line: &str| {
            let _ = writeln!(text, "{:<7}  {:<width$}    {line}", "", "");
        };
        if let Some(advice) = &check.advice {
            below(&format!("expected {}", check.expected));
            check.arithmetic().for_each(|line| below(&line));
            below(&format!("to do: {advice}"));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (ok, warnings, errors) = (count(Level::Ok), count(Level::Warning), count(Level::Error));
    let _ = writeln!(text, "\nerrors: {errors}, warnings: {warnings}, ok: {ok}");
    text
}

/// A size for people, with its bytes.
pub(super) fn size(bytes: u64) -> String {
    MemorySize::from_bytes(bytes).map_or_else(|_| format!("{bytes} bytes"), MemorySize::human)
}

/// A size for people, without its bytes.
fn short(bytes: u64) -> String {
    let size = size(bytes);
    size.split(" (").next().unwrap_or(&size).to_owned()
}
