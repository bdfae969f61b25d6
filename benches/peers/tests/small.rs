//! Small runs of the peers that are libraries, as a user would start them: they end well, their last line is the JSON they
//! promise, and counts and sums are right. What is wrong is refused.
//!
//! Nothing here says how fast anything is. Tests share two cores, so they take turns.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

static TURN: Mutex<()> = Mutex::new(());

fn start(arguments: &[&str]) -> std::process::Output {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(env!("CARGO_BIN_EXE_tidegate-peers")).args(arguments).output().unwrap()
}

/// Runs the binary and gives the JSON of its last line.
fn run(arguments: &[&str]) -> Value {
    let output = start(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} failed\n{out}\n{err}");
    let last = out.lines().last().unwrap_or_else(|| panic!("{arguments:?} printed nothing\n{err}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?} printed {last}: {error}"))
}

/// Runs the binary, which must refuse, and gives what it says.
fn refused(arguments: &[&str]) -> String {
    let output = start(arguments);
    assert!(!output.status.success(), "{arguments:?} went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Both shapes, with these words behind the peer's name.
fn both_shapes(peer: &str, more: &[&str]) {
    let keyed = ["--shape", "keyed", "--records", "100000", "--keys", "1000"];
    let bytes = ["--shape", "bytes", "--records", "20000", "--record-bytes", "101"];
    for (shape, records) in [(keyed, 104_000), (bytes, 20_800)] {
        let flags = ["--congestion", "system", "--json"];
        let outcome = run(&[&[peer][..], &shape, &flags, more].concat());
        assert_eq!(outcome["checksum"], outcome["checksum_expected"], "{outcome}");
        let of = |name: &str| outcome[name].as_u64().unwrap();
        assert_eq!(of("records_received") + of("warm_up_records"), records, "{outcome}");
        assert!(outcome["records_per_second"].as_f64().unwrap() > 0.0, "{outcome}");
        assert_eq!(outcome["cpu_seconds"].as_object().unwrap().len(), 2, "{outcome}");
        assert!(outcome["settings"]["congestion control"].is_string(), "{outcome}");
    }
}

#[test]
fn timely_as_columns_and_as_vectors() {
    both_shapes("timely", &["--round-bytes", "65536", "--message-bytes", "8192"]);
    both_shapes("timely", &["--container", "vec", "--rounds", "1"]);
}

#[test]
fn tonic_in_batches_and_a_message_each() {
    both_shapes("tonic", &[]);
    both_shapes("tonic", &["--batch-bytes", "0"]);
}

#[test]
fn flight_in_small_batches() {
    both_shapes("flight", &["--batch-bytes", "16384"]);
}

#[test]
fn what_is_wrong_is_refused_with_what_to_do() {
    let small = ["--records", "1000", "--congestion", "no-such-control"];
    let says = refused(&[&["tonic"][..], &small].concat());
    assert!(says.contains("no-such-control") && says.contains("--congestion system"), "{says}");
    assert!(refused(&["timely", "--cores", "0"]).contains("such as 0,1"));
    assert!(refused(&["compare", "--tidegate", "/no/such/file"]).contains("--tidegate FILE"));
}
