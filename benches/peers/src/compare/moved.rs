//! Throughput: how many records of one kind of work each moves.
//!
//! Always: each is given as many records as it moves in the time asked for, which a first, short run tells; warm-ups are counted
//! by the system itself (Flink's is twice the measured time, for Java compiles while it runs).

use std::fmt;

use serde::Serialize;

use super::{
    Contender, Failed, Options, Ran, Series, What, Who, interleave, left_out, settings, spread, tuned,
};
use crate::compare::tidegate::Tidegate;
use crate::outcome::Outcome;
use crate::peer::{self, Peer};
use crate::table::Table;
use crate::work::{Shape, Work};

/// Payload bytes of the first run, from which the length of the others is chosen.
const BYTES_FIRST: u64 = 64_000_000;
/// By how much a run is planned longer than asked for, since the first run may have been slow.
const MARGIN: f64 = 1.2;
/// Records from this length on are a message each in tonic, for few would fit a batch.
const BATCH_RECORD_MAX: u64 = 8_000;

/// What of a run is compared.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    pub records_per_second: f64,
    /// Of payload: what is around it does not count.
    pub bytes_per_second: f64,
    /// Processor time of the processes that move the records, nanoseconds.
    pub cpu_ns_per_record: f64,
}

impl Sample {
    fn of(outcome: &Outcome) -> Self {
        Self {
            records_per_second: outcome.records_per_second,
            bytes_per_second: outcome.bytes_per_second,
            cpu_ns_per_record: outcome.cpu_ns_per_record,
        }
    }
}

/// One kind of work. The first line is Tidegate's.
#[derive(Debug, Serialize)]
pub struct Section {
    pub title: String,
    pub lines: Vec<Line>,
}

/// One of those who did it.
#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub settings: std::collections::BTreeMap<String, String>,
    pub samples: Vec<Sample>,
    /// Median, least and greatest records per second.
    pub records_per_second: [f64; 3],
    /// Medians.
    pub bytes_per_second: f64,
    pub cpu_ns_per_record: f64,
    /// Tidegate's records per second by this one's, of the same round: median, least, greatest.
    pub ratio: [f64; 3],
    /// This one's processor time per record by Tidegate's: median, least, greatest.
    pub cpu_ratio: [f64; 3],
}

type One<'a> = Contender<'a, Work, Sample>;

/// Compares them at it.
///
/// # Errors
/// Tidegate failed.
pub fn section(
    options: &Options,
    tidegate: &Tidegate,
    what: What,
    failed: &mut Vec<Failed>,
) -> Result<Section, Box<dyn std::error::Error>> {
    let work = work(options, what);
    let title = work.title();
    eprintln!("{title}");
    let first = Contender {
        name: "tidegate".to_owned(),
        work: work.clone(),
        run: Box::new(|work: &Work| tidegate.shuffle(work)),
    };
    let mut contenders = vec![first];
    contenders.extend(options.peers.iter().flat_map(|who| peers(*who, options, &work)));
    // The first run of each says how many records it is given.
    let mut ready = Vec::new();
    for mut one in contenders {
        match (one.run)(&one.work) {
            Ok((sample, _)) => {
                let records = |seconds: f64| (sample.records_per_second * seconds).max(1.0) as u64;
                one.work.records = Some(records(options.seconds as f64 * MARGIN));
                one.work.warm_up = one.work.warm_up.map(|_| records(options.seconds as f64 * 2.0));
                ready.push(one);
            }
            Err(error) if ready.is_empty() => return Err(error),
            Err(error) => left_out(&one.name, &title, error.as_ref(), failed),
        }
    }
    let says = |sample: &Sample| format!("{:.3} M records/s", sample.records_per_second / 1e6);
    let all = interleave(options.pairs, &title, ready, failed, says)?;
    Ok(Section { title, lines: lines(&all) })
}

fn work(options: &Options, what: What) -> Work {
    let (shape, record_bytes) = match what {
        What::Bytes100 => (Shape::Bytes, 100),
        What::Bytes16000 => (Shape::Bytes, 16_000),
        What::Keyed | What::Latency => (Shape::Keyed, 100),
    };
    let mut work = Work {
        shape,
        records: None,
        warm_up: None,
        keys: options.keys,
        record_bytes,
        cores: options.cores,
        congestion: options.congestion.clone(),
        time_out: options.time_out,
    };
    work.records = Some(BYTES_FIRST / work.payload_bytes());
    work
}

