//! What a run found, as a table for people and as one line of JSON for programs. Owns no state.
//!
//! Always: an outcome has the right number of records and the right sums, for one that has not is an error.

use std::collections::BTreeMap;
use std::error::Error;

use serde::Serialize;

use crate::meter::Side;
use crate::work::Work;

/// A finished run. Fields are those of `tidegate-benches shuffle --json` where they mean the same.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Who did it.
    pub peer: String,
    /// What moved.
    pub shape: &'static str,
    /// Bytes of a record that mean something to whoever sent it.
    pub record_bytes: u64,
    /// The processes: source, sum.
    pub pids: [u32; 2],
    /// Records measured.
    pub records_received: u64,
    /// Records before them.
    pub warm_up_records: u64,
    /// All sums added up, warm-up included, modulo 2^64.
    pub checksum: u64,
    /// What the checksum must be.
    pub checksum_expected: u64,
    /// From the end of the warm-up to the last record, at the receiver.
    pub seconds: f64,
    /// Records measured per second.
    pub records_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
    /// User and system time per process, from the end of its warm-up to its last record.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// The same of both, per record, nanoseconds.
    pub cpu_ns_per_record: f64,
    /// How it was set up.
    pub settings: BTreeMap<String, String>,
}

impl Outcome {
    /// Of what both ends found.
    ///
    /// # Errors
    /// A count or a sum is not what the work says.
    pub fn checked(
        peer: &str,
        work: &Work,
        [source, sum]: [&Side; 2],
        settings: BTreeMap<String, String>,
    ) -> Result<Self, Box<dyn Error>> {
        let (found, expected) = (sum.totals, work.expected());
        if found.results != expected.results {
            return Err(format!(
                "{peer}: {} keys or records were summed, expected {}",
                found.results, expected.results
            )
            .into());
        }
        if found.checksum != expected.checksum {
            return Err(format!(
                "{peer}: the checksum is {}, the closed form {}",
                found.checksum, expected.checksum
            )
            .into());
        }
        if sum.records == 0 || sum.seconds <= 0.0 || source.pid == sum.pid {
            return Err(
                format!("{peer}: nothing was measured between two processes: {source:?}, {sum:?}").into()
            );
        }
        let records_per_second = sum.records as f64 / sum.seconds;
        let cpu = |side: &Side| side.cpu_seconds * 1e9 / side.records.max(1) as f64;
        Ok(Self {
            peer: peer.to_owned(),
            shape: work.shape.name(),
            record_bytes: work.payload_bytes(),
            pids: [source.pid, sum.pid],
            records_received: sum.records,
            warm_up_records: work.all() - sum.records,
            checksum: found.checksum,
            checksum_expected: expected.checksum,
            seconds: sum.seconds,
            records_per_second,
            bytes_per_second: records_per_second * work.payload_bytes() as f64,
            cpu_seconds: [source, sum].map(|side| (side.pid.to_string(), side.cpu_seconds)).into(),
            cpu_ns_per_record: cpu(source) + cpu(sum),
            settings,
        })
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            print_json(self);
            return;
        }
        let [source, sum] =
            self.pids.map(|pid| self.cpu_seconds.get(&pid.to_string()).copied().unwrap_or(0.0));
        let mut rows = vec![
            ("records", format!("{} after {} of warm-up", self.records_received, self.warm_up_records)),
            ("seconds", format!("{:.2}", self.seconds)),
            ("records/s", format!("{:.3} M", self.records_per_second / 1e6)),
            ("payload", format!("{:.3} GB/s", self.bytes_per_second / 1e9)),
            ("cpu seconds", format!("{source:.2} at the source and {sum:.2} at the sum")),
            ("cpu per record", format!("{:.1} ns", self.cpu_ns_per_record)),
        ];
        rows.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        rows.push(("checksum", "right".to_owned()));
        print_rows(&self.peer, &rows);
    }
}

/// Lines for people.
pub fn print_rows(title: &str, rows: &[(&str, String)]) {
    println!("{title:>24}");
    for (name, value) in rows {
        println!("{name:>24}  {value}");
    }
}

/// One line for programs.
pub fn print_json<T: Serialize>(value: &T) {
    match serde_json::to_string(value) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Shape;
    use crate::work::tests::work;

    #[test]
    fn what_is_wrong_is_an_error() {
        let work = work(Shape::Keyed, 1_000);
        let source = Side { pid: 1, records: 1_000, seconds: 1.0, cpu_seconds: 0.5, ..Side::default() };
        let right = Side { pid: 2, totals: work.expected(), ..source.clone() };
        let outcome = Outcome::checked("x", &work, [&source, &right], BTreeMap::new()).unwrap();
        assert_eq!((outcome.records_per_second, outcome.cpu_ns_per_record), (1_000.0, 1_000_000.0));
        let says = |sum: &Side| {
            Outcome::checked("x", &work, [&source, sum], BTreeMap::new()).unwrap_err().to_string()
        };
        let mut wrong = right.clone();
        wrong.totals.checksum += 1;
        assert!(says(&wrong).contains("the closed form"));
        wrong.totals.results -= 1;
        assert!(says(&wrong).contains("were summed, expected 1000"));
        assert!(says(&Side { pid: 1, ..right }).contains("between two processes"));
    }
}
