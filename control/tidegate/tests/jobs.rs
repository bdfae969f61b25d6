//! The bundled jobs in this process, on real data, against oracles: plain loops that share no code with the jobs.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tidegate::cli::App;
use tidegate::cli::exit::Exit;

const PARALLELISMS: [u32; 4] = [1, 2, 4, 7];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/flights.csv.gz")
}

fn flights() -> Vec<HashMap<String, String>> {
    let mut text = String::new();
    let file = std::fs::File::open(data()).expect("the data is part of the repository");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("whole");
    let mut lines = text.lines();
    let header: Vec<String> = lines.next().expect("a header").split(',').map(str::to_owned).collect();
    let row = |line: &str| header.iter().cloned().zip(line.split(',').map(str::to_owned)).collect();
    lines.map(row).collect()
}

/// `tidegate run` in this process.
fn run(job: &str, parallelism: u32, flags: &[(&str, &Path)], more: &[&str]) -> Exit {
    let parallelism = parallelism.to_string();
    let words = [
        "tidegate",
        "run",
        job,
        "--json",
        "--parallelism",
        &parallelism,
        "--checkpoint-interval",
        "50ms",
        "--",
    ];
    let mut line: Vec<OsString> = words.iter().map(OsString::from).collect();
    for (flag, path) in flags {
        line.extend([OsString::from(flag), path.into()]);
    }
    line.extend(more.iter().map(OsString::from));
    App::new(tidegate::jobs::all()).run_with(line)
}

/// Header and sorted rows of all part files of a folder.
fn parts(folder: &Path) -> (String, Vec<String>) {
    let (mut header, mut rows) = (String::new(), Vec::new());
    for entry in std::fs::read_dir(folder).expect("there is output").flatten() {
        if entry.file_name().to_string_lossy().starts_with("part-") {
            let text = std::fs::read_to_string(entry.path()).expect("readable");
            let mut lines = text.lines().map(str::to_owned);
            header = lines.next().expect("each part has a header");
            rows.extend(lines);
        }
    }
    rows.sort();
    (header, rows)
}

/// What is kept of one route or carrier.
#[derive(Default)]
struct Sums {
    flights: i64,
    cancelled: i64,
    delays: Vec<i64>,
}

impl Sums {
    fn row(&self) -> String {
        let count = self.delays.len() as i64;
        let (flights, cancelled) = (self.flights, self.cancelled);
        let Some(max) = self.delays.iter().max() else { return format!("{flights},{cancelled},0,,") };
        // Hundredths, halves away from zero: 2 * 100 * sum / count + 1, halved, without the sign.
        let sum: i64 = self.delays.iter().sum();
        let hundredths = (sum.abs() * 200 / count + 1) / 2;
        let sign = if sum < 0 && hundredths != 0 { "-" } else { "" };
        format!("{flights},{cancelled},{count},{sign}{}.{:02},{max}", hundredths / 100, hundredths % 100)
    }
}

fn sums(
    flights: &[HashMap<String, String>],
    key: impl Fn(&HashMap<String, String>) -> String,
) -> Vec<String> {
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    for flight in flights {
        let of = sums.entry(key(flight)).or_default();
        of.flights += 1;
        of.cancelled += i64::from(flight["dep_time"] == "NA");
        of.delays.extend(flight["arr_delay"].parse::<i64>());
    }
    let mut rows: Vec<String> = sums.iter().map(|(key, sums)| format!("{key},{}", sums.row())).collect();
    rows.sort();
    rows
}

#[test]
fn delays_agrees_to_the_last_digit() {
    let flights = flights();
    let routes = sums(&flights, |flight| format!("{},{}", flight["origin"], flight["dest"]));
    let carriers = sums(&flights, |flight| flight["carrier"].clone());
    for parallelism in PARALLELISMS {
        let output = tempfile::tempdir().expect("a folder");
        assert_eq!(
            run("delays", parallelism, &[("--input", &data()), ("--output", output.path())], &[]),
            Exit::Ok
        );
        let figures = "flights,cancelled,arrivals,mean_delay,max_delay";
        assert_eq!(parts(&output.path().join("routes")), (format!("origin,dest,{figures}"), routes.clone()));
        assert_eq!(parts(&output.path().join("carriers")), (format!("carrier,{figures}"), carriers.clone()));
        assert!(!output.path().join("_pending").exists(), "nothing is left pending");
    }
}

