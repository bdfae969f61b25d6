//! The job that all faults are tried on: every record is accounted for, in the order in which it was made.
//!
//! Each subtask of its source is a partition that numbers its records. All records of a partition with the same key form a
//! chain: keyed state holds a hash over them, in order, and every record comes out with the hash that it brought the chain
//! to. So a row of the output is right only if no record before it was lost, doubled, changed or overtaken, in whatever
//! attempt. The chains and what follows are behind exchanges, and the sink is transactional.
//!
//! The source makes records at a steady rate until there is a file that lets it come to its end: a test lasts as long as its
//! faults. The binary that has the job is this test binary, run once more with a command line in its environment.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use tidegate::cli::App;
use tidegate::connect::{CsvRow, CsvSink};
use tidegate::record::Record;
use tidegate::stream::Collector;
use tidegate::stream::error::Fault;
use tidegate::stream::source::{Next, Pause, Source, SourceReader};
use tidegate::{Args, Job, JobResult, Jobs, MapFunction, SourceContext, TaskError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::support::cluster::LEDGER as LINE;
use crate::support::engine::applied;
use crate::support::output::{Expected, Table};

/// What is between the words of [`LINE`].
const SPACE: char = '\u{1f}';

/// Records of a second of a partition, until its end may come.
pub const RATE: u64 = 500;
/// How often the source looks whether its end may come, and makes what was due meanwhile.
const TURN_NS: u64 = 10_000_000;

/// What one run of the job makes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub partitions: u32,
    /// Records of each partition.
    pub records: u64,
    /// Chains of each partition.
    pub keys: u64,
    /// Longest payload.
    pub payload: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self { partitions: 4, records: 40_000, keys: 100, payload: 160 }
    }
}

pub fn binary(arguments: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "faults::ledger::the_binary_with_the_ledger", "--quiet", "--nocapture"]);
    command.env(LINE, applied(arguments).join(&SPACE.to_string()));
    command
}

#[test]
fn the_binary_with_the_ledger() {
    let Ok(line) = std::env::var(LINE) else { return };
    let words = std::iter::once("ledger").chain(line.split(SPACE)).map(OsString::from);
    std::process::exit(App::new(Jobs::new([("ledger", ledger)])).run_with(words) as i32);
}

#[derive(Record)]
pub struct Entry {
    partition: u32,
    sequence: u64,
    chain: u64,
    payload: String,
}

impl Entry {
    fn new(size: &Size, partition: u32, sequence: u64) -> Self {
        let random = mixed(partition, sequence);
        let chain = (u64::from(partition) << 32) | (random % size.keys);
        let length = (random >> 32) % (size.payload + 1);
        let letter = char::from(b'a' + (random >> 8) as u8 % 26);
        Self { partition, sequence, chain, payload: String::from(letter).repeat(length as usize) }
    }
}

/// Two numbers as one that looks like chance.
fn mixed(partition: u32, sequence: u64) -> u64 {
    xxh3_64_with_seed(&sequence.to_le_bytes(), u64::from(partition))
}

/// What a chain comes to with one record more.
fn link(chain: u64, sequence: u64, payload: &str) -> u64 {
    xxh3_64_with_seed(payload.as_bytes(), chain.rotate_left(7) ^ sequence)
}

fn ledger(job: &mut Job, args: &Args) -> JobResult {
    let size = Size {
        partitions: args.required("partitions")?,
        records: args.required("records")?,
        keys: args.required("keys")?,
        payload: args.required("payload")?,
    };
    let rate = args.or("rate", RATE)?;
    let until: String = args.required("until")?;
    let trouble = Trouble {
        kind: args.optional("trouble")?,
        mark: args.optional::<String>("mark")?.map(PathBuf::from),
        at: args.or("at", 0)?,
    };
    let sink = CsvSink::new(
        args.required::<String>("output")?,
        ["partition", "sequence", "chain"],
        |row: &[u64; 3], out: &mut CsvRow<'_>| {
            out.value(row[0]).value(row[1]).value(row[2]);
        },
    );
    job.source("partitions", Partitions { size, rate, until: until.into() })
        .key_by(|entry: &Entry| entry.chain)
        .process("chains", |_: &u64, entry, chain: &mut Option<u64>, out: &mut Collector<[u64; 3]>| {
            let sequence = entry.sequence.to_native();
            let now = link(chain.unwrap_or(0), sequence, entry.payload.as_str());
            *chain = Some(now);
            out.emit([u64::from(entry.partition.to_native()), sequence, now]);
        })
        .rebalance()
        .map_with("rows", trouble)
        .sink("out", sink);
    Ok(())
}

