//! The ledger: a job whose output says of every record what became of it, and the reference to hold it against.
//!
//! Record i belongs to source partition i mod p and is number i / p there. A key belongs to one partition, so a fold that
//! depends on order has one right result. Every edge of the runtime is in the job: key groups, rebalance, broadcast, a
//! partitioner of its own, a union, and two shuffles in a row. Always: the reference is a plain loop that shares no code with
//! the job but the record itself.

use std::collections::BTreeMap;

use tidegate_checkpoint::Metadata;
use tidegate_graph::PENDING;
use tidegate_record::{Field, from_snapshot};
use tidegate_stream::source::{Next, Pause, SourceContext};
use tidegate_stream::testing::collect;
use tidegate_stream::{AggregateFunction, Args, Fault, Job, JobResult, Source, SourceReader, TaskError};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;

/// Keys of one partition.
const KEYS: u64 = 16;
/// Payloads are up to this long: now and then one fills a good part of a small segment,
const PAYLOAD_MAX: u64 = 900;
/// and now and then one takes several, so that it travels in slices.
const LARGE_MAX: u64 = 18_000;

/// A source pauses before one record in so many, for up to so long.
const PAUSE_EVERY: u64 = 10;
const PAUSE_NS_MAX: u64 = 12_000_000;
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
    // Most are short; one in sixteen may be long, one in 128 larger than a segment.
    let most = match hash {
        _ if hash.is_multiple_of(128) => LARGE_MAX,
        _ if hash.is_multiple_of(16) => PAYLOAD_MAX,
        _ => 32,
    };
    let len = hash / 128 % most;
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
        .sink("counted", collect("/out/counted"));
    entries
        .branch()
        .key_by(|entry| entry[2])
        .aggregate("total", Total)
        .sink("totals", collect("/out/totals"));
    entries
        .branch()
        .map("payload", payload)
        .rebalance()
        .map("read", |text| read(text.as_ref()).unwrap_or(DAMAGED))
        .key_by(|seen| seen[0])
        .process("again", |_: &u64, seen, _: &mut Option<u64>, out| out.emit(*seen))
        .sink("shuffled", collect("/out/shuffled"));
    entries
        .branch()
        .broadcast()
        .map("copy", |entry| [entry[0], entry[1]])
        .sink("everywhere", collect("/out/everywhere"));
    let custom = entries
        .branch()
        .partition_custom(|entry, channels| (entry[1] % u64::from(channels)) as u32)
        .map("picked", |entry| [entry[0], entry[1]]);
    entries
        .branch()
        .rebalance()
        .map("spread", |entry| [entry[0], entry[1]])
        .union("both", custom)
        .sink("joined", collect("/out/joined"));
    Ok(())
}

/// Where the sinks write.
pub const OUT: &str = "/out";

/// What the committed output must be.
pub struct Reference {
    /// By index.
    counted: Vec<Counted>,
    totals: BTreeMap<u64, [u64; 3]>,
    partitions: u64,
    parallelism: u32,
}

/// How much of the output must be visible.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Any part of it.
    Part,
    /// What the sources had given at this checkpoint: their positions, by partition.
    At(Vec<u64>),
    /// All.
    Whole,
}

impl Expected {
    /// What a checkpoint says.
    pub fn of(metadata: &Metadata) -> Self {
        let source = metadata.operators.iter().find(|operator| operator.name == "source");
        let id = source.map(|source| source.operator);
        let mut positions: Vec<(u32, u64)> = Vec::new();
        for task in &metadata.tasks {
            let part = task.operators.iter().find(|part| Some(part.operator) == id);
            let bytes = part.and_then(|part| part.inline.as_slice().try_into().ok());
            positions.extend(bytes.map(|bytes| (task.task.subtask, u64::from_le_bytes(bytes))));
        }
        positions.sort_unstable();
        Expected::At(positions.into_iter().map(|(_, position)| position).collect())
    }
}

impl Reference {
    /// The output of `records` records from `partitions` partitions at this parallelism.
    pub fn new(records: u64, partitions: u64, parallelism: u32) -> Self {
        let mut states: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        let counted = (0..records).map(|index| {
            let entry = entry(index, partitions);
            let state = states.entry(entry[2]).or_default();
            *state = [state[0] + 1, fold(state[1], &entry)];
            [entry[0], entry[1], entry[2], state[0], state[1]]
        });
        let counted = counted.collect();
        let totals = states.into_iter().map(|(key, [count, hash])| (key, [key, count, hash])).collect();
        Self { counted, totals, partitions, parallelism }
    }

