//! The job in the README is this one: it compiles, it runs, and its figures are right.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use tidegate::Jobs;
use tidegate::cli::App;
use tidegate::cli::exit::Exit;

use crate::support::engine::applied;
use crate::support::output::{committed, pending};
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
    runs(folder.path(), |path| path.to_str().expect("UTF-8").to_owned());
}

/// It declares no flags, so nobody but its sink knows that there is a path among its arguments.
#[test]
fn the_job_of_the_readme_takes_paths_from_where_it_is_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = std::env::current_dir().expect("a working directory");
    let up = "../".repeat(here.components().count() - 1);
    runs(folder.path(), |path| format!("{up}./{}", path.to_str().expect("UTF-8").trim_start_matches('/')));
}

/// Runs it with an input and an output in `folder`, which are given as `name` says.
fn runs(folder: &Path, name: impl Fn(&Path) -> String) {
    let flights = input::some_flights(folder, 5_000);
    let output = folder.join("output");
    let run = || {
        let (input, output) = (name(&flights), name(&output));
        let words = ["run", "miles", "--parallelism", "3", "--", "--input", &input, "--output", &output];
        let words = applied(&words.map(str::to_owned));
        let line = std::iter::once("miles".to_owned()).chain(words).map(OsString::from);
        App::new(Jobs::new([("miles", job::miles)])).run_with(line)
    };
    assert_eq!(run(), Exit::Ok);

    let mut flown: HashMap<String, Vec<u64>> = HashMap::new();
    let content = std::fs::read_to_string(&flights).expect("just written");
    for flight in oracle::flights(&content) {
        let Some(tail) = flight.get("tailnum") else { continue };
        let miles: u64 = flight.get("distance").and_then(|miles| miles.parse().ok()).expect("always known");
        flown.entry(tail.to_owned()).or_default().push(miles);
    }
    // One total after every flight, whatever the order: from each to the next it is one flight.
    let mut totals: HashMap<String, Vec<u64>> = HashMap::new();
    for file in committed(&output) {
        let text = std::fs::read_to_string(file).expect("it is committed");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("tailnum,miles"));
        for row in lines {
            let (tail, miles) = row.split_once(',').expect("two columns");
            totals.entry(tail.to_owned()).or_default().push(miles.parse().expect("a number"));
        }
    }
    for totals in totals.values_mut() {
        totals.sort_unstable();
        let mut before = 0;
        totals.iter_mut().for_each(|total| *total -= std::mem::replace(&mut before, *total));
        totals.sort_unstable();
    }
    flown.values_mut().for_each(|miles| miles.sort_unstable());
    assert_eq!(totals, flown);
    assert!(pending(&output).is_empty());
    assert_eq!(run(), Exit::Refused, "its output is known, so it is not mixed up with that of another run");
}