#[test]
fn flights_clean_writes_every_row_once_in_several_checkpoints() {
    let mut text = String::new();
    let file = std::fs::File::open(data()).expect("the data is part of the repository");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("whole");
    let (header, rows) = text.split_once('\n').expect("a header");
    let mut rows: Vec<String> = rows.lines().map(str::to_owned).collect();
    rows.sort();
    for parallelism in PARALLELISMS {
        let output = tempfile::tempdir().expect("a folder");
        let ended =
            run("flights-clean", parallelism, &[("--input", &data()), ("--output", output.path())], &[]);
        assert_eq!(ended, Exit::Ok);
        assert!(
            parts(output.path()) == (header.to_owned(), rows.clone()),
            "other rows at parallelism {parallelism}"
        );
        let files = std::fs::read_dir(output.path()).expect("there is output").count();
        assert!(
            files > parallelism as usize,
            "{files} files: rows appear with checkpoints, not only at the end"
        );
    }
}

#[test]
fn wordcount_counts_runs_of_letters_and_digits() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("text");
    // Fields of the flights are words, numbers, times and dashes.
    let mut text = String::new();
    let file = std::fs::File::open(data()).expect("the data is part of the repository");
    flate2::read::GzDecoder::new(file).take(2_000_000).read_to_string(&mut text).expect("ASCII");
    std::fs::write(&input, text.trim_end()).expect("writable");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
    }
    let mut expected: Vec<String> = counts.iter().map(|(word, count)| format!("{word},{count}")).collect();
    expected.sort();
    for parallelism in PARALLELISMS {
        let output = folder.path().join(format!("out-{parallelism}"));
        assert_eq!(
            run("wordcount", parallelism, &[("--input", &input), ("--output", &output)], &[]),
            Exit::Ok
        );
        assert_eq!(parts(&output), ("word,count".to_owned(), expected.clone()));
    }
}

#[test]
fn keyed_sum_has_a_closed_form() {
    let (records, keys) = (100_003u64, 97u64);
    let mut sums = vec![0u64; keys as usize];
    (0..records).for_each(|n| sums[(n % keys) as usize] += n);
    let mut expected: Vec<String> =
        sums.iter().enumerate().map(|(key, sum)| format!("{key},{sum}")).collect();
    expected.sort();
    for parallelism in PARALLELISMS {
        let output = tempfile::tempdir().expect("a folder");
        let more = ["--records", &records.to_string(), "--keys", &keys.to_string()];
        assert_eq!(run("keyed-sum", parallelism, &[("--output", output.path())], &more), Exit::Ok);
        assert_eq!(parts(output.path()), ("key,sum".to_owned(), expected.clone()));
    }
}

#[test]
fn malformed_rows_are_skipped_or_fail_the_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("flights.csv");
    let good = "2013,1,1,517,2,830,11,UA,1545,N14228,EWR,IAH,1400,2013-01-01T10:00:00Z";
    let header = "year,month,day,dep_time,dep_delay,arr_time,arr_delay,carrier,flight,tailnum,origin,dest,distance,time_hour";
    std::fs::write(&input, format!("{header}\n{good}\n2013,1,1\n{good}\n")).expect("writable");
    let skip = folder.path().join("skip");
    assert_eq!(run("delays", 2, &[("--input", &input), ("--output", &skip)], &[]), Exit::Ok);
    assert_eq!(parts(&skip.join("routes")).1, ["EWR,IAH,2,0,2,11.00,11"]);
    let fail = folder.path().join("fail");
    let flags = [("--input", input.as_path()), ("--output", &fail)];
    assert_eq!(run("delays", 2, &flags, &["--on-error", "fail"]), Exit::JobFailed);
    assert!(!fail.join("routes").exists(), "a failed job commits nothing");
}

#[test]
fn a_binary_without_a_demo_has_none() {
    let line = ["other", "demo"].map(OsString::from);
    assert_eq!(App::new(tidegate::jobs::all()).run_with(line), Exit::Usage);
}
