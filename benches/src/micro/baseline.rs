//! Instruction counts that were committed, and whether today's are larger. Owns no state.
//!
//! Always: counts are compared only if the same compiler made both programs, with optimisations; else the reason is told.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Micro;

/// By which part a count may be larger: above what the layout of a build changes, below what a mistake costs.
const TOLERANCE: f64 = 0.03;
/// And by so many instructions, for parts that have few.
const TOLERANCE_FEW: f64 = 1.0;

/// Counts, and what made them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    toolchain: String,
    optimised: bool,
    instructions: BTreeMap<String, f64>,
}

/// One count that is too large.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worse {
    name: String,
    baseline: f64,
    found: f64,
}

/// How counts compare with a baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// So many were compared, and none is too large.
    Holds(usize),
    /// These are.
    Worse(Vec<Worse>),
    /// They cannot be compared, and why.
    Incomparable(String),
}

impl Baseline {
    /// Of counts made just now.
    pub fn of(found: &Micro) -> Self {
        let counted = found.costs.iter().filter_map(|cost| Some((cost.name.to_owned(), cost.instructions?)));
        // A tenth of an instruction is all that is told, so that equal counts are equal texts.
        let instructions = counted.map(|(name, count)| (name, (count * 10.0).round() / 10.0)).collect();
        Self { toolchain: found.toolchain.to_owned(), optimised: found.optimised, instructions }
    }

    /// From a file.
    ///
    /// # Errors
    /// It is missing or garbled.
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        let wrong = |error: &dyn fmt::Display| {
            format!("the baseline {} can't be read ({error}): write one with --save", path.display())
        };
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        Ok(serde_json::from_slice(&text).map_err(|error| wrong(&error))?)
    }

    /// To a file, for people to read as well.
    ///
    /// # Errors
    /// The file's.
    pub fn write(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).map_err(|error| format!("can't write {}: {error}", path.display()).into())
    }

    /// Compares.
    pub fn judge(&self, found: &Micro) -> Verdict {
        if self.toolchain != found.toolchain {
            return Verdict::Incomparable(format!(
                "the baseline was made with {}, this program with {}",
                self.toolchain, found.toolchain
            ));
        }
        if self.optimised != found.optimised {
            let made = |optimised| if optimised { "with optimisations" } else { "without optimisations" };
            return Verdict::Incomparable(format!(
                "the baseline was made {}, this program {}",
                made(self.optimised),
                made(found.optimised)
            ));
        }
        let now = Self::of(found).instructions;
        let both = now.iter().filter_map(|(name, &found)| Some((name, *self.instructions.get(name)?, found)));
        let (mut compared, mut worse) = (0, Vec::new());
        for (name, baseline, found) in both {
            compared += 1;
            if found > baseline + (baseline * TOLERANCE).max(TOLERANCE_FEW) {
                worse.push(Worse { name: name.clone(), baseline, found });
            }
        }
        if worse.is_empty() { Verdict::Holds(compared) } else { Verdict::Worse(worse) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = TOLERANCE * 100.0;
        match self {
            Self::Holds(count) => write!(f, "{count} counts are within {percent} % of the baseline"),
            Self::Worse(worse) => {
                write!(f, "more than {percent} % above the baseline:")?;
                worse.iter().try_for_each(|Worse { name, baseline, found }| {
                    write!(f, " {name} takes {found:.1} instructions, not {baseline:.1};")
                })
            }
            Self::Incomparable(why) => write!(f, "not compared with the baseline: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::micro::{Cost, TOOLCHAIN};

    fn micro(counts: &[(&'static str, f64)]) -> Micro {
        let cost = |&(name, count)| Cost { name, ns: 1.0, ns_5_to_95: [1.0; 2], instructions: Some(count) };
        Micro {
            toolchain: TOOLCHAIN,
            optimised: true,
            costs: counts.iter().map(cost).collect(),
            verdict: None,
        }
    }

    #[test]
    fn only_what_grew_by_more_than_the_tolerance_is_worse() {
        let baseline = Baseline::of(&micro(&[("a", 100.0), ("b", 100.0), ("few", 5.0), ("gone", 1.0)]));
        let new = micro(&[("a", 103.0), ("b", 90.0), ("few", 5.9), ("new", 7.0)]);
        assert_eq!(baseline.judge(&new), Verdict::Holds(3));
        let Verdict::Worse(worse) = baseline.judge(&micro(&[("a", 103.2), ("few", 6.2)])) else {
            panic!("both grew")
        };
        assert_eq!(worse.len(), 2);
        assert!(Verdict::Worse(worse).to_string().contains("a takes 103.2 instructions, not 100.0"));
    }

    #[test]
    fn another_compiler_is_told_and_not_judged() {
        let found = micro(&[("a", 1.0)]);
        let mut baseline = Baseline::of(&found);
        baseline.toolchain = "rustc 0.1".to_owned();
        let told = baseline.judge(&found).to_string();
        assert!(told.contains("made with rustc 0.1, this program with"), "{told}");
        baseline = Baseline { optimised: false, ..Baseline::of(&found) };
        assert!(baseline.judge(&found).to_string().contains("without optimisations"));
    }

    #[test]
    fn a_baseline_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        let baseline = Baseline::of(&micro(&[("a", 1.26)]));
        baseline.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), baseline);
        assert_eq!(baseline.instructions["a"], 1.3);
        assert!(Baseline::read(dir.path()).unwrap_err().to_string().contains("--save"));
    }
}
