//! Tidegate itself: its program of benchmarks, started for one run, whose last line of stdout is read.
//!
//! Owns the program while it runs. Always: one that takes too long ends, with everything it has started, by their ids.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Ran, late, moved};
use crate::flink::latency::{Load, Quantiles};
use crate::socket;
use crate::work::Work;

/// The program.
const NAME: &str = "tidegate-benches";
/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(50);

/// Its place, and its patience.
pub struct Tidegate {
    program: PathBuf,
    time_out: Duration,
}

/// What is read of `shuffle --json`.
#[derive(Debug, Deserialize)]
struct Shuffle {
    records_received: u64,
    warm_up_records: u64,
    checksum: u64,
    checksum_expected: u64,
    records_per_second: f64,
    cpu_seconds: BTreeMap<String, f64>,
    driver: String,
    send_mode: String,
}

/// What is read of `latency --json`.
#[derive(Debug, Deserialize)]
struct Latency {
    achieved_per_second: f64,
    valid: bool,
    latency_us: Quantiles,
    #[serde(default)]
    spin_us: Option<u32>,
    #[serde(flatten)]
    traffic: Traffic,
}

#[derive(Debug, Deserialize)]
struct Traffic {
    #[serde(default)]
    driver: String,
    #[serde(default)]
    send_mode: String,
}

impl Tidegate {
    /// Finds the program: where it was said to be, beside this one, or where cargo leaves it.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn find(told: Option<&Path>, time_out: Duration) -> Result<Self, Box<dyn Error>> {
        let places = match told {
            Some(program) => vec![program.to_owned()],
            None => {
                let beside = std::env::current_exe()?.parent().map(|folder| folder.join(NAME));
                let told = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
                let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
                let built = told.into_iter().chain([main]).map(|target| target.join("release").join(NAME));
                beside.into_iter().chain(built).collect()
            }
        };
        let found = places.iter().find(|place| place.is_file());
        let program = found.cloned().ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            format!(
                "there is no {NAME} at {}: build it with cargo build --release -p {NAME} in the main workspace, or say \
                 --tidegate FILE",
                places.join(" or ")
            )
        })?;
        Ok(Self { program, time_out })
    }

    /// One run of `shuffle`.
    ///
    /// # Errors
    /// It failed or took too long, or its sums are wrong.
    pub fn shuffle(&self, work: &Work) -> Result<Ran<moved::Sample>, Box<dyn Error>> {
        let numbers =
            [("--records", work.measured()), ("--keys", work.keys), ("--record-bytes", work.record_bytes)];
        let mut words = vec!["shuffle".to_owned(), "--shape".to_owned(), work.shape.name().to_owned()];
        words.extend(numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]));
        let found: Shuffle = serde_json::from_str(&self.run(words, work.cores, true)?)?;
        if found.checksum != found.checksum_expected || found.records_received == 0 {
            return Err(format!("the sums of {NAME} are wrong: {found:?}").into());
        }
        let cpu: f64 = found.cpu_seconds.values().sum();
        let sample = moved::Sample {
            records_per_second: found.records_per_second,
            bytes_per_second: found.records_per_second * work.payload_bytes() as f64,
            // Its processor time counts the warm-up as well, so all records count.
            cpu_ns_per_record: cpu * 1e9 / (found.records_received + found.warm_up_records) as f64,
        };
        Ok((sample, settings(&found.driver, &found.send_mode)))
    }

    /// One run of `latency`.
    ///
    /// # Errors
    /// It failed or took too long. An invalid run is no failure.
    pub fn latency(&self, load: &Load) -> Result<Ran<late::Sample>, Box<dyn Error>> {
        let numbers = [("--rate", load.rate), ("--seconds", load.seconds)];
        let mut words = vec!["latency".to_owned()];
        words.extend(numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]));
        // An invalid run ends as an error, but it prints what it found.
        let found: Latency = serde_json::from_str(&self.run(words, load.cores, false)?)?;
        let Latency { achieved_per_second, valid, latency_us, .. } = found;
        let mut settings = settings(&found.traffic.driver, &found.traffic.send_mode);
        let spin = found.spin_us.map_or("where it pays".to_owned(), |micros| format!("{micros} us"));
        settings.insert("spin".to_owned(), spin);
        Ok((late::Sample { latency_us, achieved_per_second, valid }, settings))
    }

    /// Runs it, and gives its last line.
    fn run(
        &self,
        mut words: Vec<String>,
        [first, second]: [usize; 2],
        must_end_well: bool,
    ) -> Result<String, Box<dyn Error>> {
        words.extend(["--cores".to_owned(), format!("{first},{second}"), "--json".to_owned()]);
        let mut child = Command::new(&self.program)
            .args(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't start {}: {error}", self.program.display()))?;
        let outputs = [
            child.stdout.take().map(|out| std::thread::spawn(move || text(out))),
            child.stderr.take().map(|err| std::thread::spawn(move || text(err))),
        ];
        let status = wait(&mut child, self.time_out)?;
        let [out, err] =
            outputs.map(|thread| thread.and_then(|thread| thread.join().ok()).unwrap_or_default());
        let last = out.lines().last().filter(|line| line.starts_with('{'));
        match last {
            Some(last) if status || !must_end_well => Ok(last.to_owned()),
            _ => Err(format!("{NAME} {} failed:\n{err}", words.join(" ")).into()),
        }
    }
}

