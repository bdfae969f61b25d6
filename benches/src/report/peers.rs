//! Other systems at the same work: what `compare` of benches/peers leaves in a file, read from files or made by running it.
//!
//! Owns the program while it runs. Always: a program that takes too long ends, and its children end with it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{QUICK_SECONDS, Turns};

/// What stands in front of the tables.
const INTRODUCTION: &str = "\
The same records, keys and sums, between the same two cores and over loopback, by the program in `benches/peers`. In a round each
system runs once, one after the other, and ratios are Tidegate's by the other's of the same round. Processor time is that of the
two processes that move the records, of Tidegate with its warm-up, of the others without. What was tried to make each fast is in
`benches/peers/README.md`.
";
/// What stands there when there is no file.
const HOW: &str = "\
Not in this report. The program in `benches/peers` runs them beside Tidegate, when the report is told where it is:

```
cargo build --release -p tidegate-benches
cargo build --release --manifest-path benches/peers/Cargo.toml
target/release/tidegate-benches report --with-peers benches/peers/target/release/tidegate-peers
```
";
/// How often the end of the program is looked for.
const POLL: Duration = Duration::from_millis(200);
/// What a comparison may take beyond what is expected, by factor.
const PATIENCE: f64 = 2.0;

/// Sections that the report asks for: what, who, and how long a round of them takes beyond its measured time, seconds. Flink's
/// buffer timeouts are those at which it was best: 0 by median, 1 by 99th percentile.
pub const ASKED: [Asked; 4] = [
    Asked { what: "keyed", peers: "timely,flink", runs: 4.0, around: 30.0 },
    Asked { what: "bytes-100", peers: "flink", runs: 2.0, around: 25.0 },
    Asked { what: "bytes-16000", peers: "flight,flink", runs: 3.0, around: 27.0 },
    Asked { what: "latency", peers: "flink", runs: 6.0, around: 120.0 },
];

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub what: &'static str,
    peers: &'static str,
    runs: f64,
    around: f64,
}

impl Asked {
    /// How long it will take, about.
    pub fn seconds(&self, turns: Turns) -> f64 {
        f64::from(turns.rounds) * (self.runs * turns.seconds * 1.2 + self.around)
    }
}

/// What is read of the file of `compare --out`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Peers {
    pub pairs: u32,
    pub seconds: u32,
    #[serde(default)]
    pub moved: Vec<Moved>,
    #[serde(default)]
    pub late: Vec<Late>,
    /// Those that were left out.
    #[serde(default)]
    pub failed: Vec<Failed>,
    pub page: String,
}

/// One kind of work.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Moved {
    pub title: String,
    pub lines: Vec<MovedLine>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct MovedLine {
    pub name: String,
    pub cpu_ns_per_record: f64,
    /// Tidegate's rate by this one's: median, least, greatest.
    pub ratio: [f64; 3],
}

/// One rate.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Late {
    pub rate: u64,
    pub lines: Vec<LateLine>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct LateLine {
    pub name: String,
    /// Runs that reached the rate.
    pub valid: u32,
    /// This one's latency by Tidegate's, of rounds in which both runs are valid, if there are any: median, least, greatest.
    pub p50_ratio: Option<[f64; 3]>,
    pub p99_ratio: Option<[f64; 3]>,
}

/// A peer that was left out.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Failed {
    pub name: String,
    pub section: String,
    pub error: String,
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is another one.
pub fn read(path: &Path) -> Result<Peers, Box<dyn Error>> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("{} is not what `compare --out` of benches/peers leaves: {error}", path.display())
    };
    let text = std::fs::read(path).map_err(|error| wrong(&error))?;
    Ok(serde_json::from_slice(&text).map_err(|error| wrong(&error))?)
}

/// Runs one section of `compare` with this very program as Tidegate.
///
/// # Errors
/// The program cannot be started, takes too long, or leaves nothing.
pub fn compare(program: &Path, asked: Asked, turns: Turns) -> Result<Peers, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let out: PathBuf = dir.path().join("peers.json");
    let (pairs, seconds) = if turns.quick { (1, 1) } else { (turns.rounds, turns.seconds.ceil() as u32) };
    let [first, second] = turns.cores;
    let mut command = Command::new(program);
    command
        .args(["compare", "--what", asked.what, "--peers", asked.peers, "--buffer-timeouts", "0,1"])
        .args(["--pairs", &pairs.to_string(), "--seconds", &seconds.to_string()])
        .args(["--cores", &format!("{first},{second}"), "--tidegate"])
        .arg(std::env::current_exe()?)
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command.spawn().map_err(|error| {
        format!(
            "{} can't be started ({error}): build it with cargo build --release --manifest-path benches/peers/Cargo.toml",
            program.display()
        )
    })?;
    let at_most = if turns.quick { 600.0 + QUICK_SECONDS } else { PATIENCE * asked.seconds(turns) };
    let ended = Running(child).wait(Duration::from_secs_f64(at_most));
    match (read(&out), ended) {
        (Ok(peers), _) => Ok(peers), // Who failed is named in it.
        (Err(_), Err(error)) => Err(format!("compare --what {}: {error}", asked.what).into()),
        (Err(error), Ok(())) => Err(error),
    }
}

/// The program while it runs.
struct Running(Child);

impl Running {
    fn wait(mut self, at_most: Duration) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        while start.elapsed() < at_most {
            if let Some(status) = self.0.try_wait()? {
                return if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) };
            }
            std::thread::sleep(POLL);
        }
        Err(format!("it takes longer than {} s", at_most.as_secs()).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The part of the page.
pub fn page(all: &[Peers]) -> String {
    let Some(Peers { pairs, seconds, .. }) = all.first() else {
        return format!("## Other systems\n\n{HOW}\n");
    };
    let mut page =
        format!("## Other systems\n\n{INTRODUCTION}Medians of {pairs} rounds of about {seconds} s.\n\n");
    for peers in all {
        page.push_str(&peers.page);
        page.push('\n');
        for Failed { name, section, error } in &peers.failed {
            page.push_str(&format!("Left out of \"{section}\": {name}, failed: {error}\n\n"));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        let line = serde_json::json!({ "name": "flink", "cpu_ns_per_record": 300.0, "ratio": [15.0, 14.0, 16.0],
            "settings": {}, "samples": [] });
        let moved = serde_json::json!([{ "title": "Pairs", "lines": [line] }]);
        let failed = serde_json::json!([{ "name": "timely", "section": "Pairs", "error": "no luck" }]);
        let left = serde_json::json!({ "pairs": 3, "seconds": 5, "moved": moved, "failed": failed,
            "page": "### Pairs\n" });
        std::fs::write(&path, left.to_string()).unwrap();
        let peers = read(&path).unwrap();
        assert_eq!(peers.moved[0].lines[0].ratio[0], 15.0);
        let page = page(&[peers]);
        assert!(page.contains("3 rounds of about 5 s.\n\n### Pairs"), "{page}");
        assert!(page.contains("timely, failed: no luck"), "{page}");
    }

    #[test]
    fn without_a_file_the_page_says_how_to_make_it() {
        assert!(page(&[]).contains("--with-peers"));
        let error = read(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("compare --out"), "{error}");
        let turns = Turns { rounds: 1, seconds: 1.0, quick: true, cores: [0, 1] };
        let error = compare(Path::new("/no/such/file"), ASKED[0], turns).unwrap_err().to_string();
        assert!(error.contains("can't be started"), "{error}");
    }
}
