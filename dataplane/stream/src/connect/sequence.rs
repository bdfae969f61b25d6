//! Numbers in sequence, or what a function makes of them: a source without an outside, in parallel.
//!
//! A [`Sequence`] is the description; each subtask owns the numbers it still has to say, as progressions: a next number and
//! a stride. Always: the progressions of all subtasks are disjoint, and together they are the numbers that are left, also
//! after a restore with another parallelism.

use tidegate_record::{Record, from_snapshot, to_snapshot};

use crate::connect::pace::Pacer;
use crate::error::{Fault, TaskError};
use crate::source::{Next, Pause, Source, SourceContext, SourceReader};

/// The numbers from 0 on as a source, or what a function makes of them. Subtask i of p starts with i, i + p, i + 2p, ….
///
/// ```
/// use tidegate_stream::connect::Sequence;
/// use tidegate_stream::{Args, Job, JobResult, testing};
///
/// fn squares(job: &mut Job, _args: &Args) -> JobResult {
///     job.source("numbers", Sequence::generate(4, |n| n * n)).sink("out", testing::collect("out"));
///     Ok(())
/// }
/// assert_eq!(testing::run(squares, &[]).unwrap().collected::<u64>("out"), [0, 1, 4, 9]);
/// ```
#[derive(Clone, Debug)]
pub struct Sequence<F> {
    count: u64,
    rate: Option<u64>,
    make: F,
}

impl Sequence<fn(u64) -> u64> {
    /// The numbers below `count`.
    pub fn new(count: u64) -> Self {
        Sequence::generate(count, |number| number)
    }
}

impl<F> Sequence<F> {
    /// What `make` gives for the numbers below `count`; `u64::MAX` for no end. It must give the same for the same number,
    /// or a restore repeats history with a difference.
    pub fn generate<T>(count: u64, make: F) -> Self
    where
        F: FnMut(u64) -> T + Clone + Send + 'static,
    {
        Sequence { count, rate: None, make }
    }

    /// Items per second of all subtasks together; no limit if nothing is said.
    #[must_use]
    pub fn rate(mut self, items_per_second: impl Into<Option<u64>>) -> Self {
        self.rate = items_per_second.into();
        self
    }
}

/// `next`, `next + stride`, `next + 2 * stride`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, Record)]
struct Progression {
    next: u64,
    stride: u64,
}

impl Progression {
    /// Every `parts`-th of its numbers, from number `part` on.
    fn part(self, part: u64, parts: u64) -> Self {
        let skipped = self.stride.saturating_mul(part);
        Progression { next: self.next.saturating_add(skipped), stride: self.stride.saturating_mul(parts) }
    }

    fn step(&mut self) -> u64 {
        let number = self.next;
        self.next = self.next.saturating_add(self.stride);
        number
    }
}

/// What one subtask has left, and of how many subtasks it was one.
#[derive(Clone, Debug, PartialEq, Eq, Record)]
struct Position {
    parallelism: u32,
    progressions: Vec<Progression>,
}

impl<T: Send + 'static, F> Source for Sequence<F>
where
    F: FnMut(u64) -> T + Clone + Send + 'static,
{
    type Item = T;
    type Reader = SequenceReader<T, F>;

    fn open(&self, context: &SourceContext<'_>) -> Result<SequenceReader<T, F>, TaskError> {
        let (subtask, parallelism) = (context.runtime.subtask, context.runtime.parallelism);
        let pacer = self.rate.map(|rate| Pacer::new(rate, parallelism)).transpose()?;
        let progressions = if context.runtime.restored.is_none() {
            vec![Progression { next: subtask.into(), stride: parallelism.into() }]
        } else {
            restored(context.positions, subtask, parallelism)?
        };
        Ok(SequenceReader {
            parallelism,
            progressions,
            count: self.count,
            make: self.make.clone(),
            pacer,
            item: None,
        })
    }
}

/// What to do about the position of another source.
const OTHER_UID: &str = "give the source another uid to start without it";

/// This subtask's share of what is left: all of its own position, or with another parallelism its part of all positions.
fn restored(positions: &[Vec<u8>], subtask: u32, parallelism: u32) -> Result<Vec<Progression>, TaskError> {
    let read = |bytes: &Vec<u8>| match from_snapshot::<Position>(bytes) {
        Ok((position, _)) => Ok(position),
        Err(error) => {
            let message =
                format!("the checkpoint's position is not one of a sequence ({error}); {OTHER_UID}");
            Err(TaskError::new(Fault::Setup, message))
        }
    };
    let old = positions.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let before = old.first().map_or(0, |position| position.parallelism);
    match old.as_slice() {
        [own] if own.parallelism == parallelism => Ok(own.progressions.clone()),
        all if all.len() == before as usize && before > 0 => {
            Ok(share(all, subtask.into(), parallelism.into()))
        }
        some => {
            let message = format!(
                "{} positions of a sequence that had {before} subtasks: with another parallelism, each needs all",
                some.len()
            );
            Err(TaskError::new(Fault::Setup, message))
        }
    }
}

/// Progressions are dealt out in turn; fewer than subtasks are split first, so that nobody is idle.
fn share(all: &[Position], subtask: u64, parallelism: u64) -> Vec<Progression> {
    let progressions: Vec<_> =
        all.iter().flat_map(|position| position.progressions.iter().copied()).collect();
    let parts = parallelism.div_ceil((progressions.len() as u64).max(1));
    let split = progressions.iter().flat_map(|whole| (0..parts).map(|part| whole.part(part, parts)));
    let dealt = split.enumerate().filter(|(index, _)| *index as u64 % parallelism == subtask);
    dealt.map(|(_, progression)| progression).collect()
}

/// One subtask's end of a [`Sequence`].
pub struct SequenceReader<T, F> {
    parallelism: u32,
    progressions: Vec<Progression>,
    count: u64,
    make: F,
    pacer: Option<Pacer>,
    item: Option<T>,
}

impl<T: Send + 'static, F> SourceReader for SequenceReader<T, F>
where
    F: FnMut(u64) -> T + Clone + Send + 'static,
{
    type Item = T;

    #[inline]
    fn next(&mut self, now_ns: u64) -> Result<Next<'_, T>, TaskError> {
        // One progression is all there is, unless the job was restored with another parallelism.
        let lowest = match self.progressions.as_mut_slice() {
            [only] => Some(only),
            several => several.iter_mut().min_by_key(|progression| progression.next),
        };
        let Some(lowest) = lowest.filter(|progression| progression.next < self.count) else {
            return Ok(Next::End);
        };
        if let Some(pacer) = &mut self.pacer {
            if let Some(at) = pacer.wait(now_ns) {
                return Ok(Next::Wait(Pause::Until(at)));
            }
            pacer.spend(1);
        }
        Ok(Next::Item(self.item.insert((self.make)(lowest.step()))))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        let position = Position { parallelism: self.parallelism, progressions: self.progressions.clone() };
        to_snapshot(&position, out).map_err(|error| TaskError::new(Fault::Runtime, error.to_string()))
    }
}