fn settings(driver: &str, send_mode: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("driver", driver.to_owned()),
        ("send", send_mode.to_owned()),
        ("checksum", "CRC32C of each payload".to_owned()),
        ("congestion control", format!("{} (the system's)", socket::system_congestion())),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is what there is.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether it ended well.
fn wait(child: &mut Child, at_most: Duration) -> Result<bool, Box<dyn Error>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > at_most {
            end_all(child.id());
            child.wait()?;
            return Err(format!("{NAME} takes longer than {} s", at_most.as_secs()).into());
        }
        std::thread::sleep(POLL);
    }
}

/// Ends a process and those it has started.
fn end_all(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    children.into_iter().for_each(end_all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_asked_for() {
        let error = Tidegate::find(Some(Path::new("/no/such/file")), POLL).err().unwrap().to_string();
        assert!(error.contains("/no/such/file") && error.contains("--tidegate FILE"), "{error}");
    }

    #[test]
    fn what_takes_too_long_ends_with_its_children() {
        let mut child = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let grandchild = loop {
            let text = std::fs::read_to_string(&children).unwrap();
            if let Some(pid) = text.split_whitespace().next() {
                break pid.to_owned();
            }
            std::thread::yield_now();
        };
        assert!(wait(&mut child, Duration::ZERO).unwrap_err().to_string().contains("takes longer"));
        // Whoever adopts it may take a moment to reap it; it runs no more.
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || !stat.contains(" S "), "{stat}");
    }

    #[test]
    fn what_it_prints_is_understood() {
        let shuffle = r#"{"shape":"keyed","pids":[1,2],"records_received":10,"warm_up_records":2,"checksum":66,
            "checksum_expected":66,"seconds":1.0,"records_per_second":10.0,"bytes_per_second":160.0,
            "cpu_seconds":{"1":0.5,"2":0.7},"heap_allocations":0,"payload_bytes_copied":0,"send_ops":1,"receive_ops":1,
            "driver":"io_uring","send_mode":"auto"}"#;
        let found: Shuffle = serde_json::from_str(shuffle).unwrap();
        assert_eq!((found.records_received, found.driver.as_str()), (10, "io_uring"));
        let latency = r#"{"load":{"rate":1000},"achieved_per_second":1000.0,"valid":true,"spin_us":null,
            "latency_us":{"p50":1.0,"p90":2.0,"p99":3.0,"p99_9":4.0,"p99_99":5.0,"max":6.0},"driver":"epoll"}"#;
        let found: Latency = serde_json::from_str(latency).unwrap();
        assert!(found.valid && found.latency_us.max == 6.0 && found.traffic.driver == "epoll");
    }
}
