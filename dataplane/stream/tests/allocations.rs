//! In the steady state a record costs no allocation: counted by an allocator, over whole turns of a slot.

use tidegate_memory::{Accounted, measure};
use tidegate_stream::source::{Next, SourceContext};
use tidegate_stream::testing::{Harness, Setup, collect};
use tidegate_stream::{Args, Job, Source, SourceReader, TaskError};

#[global_allocator]
static HEAP: Accounted = Accounted::new();

/// Words that are made in place, again and again.
#[derive(Clone)]
struct Words;

struct Reader {
    next: u64,
    word: (String, u64),
}

impl Source for Words {
    type Item = (String, u64);
    type Reader = Reader;
    fn open(&self, _context: &SourceContext<'_>) -> Result<Reader, TaskError> {
        Ok(Reader { next: 0, word: (String::with_capacity(64), 0) })
    }
}

impl SourceReader for Reader {
    type Item = (String, u64);
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, (String, u64)>, TaskError> {
        use std::fmt::Write;
        self.word.0.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.word.0, "a word of the river number {}", self.next % 1_000);
        self.word.1 = self.next;
        self.next += 1;
        Ok(Next::Item(&self.word))
    }
    fn position(&self, _out: &mut Vec<u8>) -> Result<(), TaskError> {
        Ok(())
    }
}

/// Keys that are strings and travel with the record; a process function with state; a second, plain exchange.
#[test]
fn a_record_costs_no_allocation() {
    let job = |job: &mut Job, _: &Args| {
        job.source("words", Words)
            .filter("some", |word| word.1 % 7 != 0)
            .key_by_ref(|word| &word.0)
            .process("count", |_, word, count: &mut Option<u64>, out| {
                let count = count.insert(count.unwrap_or(0) + 1);
                out.emit([*count, word.1.to_native()]);
            })
            .key_by(|pair| pair[0] % 100)
            .reduce("sum", |pair| *pair, |sum, pair| sum[1] += pair[1])
            .filter("none", |_| false)
            .sink("out", collect("out"));
        Ok(())
    };
    // Reports every ten turns: what was recorded of latencies is offered, and taken, as often.
    let setup = Setup::new(job).parallelism(2).segments(512, 32_768).reports(10_000);
    let mut harness = Harness::start(setup).unwrap();
    let tasks = harness.metrics(0).tasks;
    let feeds: Vec<_> =
        tasks.iter().flat_map(|task| task.latencies.iter()).map(|edge| edge.feed.clone()).collect();
    assert_eq!(feeds.len(), 2 * (2 + 2), "two edges, two subtasks, two ends");
    harness.step(100);
    let records = |harness: &mut Harness| -> u64 {
        harness
            .metrics(0)
            .tasks
            .iter()
            .filter(|task| task.task.vertex == 0)
            .map(|task| task.counts.records_in)
            .sum()
    };
    let before = records(&mut harness);
    let mut recorded = 0;
    let ((), counted) = measure(|| {
        for _ in 0..20 {
            harness.step(10);
            feeds.iter().for_each(|feed| feed.take(|_, latencies| recorded += latencies.len()));
        }
    });
    let records = records(&mut harness) - before;
    let allocations = counted.allocations;
    assert!(records > 500_000, "{records} records in 200 turns");
    assert_eq!(allocations, 0, "for {records} records");
    assert!(recorded > 1_000, "{recorded} latencies were recorded meanwhile");
    assert_eq!(measure(|| vec![0u8; 10]).1.allocations, 1, "allocations are counted");
    harness.cancel().unwrap();
}
