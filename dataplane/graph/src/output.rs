//! Where output lies that is not committed yet, and what a path of output looks like: the names that sinks write and the
//! JobManager reads. No state.
//!
//! Always true: parsing is the inverse of printing; two attempts, of whatever jobs, never have the same folder; a normal
//! path that is absolute is plain, but for `/` itself.

use std::fmt;

/// Folder of uncommitted files within an output folder.
pub const PENDING: &str = "_pending";

/// The folder within [`PENDING`] that one attempt of one job writes to. The job is part of its name, because jobs that
/// know nothing of each other, even of two clusters, may be given the same output folder.
///
/// ```
/// use tidegate_graph::PendingFolder;
/// let folder = PendingFolder { job: 0xabc, epoch: 3, attempt: 4 };
/// assert_eq!(folder.to_string(), "00000000000000000000000000000abc-e3-a4");
/// assert_eq!(PendingFolder::parse("00000000000000000000000000000abc-e3-a4"), Some(folder));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PendingFolder {
    /// The job.
    pub job: u128,
    /// Leadership under which the attempt runs.
    pub epoch: u64,
    /// The attempt.
    pub attempt: u32,
}

impl fmt::Display for PendingFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-e{}-a{}", self.job, self.epoch, self.attempt)
    }
}

impl PendingFolder {
    /// Reads a name; `None` for one that was not made here.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (job, rest) = name.split_once("-e")?;
        let (epoch, attempt) = rest.split_once("-a")?;
        let folder = PendingFolder {
            job: u128::from_str_radix(job, 16).ok()?,
            epoch: epoch.parse().ok()?,
            attempt: attempt.parse().ok()?,
        };
        // Signs, capitals and leading zeros are other names.
        (folder.to_string() == name).then_some(folder)
    }
}

/// The path without empty and `.` components, and with each `..` resolved by the component before it. Nothing is looked up:
/// a symbolic link before a `..` counts as a folder.
///
/// ```
/// use tidegate_graph::normal_path;
/// assert_eq!(normal_path("/jobs/./here/../out/"), "/jobs/out");
/// assert_eq!(normal_path("//out"), "/out");
/// assert_eq!(normal_path("a/../../out"), "../out");
/// ```
#[must_use]
pub fn normal_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {} // There is nothing above the root.
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// No empty, `.` or `..` component after the first character, no NUL.
#[must_use]
pub fn is_plain_path(path: &str) -> bool {
    let rest = path.strip_prefix('/').unwrap_or(path);
    !path.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_nobody_makes_are_not_read() {
        let job = "0000000000000000000000000000000a";
        for rest in ["", "-e3", "-e3-a", "-e-a4", "-e3-a04", "-e+3-a4", "-e3-a4x", "-e3-a4294967296"] {
            assert_eq!(PendingFolder::parse(&format!("{job}{rest}")), None, "{rest}");
        }
        for name in ["", "e3-a4", "a-e3-a4", "0000000000000000000000000000000A-e3-a4", "fenced-e3-a4"] {
            assert_eq!(PendingFolder::parse(name), None, "{name}");
        }
    }

    #[test]
    fn edges_of_paths() {
        for (path, normal) in
            [("", "."), ("/", "/"), ("/..", "/"), ("..", ".."), ("../../a", "../../a"), ("a/..", ".")]
        {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(job: u128, epoch: u64, attempt: u32) {
            let folder = PendingFolder { job, epoch, attempt };
            prop_assert_eq!(PendingFolder::parse(&folder.to_string()), Some(folder));
        }

        #[test]
        fn a_normal_path_is_plain_and_stays(path in "/[a/.]{0,12}") {
            let normal = normal_path(&path);
            prop_assert!(normal == "/" || is_plain_path(&normal), "{}", normal);
            prop_assert_eq!(normal_path(&normal), normal.clone());
        }
    }
}
