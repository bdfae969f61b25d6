//! The demo: what it prints is what a plain loop over the same flights says, and it leaves no process behind.

use std::path::Path;

use serde_json::Value;

use crate::support::cluster::processes_of;
use crate::support::output::check;
use crate::support::process::tidegate;
use crate::support::{WHOLE_JOB, input, oracle};

#[test]
fn the_demo_prints_what_the_oracle_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("demo");
    let line = ["demo", "--json", "--dir", work.to_str().expect("UTF-8")];
    let finished = tidegate(folder.path(), WHOLE_JOB, &line);
    assert!(finished.status.success(), "{finished:#?}");
    agrees(&finished.stdout);
    let left = processes_of(folder.path());
    assert!(left.is_empty(), "processes are left: {left:?}");
}

/// The last line of `demo --json` and the files it names agree with the oracle.
pub fn agrees(stdout: &str) {
    let said: Value =
        serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("JSON comes last");
    let expected = oracle::delays(&input::flights_text());
    let rows = said["routes"].as_array().expect("a table");
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        let number = |name: &str| row[name].as_i64().expect("a number").to_string();
        [
            text("origin"),
            text("dest"),
            number("flights"),
            number("cancelled"),
            number("arrivals"),
            text("mean_delay"),
            number("max_delay"),
        ]
        .join(",")
    };
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), oracle::worst(&expected, 300, 10));
    assert_eq!(said["flights"], 336_776);
    assert!(
        said["checkpoints"].as_u64() > Some(0) && said["flights_per_second"].as_u64() > Some(0),
        "{said}"
    );
    check(Path::new(said["output"].as_str().expect("a folder")), expected);
}