/// Copies rows; on its way it does once what functions of users do.
#[derive(Clone)]
struct Trouble {
    kind: Option<String>,
    /// A file that says that it has been done.
    mark: Option<PathBuf>,
    at: u64,
}

impl MapFunction<[u64; 3]> for Trouble {
    type Out = [u64; 3];

    fn map(&mut self, row: &[u64; 3]) -> Result<[u64; 3], TaskError> {
        let due = row[1] >= self.at && self.mark.take_if(|mark| File::create_new(mark).is_ok()).is_some();
        match self.kind.as_deref().filter(|_| due) {
            Some("panic") => panic!("it panics, as it was told to"),
            Some(_) => Err(TaskError::new(Fault::User, "it fails, as it was told to")),
            None => Ok(*row),
        }
    }
}

/// All rows of a run.
pub fn expected(size: &Size) -> Expected {
    let mut table = Table::new("partition,sequence,chain");
    for partition in 0..size.partitions {
        let mut chains = vec![0; size.keys as usize];
        for sequence in 0..size.records {
            let entry = Entry::new(size, partition, sequence);
            let chain = &mut chains[(entry.chain & u64::from(u32::MAX)) as usize];
            *chain = link(*chain, sequence, &entry.payload);
            table.add(format!("{partition},{sequence},{chain}"));
        }
    }
    Expected([(String::new(), table)].into())
}

#[derive(Clone)]
struct Partitions {
    size: Size,
    rate: u64,
    until: PathBuf,
}

/// One partition.
struct Reader {
    size: Size,
    rate: u64,
    until: PathBuf,
    partition: u32,
    next: u64,
    last: Option<Entry>,
    /// When this attempt began, and with which record.
    began: Option<(u64, u64)>,
    /// Records that may be made before the next look at the clock.
    due: u64,
    free: bool,
}

impl Source for Partitions {
    type Item = Entry;
    type Reader = Reader;

    fn open(&self, context: &SourceContext<'_>) -> Result<Reader, TaskError> {
        let position = context.positions.first().map(|bytes| bytes.as_slice().try_into());
        let next = match position.transpose() {
            Ok(bytes) => bytes.map_or(0, u64::from_le_bytes),
            Err(_) => return Err(TaskError::new(Fault::State, "a position has 8 bytes")),
        };
        let (partition, until) = (context.runtime.subtask, self.until.clone());
        let (size, rate) = (self.size, self.rate);
        Ok(Reader { size, rate, until, partition, next, last: None, began: None, due: 0, free: false })
    }
}

impl SourceReader for Reader {
    type Item = Entry;

    fn next(&mut self, now_ns: u64) -> Result<Next<'_, Entry>, TaskError> {
        if self.next >= self.size.records {
            return Ok(Next::End);
        }
        if !self.free && self.due == 0 {
            let (start, first) = *self.began.get_or_insert((now_ns, self.next));
            let by_now = first + (now_ns - start) / 1_000_000 * self.rate / 1_000;
            self.free = self.until.exists();
            self.due = by_now.saturating_sub(self.next);
            if !self.free && self.due == 0 {
                return Ok(Next::Wait(Pause::Until(now_ns + TURN_NS)));
            }
        }
        self.due = self.due.saturating_sub(1);
        let entry = Entry::new(&self.size, self.partition, self.next);
        self.next += 1;
        Ok(Next::Item(self.last.insert(entry)))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend(self.next.to_le_bytes());
        Ok(())
    }
}
