//! The ledger: a job whose output says of every record what became of it, and the reference to hold it against.
//!
//! Record i belongs to source partition i mod p and is number i / p there. A key belongs to one partition, so a fold that
//! depends on order has one right result. Every edge of the runtime is in the job: key groups, rebalance, broadcast, a
//! partitioner of its own, a union, and two shuffles in a row. Always: the reference is a plain loop that shares no code with
//! the job but the record itself.

use std::collections::BTreeMap;

use tidegate_stream::source::{Next, Pause, SourceContext};
use tidegate_stream::testing::{Manager, collect};
use tidegate_stream::{AggregateFunction, Args, Fault, Job, JobResult, Source, SourceReader, TaskError};
use xxhash_rust::xxh3::xxh3_64;

/// Keys of one partition.
const KEYS: u64 = 16;
/// Payloads are up to this long: now and then one fills a good part of a small segment.
const PAYLOAD_MAX: u64 = 900;

/// A source pauses before one record in so many, for up to so long.
const PAUSE_EVERY: u64 = 64;
const PAUSE_NS_MAX: u64 = 2_000_000;
/// Keeps the choice of pauses apart from that of keys.
const PAUSES: u64 = 0x5061_7573;

/// Partition, number in it, key.
pub type Entry = [u64; 3];
/// An entry, how many of its key there were up to it, and the fold over them.
pub type Counted = [u64; 5];

fn entry(index: u64, partitions: u64) -> Entry {
    let (partition, number) = (index % partitions, index / partitions);
    [partition, number, partition * KEYS + xxh3_64(&index.to_le_bytes()) % KEYS]
}

fn fold(hash: u64, entry: &Entry) -> u64 {
    (hash.rotate_left(7) ^ entry[1]).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(entry[0])
}

/// Text from which the entry can be told, and which is wrong if a byte of it is.
fn payload(entry: &Entry) -> String {
    let hash = xxh3_64(&entry[1].to_le_bytes()) ^ entry[0];
    // Most are short; one in sixteen may be long.
    let len = if hash.is_multiple_of(16) { hash / 16 % PAYLOAD_MAX } else { hash / 16 % 32 };
    let letters = (0..len).map(|at| char::from(b'a' + ((hash >> (at % 57)) % 26) as u8));
    format!("{}:{}:{}", entry[0], entry[1], letters.collect::<String>())
}

/// The entry of a payload, if every byte of it is right.
fn read(text: &str) -> Option<[u64; 2]> {
    let mut words = text.splitn(3, ':');
    let (partition, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (payload(&[partition, number, 0]) == text).then_some([partition, number])
}

/// What stands in the output for a payload that arrived damaged.
const DAMAGED: [u64; 2] = [u64::MAX; 2];

/// Yields the numbers of its partition, and pauses now and then, so that everything behind it runs dry.
#[derive(Clone)]
struct Numbers {
    records: u64,
}

struct NumbersReader {
    next: u64,
    stride: u64,
    records: u64,
    item: u64,
    paused: bool,
}

impl Source for Numbers {
    type Item = u64;
    type Reader = NumbersReader;

    fn open(&self, context: &SourceContext<'_>) -> Result<NumbersReader, TaskError> {
        let position = |bytes: &Vec<u8>| bytes.as_slice().try_into().map(u64::from_le_bytes);
        let next = match context.positions.first().map(position) {
            None => u64::from(context.runtime.subtask),
            Some(Ok(next)) => next,
            Some(Err(_)) => return Err(TaskError::new(Fault::State, "a position has eight bytes")),
        };
        let stride = u64::from(context.runtime.parallelism);
        Ok(NumbersReader { next, stride, records: self.records, item: 0, paused: false })
    }
}

impl SourceReader for NumbersReader {
    type Item = u64;

    fn next(&mut self, now_ns: u64) -> Result<Next<'_, u64>, TaskError> {
        if self.next >= self.records {
            return Ok(Next::End);
        }
        let hash = xxh3_64(&(self.next ^ PAUSES).to_le_bytes());
        if hash.is_multiple_of(PAUSE_EVERY) && !std::mem::replace(&mut self.paused, true) {
            return Ok(Next::Wait(Pause::Until(now_ns + hash % PAUSE_NS_MAX)));
        }
        self.paused = false;
        self.item = self.next;
        self.next += self.stride;
        Ok(Next::Item(&self.item))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.next.to_le_bytes());
        Ok(())
    }
}

/// Count and fold of a key, said once at the end: what a task still holds when its input is over.
#[derive(Clone)]
struct Total;

impl AggregateFunction<u64, Entry> for Total {
    type State = [u64; 2];
    type Out = [u64; 3];

    fn create(&mut self, _key: &u64) -> [u64; 2] {
        [0; 2]
    }

    fn add(&mut self, total: &mut [u64; 2], entry: &Entry) {
        *total = [total[0] + 1, fold(total[1], entry)];
    }

    fn result(&mut self, key: &u64, total: [u64; 2]) -> Result<[u64; 3], TaskError> {
        Ok([*key, total[0], total[1]])
    }
}

