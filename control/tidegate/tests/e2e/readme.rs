//! The job in the README is this one: it compiles, it runs, and its figures are right.

use std::collections::HashMap;

use tidegate::Jobs;
use tidegate::cli::App;
use tidegate::cli::exit::Exit;

use crate::support::output::committed;
use crate::support::{input, oracle};

#[allow(dead_code)] // its `main` is for the README's readers
#[path = "readme_job.rs"]
mod job;

#[test]
fn the_readme_shows_the_job_that_is_tested() {
    let readme = std::fs::read_to_string(input::repository().join("README.md")).expect("there is a README");
    assert!(readme.contains(include_str!("readme_job.rs").trim_end()), "copy readme_job.rs into README.md");
}

#[test]
fn the_job_of_the_readme_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flights = input::some_flights(folder.path(), 5_000);
    let output = folder.path().join("output");
    let words =
        ["miles", "run", "miles", "--parallelism", "3", "--", "--input", flights.to_str().expect("UTF-8")];
    let line = words.into_iter().chain(["--output", output.to_str().expect("UTF-8")]).map(Into::into);
    assert_eq!(App::new(Jobs::new([("miles", job::miles)])).run_with(line), Exit::Ok);

    let mut expected: HashMap<String, u64> = HashMap::new();
    let content = std::fs::read_to_string(&flights).expect("just written");
    for flight in oracle::flights(&content) {
        let Some(tail) = flight.get("tailnum") else { continue };
        let miles: u64 = flight.get("distance").and_then(|miles| miles.parse().ok()).expect("always known");
        *expected.entry(tail.to_owned()).or_insert(0) += miles;
    }
    // Totals only grow, so the last one of an aircraft is its largest.
    let mut found: HashMap<String, u64> = HashMap::new();
    for file in committed(&output) {
        for row in std::fs::read_to_string(file).expect("it is committed").lines().skip(1) {
            let (tail, miles) = row.split_once(',').expect("two columns");
            let miles: u64 = miles.parse().expect("a number");
            found.entry(tail.to_owned()).and_modify(|most| *most = miles.max(*most)).or_insert(miles);
        }
    }
    assert_eq!(found, expected);
}
