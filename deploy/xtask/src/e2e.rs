//! `cargo xtask e2e`: the end-to-end tests under each combination of driver, transport and send mode, and a table of them.
//!
//! It owns no state. Each combination is one run of the tests with `TIDEGATE_E2E` set, one after the other; one that fails
//! does not keep the others from running. The tests see for themselves that the options took effect.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DRIVERS: [&str; 2] = ["io_uring", "epoll"];
const TRANSPORTS: [&str; 3] = ["tcp", "shm", "auto"];

/// The ways to send that a driver has on a transport. Through shared memory nothing is sent; epoll knows one way.
fn sends(driver: &str, transport: &str) -> &'static [&'static str] {
    match (driver, transport) {
        ("epoll", _) => &["plain"],
        (_, "tcp") => &["auto", "fixed", "plain", "zc"],
        _ => &["auto"],
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Combination {
    driver: &'static str,
    transport: &'static str,
    send: &'static str,
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver={},transport={},send={}", self.driver, self.transport, self.send)
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    combinations: Vec<Combination>,
    /// Part of the names of the tests; all without.
    filter: Option<String>,
}

/// Reads the arguments behind `e2e`.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut driver, mut transport, mut send, mut filter) = (None, None, None, None);
    while let Some(argument) = arguments.next() {
        let place = match argument.as_str() {
            // Which is what is run unless something else is said.
            "--all" => continue,
            "--driver" => &mut driver,
            "--transport" => &mut transport,
            "--send" => &mut send,
            other if other.starts_with('-') => return Err(format!("unexpected argument `{other}`")),
            _ if filter.is_none() => {
                filter = Some(argument);
                continue;
            }
            other => return Err(format!("one filter at most, found `{other}` too")),
        };
        *place = Some(arguments.next().ok_or(format!("{argument} needs a value"))?);
    }
    let fits = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    let combinations: Vec<Combination> = all()
        .filter(|one| fits(&driver, one.driver) && fits(&transport, one.transport) && fits(&send, one.send))
        .collect();
    if combinations.is_empty() {
        let known: Vec<String> = all().map(|one| one.to_string()).collect();
        return Err(format!("there is no such combination; there are\n  {}", known.join("\n  ")));
    }
    Ok(Wanted { combinations, filter })
}

fn all() -> impl Iterator<Item = Combination> {
    let pairs = DRIVERS.into_iter().flat_map(|driver| TRANSPORTS.map(|transport| (driver, transport)));
    pairs.flat_map(|(driver, transport)| {
        sends(driver, transport).iter().map(move |send| Combination { driver, transport, send })
    })
}

/// What a run of the tests came to.
struct Row {
    combination: Combination,
    passed: bool,
    /// `test result: …`, as the tests said it.
    said: String,
    took: Duration,
}

/// Runs the combinations. Gives the table; an error holds it as well, and how to repeat what failed.
pub fn run(wanted: &Wanted, root: &Path) -> Result<String, String> {
    let mut rows = Vec::new();
    for &combination in &wanted.combinations {
        println!("\n==> {}", command_line(combination, wanted.filter.as_deref()));
        let start = Instant::now();
        let (passed, said) = execute(combination, wanted.filter.as_deref(), root)?;
        rows.push(Row { combination, passed, said, took: start.elapsed() });
    }
    let table = table(&rows);
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| !row.passed)
        .map(|row| command_line(row.combination, wanted.filter.as_deref()))
        .collect();
    if failed.is_empty() {
        Ok(table)
    } else {
        Err(format!(
            "not every combination passed\n\n{table}\nto run again what failed:\n{}",
            failed.join("\n")
        ))
    }
}

/// Of the whole workspace, as all steps: no second build. Only one package of it has tests of that name.
const ARGUMENTS: [&str; 5] = ["test", "--quiet", "--workspace", "--test", "e2e"];

fn command_line(combination: Combination, filter: Option<&str>) -> String {
    let words = ARGUMENTS.into_iter().chain(filter.map(|_| "--")).chain(filter);
    format!("TIDEGATE_E2E={combination} cargo {}", words.collect::<Vec<_>>().join(" "))
}

/// One run, with its output on the terminal as it comes; whether it passed, and its result.
fn execute(combination: Combination, filter: Option<&str>, root: &Path) -> Result<(bool, String), String> {
    let failed = |error: std::io::Error| format!("the tests could not be run: {error}");
    let mut child = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(ARGUMENTS)
        .args(filter.map(|_| "--"))
        .args(filter)
        .current_dir(root)
        .env("TIDEGATE_E2E", combination.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().expect("invariant: stdout is piped");
    let mut said = String::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line.map_err(failed)?).into_owned();
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            said = result.to_owned();
        }
    }
    let passed = child.wait().map_err(failed)?.success();
    Ok(verdict(passed, said))
}

/// A run of no test at all shows nothing.
fn verdict(passed: bool, said: String) -> (bool, String) {
    let none = said.contains(" 0 passed");
    (passed && !none, if said.is_empty() { "did not run".to_owned() } else { said })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<9} {:<10} {:<6} {:>8}  result\n", "driver", "transport", "send", "seconds");
    for Row { combination: Combination { driver, transport, send }, said, took, .. } in rows {
        let counts = said.split("; finished").next().unwrap_or_default();
        text.push_str(&format!(
            "{driver:<9} {transport:<10} {send:<6} {:>8.1}  {counts}\n",
            took.as_secs_f64()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Result<Wanted, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_driver_transport_and_send_mode_is_in_some_combination() {
        let all = wanted("--all").expect("good").combinations;
        assert_eq!(wanted("").expect("the same").combinations, all);
        assert!(DRIVERS.iter().all(|driver| all.iter().any(|one| one.driver == *driver)));
        let pairs = DRIVERS.iter().flat_map(|driver| TRANSPORTS.map(|transport| (*driver, transport)));
        for pair in pairs {
            assert!(all.iter().any(|one| (one.driver, one.transport) == pair), "{pair:?}");
        }
        assert!(["auto", "fixed", "plain", "zc"].iter().all(|send| all.iter().any(|one| one.send == *send)));
    }

    #[test]
    fn options_choose_among_the_combinations() {
        let epoll = wanted("--driver epoll starved").expect("good");
        assert_eq!(epoll.combinations.len(), TRANSPORTS.len());
        assert_eq!(epoll.filter.as_deref(), Some("starved"));
        let one = wanted("--driver io_uring --transport tcp --send zc").expect("good").combinations;
        let line = command_line(one[0], Some("kills"));
        assert_eq!(
            line,
            "TIDEGATE_E2E=driver=io_uring,transport=tcp,send=zc cargo test --quiet --workspace --test e2e -- kills"
        );
        assert!(
            wanted("--driver epoll --send zc").unwrap_err().contains("driver=epoll,transport=tcp,send=plain")
        );
        assert!(wanted("--driver").is_err() && wanted("--drive epoll").is_err() && wanted("a b").is_err());
    }

    #[test]
    fn a_run_of_no_test_is_no_success() {
        assert!(verdict(true, "ok. 5 passed; 0 failed".into()).0);
        assert!(!verdict(true, "ok. 0 passed; 0 failed; 60 filtered out".into()).0);
        assert!(!verdict(false, String::new()).0);
    }
}
