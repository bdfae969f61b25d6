//! Every subcommand at tiny counts, as a user would run it: it ends well, and its last line is the JSON it promises.
//!
//! Nothing here says how fast anything is. Tests share two cores, so they take turns.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

static TURN: Mutex<()> = Mutex::new(());

/// Runs the binary and gives the JSON of its last line.
fn run(arguments: &[&str]) -> Value {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-benches")).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} failed\n{out}\n{err}");
    let last = out.lines().last().unwrap_or_else(|| panic!("{arguments:?} printed nothing\n{err}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?} printed {last}: {error}"))
}

/// Runs the binary, which must refuse, and gives what it says.
fn refused(arguments: &[&str]) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-benches")).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn right(outcome: &Value, records: u64) {
    assert_eq!(outcome["checksum"], outcome["checksum_expected"], "{outcome}");
    assert_eq!(
        outcome["records_received"].as_u64().unwrap() + outcome["warm_up_records"].as_u64().unwrap(),
        records,
        "{outcome}"
    );
    assert!(outcome["records_per_second"].as_f64().unwrap() > 0.0, "{outcome}");
}

const KEYED: [&str; 6] = ["--records", "100000", "--keys", "1000", "--shape", "keyed"];
const BYTES: [&str; 6] = ["--records", "20000", "--record-bytes", "101", "--shape", "bytes"];

#[test]
fn floor_of_both_shapes_by_both_ways_with_and_without_checksum() {
    let mut ways = vec!["blocking"];
    match tidegate_ring::probe().io_uring {
        Ok(_) => ways.push("ring"),
        Err(obstacle) => println!("io_uring is skipped: {obstacle}"),
    }
    for io in ways {
        for checksum in ["crc", "none"] {
            for (shape, records) in [(KEYED, 104_000), (BYTES, 20_800)] {
                let flags = ["--io", io, "--checksum", checksum, "--json"];
                right(&run(&[&["floor"][..], &shape, &flags].concat()), records);
            }
        }
    }
    assert!(refused(&["floor", "--shape", "bid"]).contains("take keyed or bytes"));
}

#[test]
fn shuffle_of_every_shape() {
    right(&run(&[&["shuffle", "--json"][..], &KEYED].concat()), 104_000);
    right(&run(&[&["shuffle", "--json"][..], &BYTES].concat()), 20_800);
    right(&run(&["shuffle", "--json", "--shape", "bid", "--records", "20000"]), 20_800);
}

#[test]
fn shuffle_by_epoll_and_within_a_process() {
    let epoll = run(&[&["shuffle", "--json", "--driver", "epoll"][..], &KEYED].concat());
    right(&epoll, 104_000);
    assert!(epoll["driver"].as_str().unwrap().contains("epoll"), "{epoll}");
    let local = run(&[&["shuffle", "--json", "--transport", "local"][..], &KEYED].concat());
    right(&local, 104_000);
    assert_eq!(local["pids"].as_array().unwrap().len(), 1, "{local}");
}

#[test]
fn floor_and_shuffle_in_turns() {
    let flags = ["floor", "--json", "--against", "shuffle", "--pairs", "2"];
    let comparison = run(&[&flags[..], &KEYED].concat());
    assert_eq!(comparison["rounds"], 2);
    let names: Vec<&str> =
        comparison["summaries"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["floor", "shuffle"]);
    assert_eq!(comparison["series"][1]["samples"].as_array().unwrap().len(), 2);
}

#[test]
fn calibration_has_every_figure() {
    let calibration = run(&["calibrate", "--quick", "--json"]);
    let figures = calibration["figures"].as_array().unwrap();
    let left_out = calibration["left_out"].as_array().unwrap();
    assert_eq!(figures.len() + left_out.len(), 14, "{calibration}");
    assert!(left_out.is_empty() || tidegate_ring::probe().io_uring.is_err(), "{calibration}");
    assert!(figures.iter().all(|figure| figure["value"].as_f64().unwrap() > 0.0), "{calibration}");
}

#[test]
fn the_report_is_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    let report = run(&["report", "--quick", "--json", "--out", page.to_str().unwrap()]);
    assert_eq!(report["sections"].as_array().unwrap().len(), 5);
    let page = std::fs::read_to_string(page).unwrap();
    for part in [
        "# Benchmarks",
        "these figures mean nothing",
        "kernel",
        "empty system call",
        "floor with CRC32C",
        "## Again",
    ] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
}
