//! A job's own arguments: `--name value` pairs with typed access.
//!
//! Owned by whoever builds the job. Which flags exist is what the job declared and what it asked for; what is left over
//! was meant for something else, so `check` refuses it by name. Always: a flag is given at most once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use thiserror::Error;

/// What is wrong with a job's arguments; whoever submitted the job can change it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgsError {
    /// Something that is not a flag.
    #[error("argument {found:?} is not a flag: a job's arguments are `--name value` or `--name=value`")]
    NotAFlag {
        /// What was found.
        found: String,
    },
    /// A flag twice.
    #[error("--{name} is given twice")]
    Twice {
        /// The flag.
        name: String,
    },
    /// A flag the job must have is not there.
    #[error("--{name} is missing: the job needs it")]
    Missing {
        /// The flag.
        name: String,
    },
    /// A flag without its value.
    #[error("--{name} has no value: write --{name} VALUE")]
    NoValue {
        /// The flag.
        name: String,
    },
    /// A value that cannot be read.
    #[error("--{name} {value:?} cannot be read: {cause}")]
    Value {
        /// The flag.
        name: String,
        /// Its value.
        value: String,
        /// Why not.
        cause: String,
    },
    /// A flag nobody asked for.
    #[error("--{name} is unknown{}", hint(nearest.as_deref(), known))]
    Unknown {
        /// The flag.
        name: String,
        /// The known one that looks most like it.
        nearest: Option<String>,
        /// All known ones.
        known: Vec<String>,
    },
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean --{nearest}?"),
        None if known.is_empty() => ": the job takes no arguments".to_owned(),
        None => format!(": the job knows --{}", known.join(", --")),
    }
}

/// A job's arguments.
///
/// ```
/// use tidegate_stream::Args;
/// let args = Args::parse(["--input", "flights.csv", "--top=10", "--verbose"]).unwrap();
/// assert_eq!(args.required::<String>("input").unwrap(), "flights.csv");
/// assert_eq!(args.or("top", 5u32).unwrap(), 10);
/// assert!(args.switch("verbose").unwrap());
/// assert!(args.check().is_ok());
///
/// let args = Args::parse(["--inptu", "flights.csv"]).unwrap();
/// assert_eq!(args.required::<String>("input").unwrap_err().to_string(), "--input is missing: the job needs it");
/// assert_eq!(args.check().unwrap_err().to_string(), "--inptu is unknown: did you mean --input?");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Args {
    given: Vec<(String, Option<String>)>,
    known: RefCell<BTreeSet<String>>,
}

impl Args {
    /// Splits arguments into flags. A flag without `=` takes the next argument as its value unless that is a flag itself.
    ///
    /// # Errors
    /// `ArgsError::NotAFlag` and `ArgsError::Twice`.
    pub fn parse<I>(args: I) -> Result<Self, ArgsError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut given: Vec<(String, Option<String>)> = Vec::new();
        let mut args = args.into_iter().map(Into::into).peekable();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
                return Err(ArgsError::NotAFlag { found: arg });
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), args.next_if(|next| !next.starts_with("--"))),
            };
            if given.iter().any(|(known, _)| *known == name) {
                return Err(ArgsError::Twice { name });
            }
            given.push((name, value));
        }
        Ok(Args { given, known: RefCell::default() })
    }

    /// Makes a flag known without asking for it.
    pub fn declare(&self, name: &str) {
        self.known.borrow_mut().insert(name.to_owned());
    }

    fn find(&self, name: &str) -> Option<&Option<String>> {
        self.declare(name);
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// The value of a flag, if it is given.
    ///
    /// # Errors
    /// `ArgsError::NoValue` and `ArgsError::Value`.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ArgsError> {
        let Some(given) = self.find(name) else { return Ok(None) };
        let Some(value) = given else { return Err(ArgsError::NoValue { name: name.to_owned() }) };
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(cause) => Err(ArgsError::Value {
                name: name.to_owned(),
                value: value.clone(),
                cause: format!("{cause}"),
            }),
        }
    }

    /// The value of a flag that must be given.
    ///
    /// # Errors
    /// `ArgsError::Missing`, and as `optional`.
    pub fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, ArgsError> {
        self.optional(name)?.ok_or_else(|| ArgsError::Missing { name: name.to_owned() })
    }

    /// The value of a flag, or `default`.
    ///
    /// # Errors
    /// As `optional`.
    pub fn or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, ArgsError> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// Whether a flag without a value is given; `--name true` and `--name false` count too.
    ///
    /// # Errors
    /// `ArgsError::Value` for any other value.
    pub fn switch(&self, name: &str) -> Result<bool, ArgsError> {
        match self.find(name) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(_)) => self.required(name),
        }
    }

    /// Refuses flags that nobody declared or asked for. Called once the job is built.
    ///
    /// # Errors
    /// `ArgsError::Unknown` for the first of them, with the nearest known one.
    pub fn check(&self) -> Result<(), ArgsError> {
        let known = self.known.borrow();
        let Some((name, _)) = self.given.iter().find(|(name, _)| !known.contains(name)) else {
            return Ok(());
        };
        let known: Vec<String> = known.iter().cloned().collect();
        let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        Err(ArgsError::Unknown { name: name.clone(), nearest, known })
    }
}

/// The candidate that looks most like `name`, if any is close enough to be a slip of the hand.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.map(|candidate| (distance(name, candidate), candidate));
    let (best, candidate) = scored.min_by_key(|(distance, _)| *distance)?;
    (best <= 1 + name.len() / 3).then_some(candidate)
}

/// Letters to insert, remove, replace or swap to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &letter) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &other) in b.iter().enumerate() {
            let replace = row[j] + usize::from(letter != other);
            let mut best = replace.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && letter == b[j - 1] && a[i - 1] == other {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}
