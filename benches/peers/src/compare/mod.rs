//! `compare`: Tidegate and its peers in turns, one table per kind of work, and everything as JSON for Tidegate's report.
//!
//! Always: a round has one run of each, one after the other, and ratios are Tidegate's by the peer's of the same round. A peer
//! that fails is left out and named, and the comparison ends as an error after the others are done; without Tidegate there is
//! nothing to compare.

mod late;
mod moved;
mod tidegate;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use serde::Serialize;

use crate::flink;
use crate::outcome::print_json;
use crate::socket;
use crate::stats::{median, range};
use crate::work::two_cores;
use tidegate::Tidegate;

/// Who is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Timely dataflow, with columns and with vectors
    Timely,
    /// A gRPC stream, batched, and of a message each
    Tonic,
    /// An Arrow Flight stream
    Flight,
    /// Apache Flink
    Flink,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Pairs of (u64, u64), summed by key
    Keyed,
    /// Records of 100 bytes
    #[value(name = "bytes-100")]
    Bytes100,
    /// Records of 16,000 bytes
    #[value(name = "bytes-16000")]
    Bytes16000,
    /// How late records come at given rates, of Tidegate and Flink
    Latency,
}

/// Flags of `compare`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The program tidegate-benches, built for release; unless said, where cargo leaves it
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,
    /// Who is compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Who::Timely, Who::Tonic, Who::Flight, Who::Flink])]
    peers: Vec<Who>,
    /// What is compared
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Keyed, What::Bytes100, What::Bytes16000, What::Latency])]
    what: Vec<What>,
    /// How often each runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// How long a run is to take, about
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rates at which latency is measured, records per second
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000], value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rates: Vec<u64>,
    /// Flink's buffer timeouts there, milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 100], value_parser = clap::value_parser!(u32).range(0..=60_000))]
    buffer_timeouts: Vec<u32>,
    /// Keys of the shape keyed
    #[arg(long, value_name = "K", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    keys: u64,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    cores: [usize; 2],
    /// Congestion control of the sockets that this program opens, or "system"
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    congestion: String,
    #[command(flatten)]
    flink: flink::Place,
    /// Seconds after which a single run is given up
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    time_out: u64,
    /// Where everything goes as JSON, for `tidegate-benches report --peers FILE`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The same on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    pairs: u32,
    seconds: u64,
    cores: [usize; 2],
    /// Of sockets that nobody sets: Tidegate's and Flink's.
    system_congestion: String,
    moved: Vec<moved::Section>,
    late: Vec<late::Section>,
    failed: Vec<Failed>,
    /// The tables and how everyone was set up, as Markdown: what Tidegate's report takes over.
    page: String,
}

/// A peer that was left out.
#[derive(Debug, Clone, Serialize)]
struct Failed {
    name: String,
    section: String,
    error: String,
}

/// Compares, prints the tables, and leaves the JSON.
///
/// # Errors
/// Tidegate failed, or a peer did.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let tidegate = Tidegate::find(options.tidegate.as_deref(), Duration::from_secs(options.time_out))?;
    let mut report = Report {
        pairs: options.pairs,
        seconds: options.seconds,
        cores: options.cores,
        system_congestion: socket::system_congestion(),
        moved: Vec::new(),
        late: Vec::new(),
        failed: Vec::new(),
        page: String::new(),
    };
    for &what in &options.what {
        match what {
            What::Latency => {
                for &rate in &options.rates {
                    let section = late::section(options, &tidegate, rate, &mut report.failed)?;
                    report.add(&section.to_string());
                    report.late.push(section);
                }
            }
            _ => {
                let section = moved::section(options, &tidegate, what, &mut report.failed)?;
                report.add(&section.to_string());
                report.moved.push(section);
            }
        }
        // After each section, so that what was found stays if the next one fails.
        if let Some(path) = &options.out {
            std::fs::write(path, serde_json::to_vec(&report)?)
                .map_err(|error| format!("can't write {}: {error}", path.display()))?;
        }
    }
    if options.json {
        print_json(&report);
    }
    match report.failed.first() {
        None => Ok(()),
        Some(Failed { name, section, error }) => {
            Err(format!("{} left out; the first was {name} ({section}): {error}", report.failed.len()).into())
        }
    }
}

impl Report {
    /// Prints a section, and adds it to the page.
    fn add(&mut self, section: &str) {
        println!("{section}");
        self.page.push_str(section);
        self.page.push('\n');
    }
}

