//! Where a value came from: the layers of the configuration. Stateless.
//!
//! Always: layers are ordered, and a later one wins.

use std::fmt;

use serde::Serialize;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "camelCase")]
pub enum Origin {
    /// Built in.
    Default,
    /// A configuration file.
    File {
        /// As it was named.
        path: String,
        /// From 1.
        line: u32,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// `-D key=value`.
    Define,
    /// A flag of its own.
    Flag {
        /// As it was written, such as `--slots`.
        name: String,
    },
}

impl Origin {
    /// The place of its layer; a higher one wins.
    pub const fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Env { .. } => 2,
            Self::Define => 3,
            Self::Flag { .. } => 4,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Env { name } => write!(f, "environment variable {name}"),
            Self::Define => f.write_str("-D"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// One value that a component was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// The key.
    pub key: &'static str,
    /// The value as it was written.
    pub value: String,
    /// Where.
    pub origin: Origin,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.key, self.value, self.origin)
    }
}
