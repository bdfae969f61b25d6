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

/// Runs `latency`, whose exit must say whether it is valid: a busy machine may stall a run of a moment for too long.
fn latency(arguments: &[&str]) -> Value {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-benches"));
    let output = command.args(["latency", "--json"]).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = out.lines().last().unwrap_or_else(|| panic!("{arguments:?} printed nothing\n{err}"));
    let found: Value = serde_json::from_str(last).unwrap();
    assert_eq!(found["valid"], output.status.success(), "{found}\n{err}");
    assert!(output.status.success() || err.contains("error: invalid: "), "{err}");
    found
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
    assert_eq!(figures.len() + left_out.len(), 16, "{calibration}");
    // What other programs measure is beside the point, and theirs to fail at.
    let own = |why: &&Value| !["sockperf", "iperf3"].iter().any(|name| why.as_str().unwrap().contains(name));
    let missing = left_out.iter().filter(own).count();
    assert!(missing == 0 || tidegate_ring::probe().io_uring.is_err(), "{calibration}");
    assert!(figures.iter().all(|figure| figure["value"].as_f64().unwrap() > 0.0), "{calibration}");
}

#[test]
fn the_report_is_a_page_and_a_part_that_fails_is_a_line_of_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-benches"));
    command.args(["report", "--quick", "--json", "--with-peers", "/no/such/program", "--out"]).arg(&page);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "the exit says that a part failed\n{err}");
    assert!(err.contains("other systems, keyed failed: /no/such/program can't be started"), "{err}");
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(report["sections"].as_array().unwrap().len(), 8);
    let failed: Vec<&str> =
        report["failed"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(failed.iter().all(|name| name.starts_with("other systems, ")), "{failed:?}");
    let page = std::fs::read_to_string(page).unwrap();
    for part in [
        "# Benchmarks",
        "these figures mean nothing",
        "kernel",
        "empty system call",
        "floor with CRC32C",
        "by a bare socket",
        "payload-crc-32k",
        "## Goals",
        "keyed, 100 k keys, against the floor with CRC",
        "raw stream with CRC32C",
        "shuffle through shared memory",
        "10,000 channels",
        "one consumer blocked",
        "records of 16 MiB",
        "CPU of an idle TaskManager",
        "| sender",
        "other systems, latency: failed: /no/such/program can't be started",
        "## Again",
    ] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
}

#[test]
fn latency_of_few_records_is_taken_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("latency.hlog");
    let flags = ["--rate", "500", "--seconds", "0.4", "--warmup", "0.1"];
    for more in [&["--hdr", log.to_str().unwrap()][..], &["--driver", "epoll", "--record-bytes", "100"]] {
        let found = latency(&[&flags[..], more].concat());
        assert_eq!((found["records"].as_u64(), found["samples"].as_u64()), (Some(200), Some(200)), "{found}");
        let us = |name: &str| found["latency_us"][name].as_f64().unwrap();
        assert!(0.0 < us("p50") && us("p50") <= us("p99") && us("p99") <= us("max"), "{found}");
        assert!(found["p50_to_one_way"].as_f64().unwrap() > 0.0, "{found}");
        assert!(found["bare_us"]["p50"].as_f64().unwrap() > 0.0, "{found}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().any(|line| line.starts_with("Tag=latency,")), "{log}");
}

#[test]
fn latency_at_a_part_of_the_most_says_what_that_is_and_when_it_is_too_much() {
    let flags = ["--seconds", "0.2", "--warmup", "0.1", "--transport", "local"];
    let found = latency(&[&flags[..], &["--load", "1", "--spin", "50"]].concat());
    let (most, offered) = (found["most_per_second"].as_f64().unwrap(), found["offered_per_second"].as_f64());
    assert!((most / 100.0 - offered.unwrap()).abs() <= 1.0, "{found}");
    assert_eq!(found["spin_us"], 50);
    let told = refused(&[&["latency"][..], &flags, &["--rate", "500000000"]].concat());
    assert!(told.contains("invalid: 500000000 records/s were offered"), "{told}");
}

#[test]
fn sweeps_check_their_records_and_draw_charts() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    for (what, points) in [("record", 5), ("broadcast", 5), ("flush", 5)] {
        let found = run(&["sweep", "--json", "--quick", "--what", what, "--out", out]);
        let sweep = &found["sweeps"][0];
        assert_eq!(sweep["what"], what);
        assert_eq!(sweep["points"].as_array().unwrap().len(), points, "{found}");
        for chart in ["rate", "cost"] {
            let svg = std::fs::read_to_string(dir.path().join(format!("{what}-{chart}.svg"))).unwrap();
            assert!(svg.starts_with("<svg ") && svg.matches("<circle").count() >= points, "{svg}");
        }
    }
}

#[test]
fn exchanges_by_themselves() {
    for what in ["local-records", "local-segments", "record-1m", "idle"] {
        let found = run(&["exchange", "--json", "--what", what, "--seconds", "0.05"]);
        assert!(found["records_per_second"].as_f64().unwrap() > 0.0, "{what}: {found}");
    }
    assert!(refused(&["exchange"]).contains("--what"));
}

#[test]
fn micro_times_every_part_and_counts_where_valgrind_is() {
    let all = run(&["micro", "--json", "--repetitions", "3"]);
    let costs = all["costs"].as_array().unwrap();
    assert_eq!(costs.len(), 19);
    assert!(costs.iter().all(|cost| cost["ns"].as_f64().unwrap() > 0.0), "{all}");
    let valgrind = Command::new("valgrind").arg("--version").output();
    if valgrind.is_err() {
        println!("counting is skipped: valgrind is not installed");
        return;
    }
    let flags = ["micro", "--json", "--repetitions", "3", "--only", "queue-push-pop", "--callgrind"];
    let counted = run(&flags);
    assert!(counted["costs"][0]["instructions"].as_f64().unwrap() > 5.0, "{counted}");
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.json");
    let told = refused(&[&flags[..], &["--check", "--baseline", missing.to_str().unwrap()]].concat());
    assert!(told.contains("write one with --save"), "{told}");
}
