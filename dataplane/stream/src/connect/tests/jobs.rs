//! Whole jobs over connectors: files in, files out, killed again and again, and every line arrives once.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::args::Args;
use crate::connect::{CsvRow, CsvRows, CsvSink, LineFile, Row, Sequence};
use crate::job::{Job, JobResult};
use crate::testing::{Harness, Setup};

const ROWS: u64 = 12_000;

fn copy(job: &mut Job, args: &Args) -> JobResult {
    let input: String = args.required("input")?;
    let rows = CsvRows::new(&input, ["id", "name"], |row: &Row<'_>| {
        Ok((row.parse::<u64>(0)?, row.text(1)?.to_owned()))
    });
    let sink = CsvSink::new("out", ["id", "name"], |item: &(u64, String), row: &mut CsvRow<'_>| {
        row.value(item.0).text(&item.1);
    });
    job.source("lines", LineFile::new(&input).header(true).block_bytes(256))
        .rebalance()
        .flat_map_with("rows", rows)
        .sink("out", sink);
    Ok(())
}

fn input(folder: &TempDir) -> String {
    let path = folder.path().join("input.csv");
    let rows: String = (0..ROWS).map(|id| format!("{id},\"name, of {id}\"\n")).collect();
    std::fs::write(&path, format!("id,name\n{rows}")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Committed rows by number, with how often each is there.
fn committed(harness: &Harness) -> BTreeMap<u64, u32> {
    let mut rows = BTreeMap::new();
    for path in harness.manager().store().paths().iter().filter(|path| path.starts_with("out/part-")) {
        let text = String::from_utf8(harness.manager().store().read(path).unwrap()).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("id,name"), "{path}");
        for line in lines {
            let (id, name) = line.split_once(',').unwrap();
            assert_eq!(name, format!("\"name, of {id}\""));
            *rows.entry(id.parse().unwrap()).or_default() += 1;
        }
    }
    rows
}

fn every_row_once() -> BTreeMap<u64, u32> {
    (0..ROWS).map(|id| (id, 1)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_line_arrives_once_whenever_the_job_is_killed(
        parallelism in 1u32..4,
        rounds in vec((0u64..40, prop::bool::weighted(0.9), 0u64..60, 1u32..4), 0..7),
    ) {
        let folder = TempDir::new().unwrap();
        let input = input(&folder);
        let setup = Setup::new(copy).args(&["--input", &input]).parallelism(parallelism).quantum(24).files(8, 20);
        let mut harness = Harness::start(setup).unwrap();
        for (before, checkpoint, after, parallelism) in rounds {
            harness.step(before);
            if checkpoint {
                harness.trigger();
            }
            harness.step(after);
            prop_assert_eq!(harness.manager().failure(), None);
            harness.rescale(parallelism).unwrap();
        }
        harness.finish().unwrap();
        prop_assert_eq!(committed(&harness), every_row_once());
    }
}

#[test]
fn an_input_that_is_not_there_fails_the_job_by_name() {
    let mut harness = Harness::start(Setup::new(copy).args(&["--input", "/nowhere/input.csv"])).unwrap();
    let error = harness.finish().unwrap_err();
    assert!(error.contains("operator `lines`: source could not be read: /nowhere/input.csv"), "{error}");
}

#[test]
fn a_malformed_row_fails_the_job_by_file_and_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("input.csv");
    std::fs::write(&path, "id,name\n1,a\nx,b\n").unwrap();
    let mut harness = Harness::start(Setup::new(copy).args(&["--input", path.to_str().unwrap()])).unwrap();
    let error = harness.finish().unwrap_err();
    let expected = "operator `rows`: input data is malformed";
    assert!(
        error.contains(expected) && error.contains("input.csv, line 3, column `id`: `x` is no u64"),
        "{error}"
    );
}

#[test]
fn an_output_that_cannot_be_written_fails_the_job_by_name() {
    let folder = TempDir::new().unwrap();
    let mut harness = Harness::start(Setup::new(copy).args(&["--input", &input(&folder)])).unwrap();
    harness.break_files(Some("out/"));
    let error = harness.finish().unwrap_err();
    assert!(
        error.contains("operator `out`: sink could not be written: output out: it cannot be written"),
        "{error}"
    );
}

#[test]
fn a_sequence_goes_on_after_a_rescale() {
    fn job(job: &mut Job, _args: &Args) -> JobResult {
        let sink = CsvSink::new("out", ["id", "name"], |id: &u64, row: &mut CsvRow<'_>| {
            row.value(id).value(format_args!("name, of {id}"));
        });
        job.source("numbers", Sequence::new(ROWS)).sink("out", sink);
        Ok(())
    }
    let mut harness = Harness::start(Setup::new(job).parallelism(2).quantum(50)).unwrap();
    harness.step(10);
    harness.checkpoint().unwrap();
    harness.rescale(3).unwrap();
    harness.step(10);
    harness.checkpoint().unwrap();
    harness.rescale(1).unwrap();
    harness.finish().unwrap();
    assert_eq!(committed(&harness), every_row_once());
}