fn peers<'a>(who: Who, options: &'a Options, work: &Work) -> Vec<One<'a>> {
    let library = |peer: Peer| Contender {
        name: peer.name(),
        work: work.clone(),
        run: Box::new(move |work: &Work| Ok(ran(peer.measure(work)?))),
    };
    match who {
        Who::Timely => {
            let columns: peer::timely::Tuning = tuned();
            let vectors = peer::timely::Tuning { container: peer::timely::Container::Vec, ..columns.clone() };
            vec![library(Peer::Timely(columns)), library(Peer::Timely(vectors))]
        }
        Who::Flight => vec![library(Peer::Flight(tuned()))],
        Who::Tonic => {
            let batched: peer::tonic::Tuning = tuned();
            let each = peer::tonic::Tuning { batch_bytes: 0, ..batched.clone() };
            match (work.shape, work.record_bytes) {
                (Shape::Keyed, _) => vec![library(Peer::Tonic(batched))],
                (Shape::Bytes, BATCH_RECORD_MAX..) => vec![library(Peer::Tonic(each))],
                (Shape::Bytes, _) => vec![library(Peer::Tonic(batched)), library(Peer::Tonic(each))],
            }
        }
        Who::Flink => {
            let tuning = crate::flink::Tuning { place: options.flink.clone(), ..tuned() };
            let work = Work { warm_up: work.records, ..work.clone() };
            let run = Box::new(move |work: &Work| Ok(ran(tuning.measure(work)?)));
            vec![Contender { name: "flink".to_owned(), work, run }]
        }
    }
}

fn ran(outcome: Outcome) -> Ran<Sample> {
    (Sample::of(&outcome), outcome.settings)
}

fn lines(all: &[Series<Sample>]) -> Vec<Line> {
    let tidegate = all.first().map(|series| series.samples.as_slice()).unwrap_or_default();
    let line = |series: &Series<Sample>| {
        let of = |pick: fn(&Sample) -> f64| spread(&series.samples.iter().map(pick).collect::<Vec<f64>>());
        let by = |pick: fn(&Sample, &Sample) -> f64| {
            spread(
                &series
                    .samples
                    .iter()
                    .zip(tidegate)
                    .map(|(own, tidegate)| pick(own, tidegate))
                    .collect::<Vec<f64>>(),
            )
        };
        Line {
            name: series.name.clone(),
            settings: series.settings.clone(),
            samples: series.samples.clone(),
            records_per_second: of(|sample| sample.records_per_second),
            bytes_per_second: of(|sample| sample.bytes_per_second)[0],
            cpu_ns_per_record: of(|sample| sample.cpu_ns_per_record)[0],
            ratio: by(|own, tidegate| tidegate.records_per_second / own.records_per_second),
            cpu_ratio: by(|own, tidegate| own.cpu_ns_per_record / tidegate.cpu_ns_per_record),
        }
    };
    all.iter().map(line).collect()
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "system",
            "M records/s",
            "spread",
            "payload GB/s",
            "CPU ns/record",
            "Tidegate is faster by",
            "spread",
            "and needs less CPU by",
        ]);
        for line in &self.lines {
            let [rate, least, most] = line.records_per_second.map(|rate| rate / 1e6);
            let [ratio, ratio_least, ratio_most] = line.ratio;
            table.row([
                line.name.clone(),
                format!("{rate:.3}"),
                format!("{least:.3} to {most:.3}"),
                format!("{:.3}", line.bytes_per_second / 1e9),
                format!("{:.1}", line.cpu_ns_per_record),
                format!("{ratio:.2}"),
                format!("{ratio_least:.2} to {ratio_most:.2}"),
                format!("{:.2}", line.cpu_ratio[0]),
            ]);
        }
        writeln!(f, "### {}\n\n{table}", self.title)?;
        write!(f, "{}", settings(self.lines.iter().map(|line| (line.name.as_str(), &line.settings))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn series(name: &str, rates: [f64; 3]) -> Series<Sample> {
        let sample = |rate: f64| Sample {
            records_per_second: rate,
            bytes_per_second: 16.0 * rate,
            cpu_ns_per_record: 1e3 / rate,
        };
        Series { name: name.to_owned(), settings: BTreeMap::new(), samples: rates.map(sample).to_vec() }
    }

    #[test]
    fn ratios_are_tidegates_by_the_peers_of_the_same_round() {
        let lines = lines(&[series("tidegate", [10.0, 20.0, 40.0]), series("peer", [5.0, 4.0, 20.0])]);
        assert_eq!(lines[0].ratio, [1.0; 3]);
        assert_eq!(lines[1].ratio, [2.0, 2.0, 5.0]);
        assert_eq!(lines[1].cpu_ratio, [2.0, 2.0, 5.0]);
        let text = Section { title: "T".to_owned(), lines }.to_string();
        assert!(text.contains("| peer ") && text.contains("2.00 to 5.00"), "{text}");
    }
}