/// The settings of a peer as they are unless told otherwise: those it was tuned to.
fn tuned<T: Args>() -> T {
    #[derive(Parser)]
    struct Defaults<T: Args> {
        #[command(flatten)]
        of: T,
    }
    Defaults::<T>::parse_from(["defaults"]).of
}

/// One who runs in turns with others.
struct Contender<'a, W, S> {
    name: String,
    /// How much it is given.
    work: W,
    run: Box<Runs<'a, W, S>>,
}

/// Runs some work once.
type Runs<'a, W, S> = dyn Fn(&W) -> Result<Ran<S>, Box<dyn Error>> + 'a;

/// A sample, and how whoever gave it was set up.
type Ran<S> = (S, BTreeMap<String, String>);

/// All samples of one, and how it was set up.
struct Series<S> {
    name: String,
    settings: BTreeMap<String, String>,
    samples: Vec<S>,
}

/// Runs all in turns. The first is Tidegate.
fn interleave<W, S>(
    pairs: u32,
    title: &str,
    mut contenders: Vec<Contender<'_, W, S>>,
    failed: &mut Vec<Failed>,
    says: fn(&S) -> String,
) -> Result<Vec<Series<S>>, Box<dyn Error>> {
    let mut all: Vec<Series<S>> = contenders
        .iter()
        .map(|one| Series { name: one.name.clone(), settings: BTreeMap::new(), samples: Vec::new() })
        .collect();
    for round in 1..=pairs {
        let mut at = 0;
        while let Some(one) = contenders.get(at) {
            match (one.run)(&one.work) {
                Ok((sample, settings)) => {
                    eprintln!("round {round} of {pairs}: {}: {}", one.name, says(&sample));
                    all[at].samples.push(sample);
                    all[at].settings = settings;
                    at += 1;
                }
                Err(error) if at == 0 => return Err(format!("{}, {title}: {error}", one.name).into()),
                Err(error) => {
                    left_out(&one.name, title, error.as_ref(), failed);
                    contenders.remove(at);
                    all.remove(at);
                }
            }
        }
    }
    Ok(all)
}

fn left_out(name: &str, section: &str, error: &dyn Error, failed: &mut Vec<Failed>) {
    eprintln!("{name} is left out: {error}");
    failed.push(Failed { name: name.to_owned(), section: section.to_owned(), error: error.to_string() });
}

/// Median, least, greatest.
fn spread(samples: &[f64]) -> [f64; 3] {
    let (least, most) = range(samples).unwrap_or((f64::NAN, f64::NAN));
    [median(samples).unwrap_or(f64::NAN), least, most]
}

/// The settings of all, as a list for people.
fn settings<'a>(all: impl Iterator<Item = (&'a str, &'a BTreeMap<String, String>)>) -> String {
    let line = |(name, settings): (&str, &BTreeMap<String, String>)| {
        let words: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        format!("- {name}: {}\n", words.join("; "))
    };
    all.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer;

    fn contender(
        name: &str,
        run: impl Fn(&u32) -> Result<Ran<f64>, Box<dyn Error>> + 'static,
    ) -> Contender<'static, u32, f64> {
        Contender { name: name.to_owned(), work: 1, run: Box::new(run) }
    }

    #[test]
    fn one_that_fails_is_left_out_and_named() {
        let good = contender("good", |_| Ok((1.0, BTreeMap::new())));
        let bad = contender("bad", |_| Err("no luck".into()));
        let last = contender("last", |_| Ok((2.0, BTreeMap::new())));
        let mut failed = Vec::new();
        let all = interleave(2, "t", vec![good, bad, last], &mut failed, f64::to_string).unwrap();
        let names: Vec<(&str, usize)> =
            all.iter().map(|one| (one.name.as_str(), one.samples.len())).collect();
        assert_eq!(names, [("good", 2), ("last", 2)]);
        assert_eq!((failed.len(), failed[0].name.as_str(), failed[0].error.as_str()), (1, "bad", "no luck"));
    }

    #[test]
    fn without_the_first_there_is_nothing_to_compare() {
        let bad = contender("tidegate", |_| Err("no luck".into()));
        let error = interleave(2, "t", vec![bad], &mut Vec::new(), f64::to_string).err().unwrap();
        assert_eq!(error.to_string(), "tidegate, t: no luck");
    }

    #[test]
    fn settings_that_are_not_given_are_the_tuned_ones() {
        assert_eq!(tuned::<peer::tonic::Tuning>().batch_bytes, 32 << 10);
        assert_eq!(tuned::<flink::Tuning>().buffer_timeout, 100);
    }
}
