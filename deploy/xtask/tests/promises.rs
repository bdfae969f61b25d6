//! The README names the tests that prove what it promises. Each of them must be there, and be a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names in backticks in the table of promises.
fn named(readme: &str) -> BTreeSet<String> {
    let section = readme.split("\n## Promises\n").nth(1).expect("there is a chapter of promises");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| **"));
    let ticked = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    ticked.filter(|word| word.contains('_') && !word.contains(' ')).map(str::to_owned).collect()
}

/// The names of all functions below `folder` that are tests.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the tree can be read") {
        let path = entry.expect("the tree can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                tests(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("sources are text");
            for part in text.split("#[test]").skip(1) {
                let name = part.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
                found.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_test_that_proves_a_promise_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    let named = named(&readme);
    assert!(named.len() > 20, "the table names its tests: {named:?}");
    let mut found = BTreeSet::new();
    for folder in ["alloc", "control", "dataplane", "fuzz"] {
        tests(&root().join(folder), &mut found);
    }
    let missing: Vec<_> = named.difference(&found).collect();
    assert!(missing.is_empty(), "the README promises by tests that are not there: {missing:?}");
}
