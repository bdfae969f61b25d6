//! `wordcount`: how often each word of a text comes. A word is a maximal run of ASCII letters and digits, lower-cased.

use super::FileArgs;
use crate::connect::{ArchivedLineBlock, CsvRow, CsvSink, LineFile};
use crate::{AggregateFunction, Args, Job, JobEntry, JobResult, TaskError};

pub(super) fn entry() -> JobEntry {
    let entry = JobEntry::new("wordcount", wordcount)
        .about("Counts the words of a text: part files of `word,count`.");
    FileArgs::describe(entry, "the text, plain or .gz", "lines")
}

fn wordcount(job: &mut Job, args: &Args) -> JobResult {
    let FileArgs { input, output, rate } = FileArgs::read(args)?;
    let counts =
        CsvSink::new(output, ["word", "count"], |(word, count): &(String, u64), row: &mut CsvRow<'_>| {
            row.text(word).value(count);
        });
    job.source("lines", LineFile::new(input).rate(rate))
        .rebalance()
        .flat_map("words", |block: &ArchivedLineBlock| Words { bytes: block.bytes.to_vec(), at: 0 })
        .key_by(|word: &String| word.clone())
        .aggregate("count", Count)
        .sink("counts", counts);
    Ok(())
}

/// The words of a block, one by one.
struct Words {
    bytes: Vec<u8>,
    at: usize,
}

impl Iterator for Words {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
        let start = self.at + self.bytes[self.at..].iter().position(is_word)?;
        let rest = &self.bytes[start..];
        let len = rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        self.at = start + len;
        Some(rest[..len].iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
    }
}

/// How often a word came.
#[derive(Clone)]
struct Count;

impl<In: ?Sized> AggregateFunction<String, In> for Count {
    type State = u64;
    type Out = (String, u64);

    fn create(&mut self, _word: &String) -> u64 {
        0
    }

    fn add(&mut self, count: &mut u64, _word: &In) {
        *count += 1;
    }

    fn result(&mut self, word: &String, count: u64) -> Result<(String, u64), TaskError> {
        Ok((word.clone(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_maximal_runs_of_letters_and_digits() {
        let words = |text: &str| Words { bytes: text.into(), at: 0 }.collect::<Vec<_>>();
        assert_eq!(words("It's 2013, or 2013!\r\nX"), ["it", "s", "2013", "or", "2013", "x"]);
        assert_eq!(words("naïve"), ["na", "ve"]);
        assert_eq!(words(" \n,"), [""; 0]);
        assert_eq!(words(""), [""; 0]);
    }
}