    /// Compares what is visible; gives the number of rows.
    ///
    /// # Errors
    /// The first row that is wrong, missing, or there too often.
    pub fn check(&self, disk: &Disk, expected: &Expected) -> Result<u64, String> {
        let mut rows = 0;
        rows += self.check_rows(disk, "counted", 1, expected, |row: &Counted, all| all == row)?;
        for (name, times) in [("shuffled", 1), ("everywhere", self.parallelism), ("joined", 2)] {
            rows += self.check_rows(disk, name, times, expected, |row: &[u64; 2], all| all[..2] == *row)?;
        }
        let mut totals = self.totals.clone();
        for row in visible::<[u64; 3]>(disk, "totals")? {
            rows += 1;
            if totals.remove(&row[0]) != Some(row) {
                return Err(format!("totals: row {row:?} is wrong, or there twice"));
            }
        }
        match totals.first_key_value().filter(|_| matches!(expected, Expected::Whole)) {
            None => Ok(rows),
            Some((_, row)) => Err(format!("totals: row {row:?} is missing")),
        }
    }

    fn check_rows<T: Field + AsRef<[u64]> + std::fmt::Debug>(
        &self,
        disk: &Disk,
        name: &str,
        times: u32,
        expected: &Expected,
        same: impl Fn(&T, &Counted) -> bool,
    ) -> Result<u64, String> {
        let mut counts = vec![0; self.counted.len()];
        let rows = visible::<T>(disk, name)?;
        for row in &rows {
            let [partition, number, ..] = row.as_ref() else {
                return Err(format!("{name}: a row is too short"));
            };
            let index = number.checked_mul(self.partitions).and_then(|first| first.checked_add(*partition));
            let index = index.and_then(|index| usize::try_from(index).ok()).filter(|at| *at < counts.len());
            match index.filter(|at| same(row, &self.counted[*at])) {
                Some(at) => counts[at] += 1,
                None => return Err(format!("{name}: row {row:?} is in no right output")),
            }
        }
        for (all, count) in self.counted.iter().zip(counts) {
            let wanted = match expected {
                Expected::Part if count <= times => continue,
                Expected::Part | Expected::Whole => times,
                Expected::At(positions) => {
                    let position = positions.get(all[0] as usize).copied().unwrap_or(0);
                    if all[1] * self.partitions + all[0] < position { times } else { 0 }
                }
            };
            if count != wanted {
                return Err(format!(
                    "{name}: row {:?} is there {count} times, {wanted} would be right",
                    &all[..2]
                ));
            }
        }
        Ok(rows.len() as u64)
    }
}

/// What a sink has made visible: by subtask, in order.
fn visible<T: Field>(disk: &Disk, name: &str) -> Result<Vec<T>, String> {
    let folder = format!("{OUT}/{name}");
    let mut rows = Vec::new();
    for path in disk.below(&folder).iter().filter(|path| !path.contains(PENDING)) {
        let bytes = disk.read(path).unwrap_or_default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (row, used) = from_snapshot::<T>(rest).map_err(|error| format!("{path}: {error}"))?;
            rows.push(row);
            rest = &rest[used..];
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_checkpoint::local::FileSystem as _;
    use tidegate_record::to_snapshot;

    use super::*;

    #[test]
    fn a_payload_with_a_wrong_byte_is_found() {
        let entry = entry(77, 3);
        let text = payload(&entry);
        assert_eq!(read(&text), Some([entry[0], entry[1]]));
        assert_eq!(read(&text.replacen(':', ";", 1)), None);
        assert_eq!(read(&format!("{text}x")), None);
    }

    /// Writes rows as the sinks do, each of them so many times.
    fn disk(rows: &[(u64, u32)]) -> Disk {
        let reference = Reference::new(4, 2, 2);
        let disk = Disk::default();
        for (name, times) in [("counted", 1), ("shuffled", 1), ("everywhere", 2), ("joined", 2)] {
            let mut bytes = Vec::new();
            for (index, count) in rows {
                for _ in 0..times * count {
                    let all = reference.counted[*index as usize];
                    if name == "counted" {
                        to_snapshot(&all, &mut bytes).expect("numbers");
                    } else {
                        to_snapshot(&[all[0], all[1]], &mut bytes).expect("numbers");
                    }
                }
            }
            disk.found(&format!("{OUT}/{name}"));
            disk.write(Path::new(&format!("{OUT}/{name}/part-0")), &bytes).expect("there is room");
        }
        disk
    }

    #[test]
    fn the_comparison_sees_what_it_must() {
        let reference = Reference::new(4, 2, 2);
        let at = |positions: [u64; 2]| Expected::At(positions.to_vec());
        for (rows, expected, right) in [
            (&[(0, 1), (1, 1)][..], Expected::Part, true),
            (&[(0, 2)], Expected::Part, false),
            (&[(0, 1)], Expected::Whole, false),
            (&[(0, 1), (1, 1)], at([2, 3]), true),
            (&[(0, 1)], at([2, 3]), false),
            (&[(0, 1), (1, 1), (2, 1)], at([2, 3]), false),
        ] {
            assert_eq!(reference.check(&disk(rows), &expected).is_ok(), right, "{rows:?} {expected:?}");
        }
    }
}
