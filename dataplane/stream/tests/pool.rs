//! Blocking readers: what is read ahead is not yet taken, and their errors and panics reach the task.

use tidegate_stream::pool::{Batch, BlockingReader, More, Pooled};
use tidegate_stream::source::SourceContext;
use tidegate_stream::testing::{Harness, Setup, collect};
use tidegate_stream::{Args, Job, Source, TaskError};

#[derive(Clone)]
struct Lines {
    count: u64,
    trouble: Trouble,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    Error,
    Panic,
}

struct Reader {
    next: u64,
    lines: Lines,
}

impl Source for Lines {
    type Item = String;
    type Reader = Pooled<Reader>;

    fn open(&self, context: &SourceContext<'_>) -> Result<Pooled<Reader>, TaskError> {
        let next =
            context.positions.first().map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
        Pooled::new(Reader { next, lines: self.clone() }, next, context)
    }
}

impl BlockingReader for Reader {
    type Item = String;
    type Position = u64;

    fn read(&mut self, batch: &mut Batch<String, u64>) -> Result<More, TaskError> {
        while !batch.is_full() {
            if self.next == self.lines.count {
                return Ok(More::No);
            }
            if self.next == 2_500 {
                match self.lines.trouble {
                    Trouble::None => {}
                    Trouble::Error => return Err(TaskError::data("line 2500 is not a line")),
                    Trouble::Panic => panic!("line 2500 is no line"),
                }
            }
            let slot = batch.slot(String::new);
            slot.clear();
            slot.push_str(&format!("line {}", self.next));
            self.next += 1;
            batch.commit(self.next);
        }
        Ok(More::Yes)
    }

    fn encode(position: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&position.to_le_bytes());
    }
}

fn start(trouble: Trouble) -> Harness {
    let lines = Lines { count: 5_000, trouble };
    let job = move |job: &mut Job, _: &Args| {
        job.source("lines", lines.clone()).sink("out", collect("out"));
        Ok(())
    };
    Harness::start(Setup::new(job).quantum(100)).unwrap()
}

fn expected() -> Vec<String> {
    (0..5_000).map(|n| format!("line {n}")).collect()
}

#[test]
fn a_pooled_reader_yields_everything_in_order() {
    let mut harness = start(Trouble::None);
    harness.finish().unwrap();
    assert_eq!(harness.collected::<String>("out"), expected());
}

/// Whatever was read ahead when the barrier came is read again, and only that.
#[test]
fn the_position_is_that_of_the_last_item_taken() {
    for turns in [0, 1, 5, 11, 12, 30, 49, 52] {
        let mut harness = start(Trouble::None);
        harness.step(turns);
        harness.checkpoint().unwrap();
        harness.step(3);
        harness.restart().unwrap();
        harness.finish().unwrap();
        assert_eq!(harness.collected::<String>("out"), expected(), "after {turns} turns");
    }
}

#[test]
fn errors_and_panics_of_a_reader_fail_the_task() {
    let error = start(Trouble::Error).finish().unwrap_err();
    assert_eq!(error, "operator `lines`: input data is malformed: line 2500 is not a line");
    let error = start(Trouble::Panic).finish().unwrap_err();
    assert_eq!(error, "operator `lines`: user function panicked: line 2500 is no line");
}