/// The job. Arguments: `--records N`, `--partitions P`.
pub fn ledger(job: &mut Job, args: &Args) -> JobResult {
    let (records, partitions): (u64, u64) = (args.required("records")?, args.required("partitions")?);
    let entries =
        job.source("source", Numbers { records }).map("entry", move |index| entry(*index, partitions)).fork();
    entries
        .branch()
        .key_by(|entry| entry[2])
        .process("count", |_: &u64, entry, state: &mut Option<[u64; 2]>, out| {
            let [count, hash] = state.unwrap_or_default();
            let state = state.insert([count + 1, fold(hash, entry)]);
            out.emit([entry[0], entry[1], entry[2], state[0], state[1]]);
        })
        .sink("counted", collect("counted"));
    entries.branch().key_by(|entry| entry[2]).aggregate("total", Total).sink("totals", collect("totals"));
    entries
        .branch()
        .map("payload", payload)
        .rebalance()
        .map("read", |text| read(text.as_ref()).unwrap_or(DAMAGED))
        .key_by(|seen| seen[0])
        .process("again", |_: &u64, seen, _: &mut Option<u64>, out| out.emit(*seen))
        .sink("shuffled", collect("shuffled"));
    entries
        .branch()
        .broadcast()
        .map("copy", |entry| [entry[0], entry[1]])
        .sink("everywhere", collect("everywhere"));
    let custom = entries
        .branch()
        .partition_custom(|entry, channels| (entry[1] % u64::from(channels)) as u32)
        .map("picked", |entry| [entry[0], entry[1]]);
    entries
        .branch()
        .rebalance()
        .map("spread", |entry| [entry[0], entry[1]])
        .union("both", custom)
        .sink("joined", collect("joined"));
    Ok(())
}

/// What the committed output must be in the end.
pub struct Reference {
    counted: Vec<Counted>,
    totals: Vec<[u64; 3]>,
    parallelism: usize,
}

impl Reference {
    /// The output of `records` records from `partitions` partitions at this parallelism.
    pub fn new(records: u64, partitions: u64, parallelism: u32) -> Self {
        let mut states: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        let mut counted: Vec<Counted> = (0..records)
            .map(|index| {
                let entry = entry(index, partitions);
                let state = states.entry(entry[2]).or_default();
                *state = [state[0] + 1, fold(state[1], &entry)];
                [entry[0], entry[1], entry[2], state[0], state[1]]
            })
            .collect();
        counted.sort_unstable();
        let totals = states.into_iter().map(|(key, [count, hash])| [key, count, hash]).collect();
        Self { counted, totals, parallelism: parallelism as usize }
    }

    /// Whether what is visible now is a part of it, each row at most as often as it may be.
    ///
    /// # Errors
    /// The first row that is wrong, or there too often.
    pub fn check_part(&self, manager: &Manager) -> Result<u64, String> {
        self.check(manager, false)
    }

    /// Whether what is visible now is all of it.
    ///
    /// # Errors
    /// The first row that is wrong, missing, or there too often.
    pub fn check_whole(&self, manager: &Manager) -> Result<u64, String> {
        self.check(manager, true)
    }

    fn check(&self, manager: &Manager, whole: bool) -> Result<u64, String> {
        let counted: Vec<Counted> = manager.collected("counted");
        let mut rows = counted.len();
        let expected: BTreeMap<Counted, usize> = self.counted.iter().map(|row| (*row, 1)).collect();
        compare("counted", counted, &expected, whole)?;
        let totals: Vec<[u64; 3]> = manager.collected("totals");
        rows += totals.len();
        compare("totals", totals, &self.totals.iter().map(|row| (*row, 1)).collect(), whole)?;
        for (name, times) in [("shuffled", 1), ("everywhere", self.parallelism), ("joined", 2)] {
            let seen: Vec<[u64; 2]> = manager.collected(name);
            rows += seen.len();
            let expected = self.counted.iter().map(|row| ([row[0], row[1]], times)).collect();
            compare(name, seen, &expected, whole)?;
        }
        Ok(rows as u64)
    }
}

fn compare<T: Ord + Copy + std::fmt::Debug>(
    name: &str,
    seen: Vec<T>,
    expected: &BTreeMap<T, usize>,
    whole: bool,
) -> Result<(), String> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for row in seen {
        *counts.entry(row).or_default() += 1;
    }
    for (row, times) in &counts {
        match expected.get(row) {
            None => return Err(format!("{name}: row {row:?} is in no right output")),
            Some(most) if times > most => {
                return Err(format!("{name}: row {row:?} is there {times} times, {most} would be right"));
            }
            Some(_) => {}
        }
    }
    let missing = expected.iter().find(|(row, times)| counts.get(row).copied().unwrap_or(0) < **times);
    match missing.filter(|_| whole) {
        None => Ok(()),
        Some((row, times)) => Err(format!(
            "{name}: row {row:?} is there {} times, {times} would be right",
            counts.get(row).copied().unwrap_or(0)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_with_a_wrong_byte_is_found() {
        let entry = entry(77, 3);
        let text = payload(&entry);
        assert_eq!(read(&text), Some([entry[0], entry[1]]));
        assert_eq!(read(&text.replacen(':', ";", 1)), None);
        assert_eq!(read(&format!("{text}x")), None);
    }

    #[test]
    fn the_comparison_sees_what_it_must() {
        let expected: BTreeMap<u64, usize> = [(1, 1), (2, 2)].into();
        assert!(compare("x", vec![1, 2, 2], &expected, true).is_ok());
        assert!(compare("x", vec![2], &expected, false).is_ok());
        for (seen, whole) in
            [(vec![1, 2], true), (vec![1, 1], false), (vec![3], false), (vec![2, 2, 2], false)]
        {
            assert!(compare("x", seen.clone(), &expected, whole).is_err(), "{seen:?}");
        }
    }
}
