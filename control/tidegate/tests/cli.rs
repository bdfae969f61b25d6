//! The command line as scripts see it: exit codes, what goes to stdout, and one line that says what is wrong.

use std::net::TcpListener;
use std::process::{Command, Output};

fn tidegate(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(line).output().expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// It ended with `expected`, said one line `error: …` first, and each of `words`.
#[track_caller]
fn fails(line: &[&str], expected: i32, words: &[&str]) {
    let output = tidegate(line);
    let said = stderr(&output);
    assert_eq!(code(&output), expected, "{line:?}: {said}");
    assert!(said.starts_with("error: "), "{line:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{line:?} does not say {word:?}: {said}");
    }
    assert!(output.stdout.is_empty(), "{line:?}: {}", stdout(&output));
}

#[test]
fn help_teaches() {
    let output = tidegate(&["--help"]);
    assert_eq!(code(&output), 0);
    let help = stdout(&output);
    for word in
        ["Examples:", "Exit codes:", "jobmanager", "submit", "demo", "TIDEGATE_LOG", "69   nobody answers"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in [
        "jobmanager",
        "taskmanager",
        "submit",
        "run",
        "list",
        "status",
        "cancel",
        "demo",
        "jobs",
        "plan",
        "doctor",
        "config",
    ] {
        assert_eq!(code(&tidegate(&[command, "--help"])), 0, "{command}");
    }
}

#[test]
fn a_line_without_sense_is_64() {
    let output = tidegate(&[]);
    assert_eq!(code(&output), 64);
    assert!(stderr(&output).contains("Examples:"), "{}", stderr(&output));
    fails(&["fly"], 64, &["fly"]);
    fails(&["taskmanager", "--slots", "0"], 64, &["--slots"]);
    fails(&["taskmanager", "--slots", "65"], 64, &["--slots"]);
    fails(&["taskmanager", "--segment-size", "33k"], 64, &["--segment-size"]);
    fails(&["taskmanager", "--send", "pigeon"], 64, &["auto", "fixed", "plain", "zc"]);
    fails(&["taskmanager", "--flush", "11s"], 64, &["flush", "10s", "11s"]);
    fails(&["taskmanager", "--driver", "select"], 64, &["auto", "io_uring", "epoll"]);
    fails(&["taskmanager", "--driver", "epoll", "--register", "required"], 64, &["epoll cannot register"]);
    fails(&["submit", "delays", "--checkpoint-interval", "1ms"], 64, &["--checkpoint-interval"]);
    fails(&["list", "--jobmanager", "127.0.0.1:8081"], 64, &["http://HOST:PORT"]);
    fails(&["jobmanager"], 64, &["--dir"]);
}

#[test]
fn a_job_that_cannot_be_built_is_2() {
    fails(&["run", "no-such-job"], 2, &["no-such-job", "wordcount", "delays", "flights-clean", "keyed-sum"]);
    fails(&["run", "wordcuont"], 2, &["did you mean \"wordcount\""]);
    fails(&["run", "wordcount"], 2, &["--input is missing"]);
    fails(
        &["run", "wordcount", "--", "--input", "a", "--output", "b", "--ouptut", "c"],
        2,
        &["did you mean --output"],
    );
    fails(&["run", "keyed-sum", "--", "--records", "many", "--keys", "1"], 2, &["--records \"many\""]);
    fails(&["run", "keyed-sum", "--", "--records", "1", "--keys", "0"], 2, &["--keys 0"]);
    fails(&["run", "keyed-sum", "-p", "65", "--", "--records", "1", "--keys", "1"], 2, &["65 slots", "64"]);
}

#[test]
fn nobody_there_is_69() {
    // A port that was free a moment ago.
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback");
    let url = format!("http://{address}");
    for line in [&["list"][..], &["status"], &["cancel"], &["submit", "wordcount"]] {
        let line = [line, &["--jobmanager", &url]].concat();
        fails(&line, 69, &[&address.to_string()]);
    }
}

#[test]
fn somebody_else_there_is_69_too() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let stranger = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
    });
    fails(&["list", "--jobmanager", &url], 69, &["not a Tidegate JobManager"]);
    stranger.join().expect("it does not panic");
}

#[test]
fn a_port_in_use_is_71() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let taken = taken.local_addr().expect("bound").to_string();
    fails(&["taskmanager", "--jobmanager", "127.0.0.1:1", "--data", &taken], 71, &[&taken, "--data"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_74() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let dir = file.join("dir").display().to_string();
    fails(&["jobmanager", "--rpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--dir", &dir], 74, &[&dir]);
}

#[test]
fn jobs_are_listed_for_people_and_for_programs() {
    let output = tidegate(&["jobs"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("--on-error skip|fail"), "{}", stdout(&output));
    let output = tidegate(&["jobs", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> =
        json["jobs"].as_array().expect("a list").iter().filter_map(|job| job["name"].as_str()).collect();
    assert_eq!(names, ["delays", "flights-clean", "wordcount", "keyed-sum"]);
}

#[test]
fn run_speaks_json() {
    let line = ["run", "keyed-sum", "--json", "--", "--records", "1000", "--keys", "10"];
    let output = tidegate(&line);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((json["state"].as_str(), json["checkpoints"].as_u64()), (Some("FINISHED"), Some(1)), "{json}");
}

#[test]
fn a_job_that_fails_is_1_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out").display().to_string();
    let missing = folder.path().join("missing.txt").display().to_string();
    let ended = tidegate(&["run", "wordcount", "--", "--input", &missing, "--output", &output]);
    assert_eq!(code(&ended), 1, "{}", stderr(&ended));
    assert!(stderr(&ended).contains("missing.txt"), "{}", stderr(&ended));
}
