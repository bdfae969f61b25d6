//! The job of `shuffle --shape bid`: bids as NEXMark has them (numbers and three texts of varied length) from a source on
//! one TaskManager to a sum over every field on the other, which reads them in place after they were validated.
//!
//! The texts of bid i are those of pattern i modulo [`PATTERNS`], made beforehand: what is measured is the way of a bid, not
//! the invention of its texts. Lengths are spread as NEXMark's are: about 100 bytes of filler, more or less by a fifth.

use tidegate_record::Record;
use tidegate_stream::{Args, Job, JobEntry, JobResult};

use super::numbered::{Numbered, Records};
use super::sum_sink::SumSink;
use crate::forms;
use crate::work::written;

/// The job's name in the registry.
pub const JOB: &str = "bench-bid";
/// Bids with texts of their own.
const PATTERNS: u64 = 64;
/// Added to a bid's number for its auction, bidder and time: their sum is known without a loop.
const OFFSETS: [u64; 3] = [1_000, 2_000, 1_700_000_000_000];

/// A bid.
#[derive(Clone, Debug, Record)]
pub struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: String,
    url: String,
    extra: String,
    time_ms: u64,
}

/// The job's entry in the registry.
pub fn entry() -> JobEntry {
    super::entry(JOB, job).about("Bids with texts, validated, every field summed; measures itself.")
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let flags = super::Flags::of(args)?;
    job.source("bids", Records { records: Bids::new(), meter: flags.source })
        .parallelism(1)
        .slot_group("source")
        .rebalance()
        .parallelism(1)
        .slot_group("sum")
        .sink("sum", SumSink { of: sum_of_view, meter: Some(flags.sum), path: flags.totals });
    Ok(())
}

/// Every field of a bid as it lies in the segment: numbers as they are, texts by their words.
#[inline]
pub fn sum_of_view(bid: &<Bid as Record>::Archived) -> u64 {
    let numbers = [bid.auction, bid.bidder, bid.price, bid.time_ms].map(|number| number.to_native());
    let texts = [&bid.channel, &bid.url, &bid.extra].map(|text| forms::sum_of_words(text.as_bytes()));
    numbers.into_iter().chain(texts).fold(0, u64::wrapping_add)
}

/// Bids by number.
#[derive(Clone)]
pub struct Bids {
    patterns: Vec<Bid>,
    number: u64,
}

impl Bids {
    /// From bid 0 on.
    pub fn new() -> Self {
        Self { patterns: (0..PATTERNS).map(pattern).collect(), number: 0 }
    }

    /// Bytes of a bid on the wire, on average.
    pub fn wire_bytes() -> f64 {
        let all: usize = Self::new().patterns.iter().map(written).sum();
        all as f64 / PATTERNS as f64
    }

    /// Every field of `records` bids, in closed form.
    pub fn sum(records: u64) -> u64 {
        // Auction, bidder, price and time are the number plus something fixed.
        let numbers = forms::sum_of_numbers(records).wrapping_mul(4);
        let fixed = (0..PATTERNS).fold(0u64, |sum, at| {
            let bid = pattern(at);
            let times = records / PATTERNS + u64::from(at < records % PATTERNS);
            let texts = [&bid.channel, &bid.url, &bid.extra].map(|text| forms::sum_of_words(text.as_bytes()));
            let of_one = texts.into_iter().chain(OFFSETS).fold(0, u64::wrapping_add);
            sum.wrapping_add(of_one.wrapping_mul(times))
        });
        numbers.wrapping_add(fixed)
    }
}

impl Numbered for Bids {
    type Item = Bid;

    #[inline]
    fn make(&mut self) -> &Bid {
        let bid = &mut self.patterns[(self.number % PATTERNS) as usize];
        let [auction, bidder, time_ms] = OFFSETS.map(|offset| self.number + offset);
        (bid.auction, bid.bidder, bid.price, bid.time_ms) = (auction, bidder, self.number, time_ms);
        self.number += 1;
        bid
    }
}

/// The texts of a pattern: half of the bids come through one of four channels with one address each.
fn pattern(at: u64) -> Bid {
    let known = ["Google", "Facebook", "Baidu", "Apple"];
    let (channel, url) = match at % 8 {
        few @ 0..4 => {
            (known[few as usize].to_owned(), format!("https://www.nexmark.com/item.htm?query={few}"))
        }
        _ => (
            format!("channel-{}", at * 157 % 10_000),
            format!("https://www.nexmark.com/abc/def/ghi/item.htm?query=1&channel_id={}", at * 157 % 10_000),
        ),
    };
    let filler = 80 + at * 29 % 41;
    let extra = (0..filler).map(|letter| char::from(b'a' + ((at + letter * 7) % 26) as u8)).collect();
    Bid { auction: 0, bidder: 0, price: 0, channel, url, extra, time_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_record::{Records as Read, Slot};

    #[test]
    fn the_closed_form_is_the_sum_of_what_is_read() {
        let mut bids = Bids::new();
        let mut buffer = vec![0; 1 << 20];
        let mut slot = Slot::new(&mut buffer, 0);
        for _ in 0..1_000 {
            bids.make().write(&mut slot).unwrap();
        }
        let sum =
            Read::<Bid>::new(slot.bytes()).fold(0u64, |sum, bid| sum.wrapping_add(sum_of_view(bid.unwrap())));
        assert_eq!(sum, Bids::sum(1_000));
        let mean = f64::from(slot.len()) / 1_000.0;
        assert!((mean - Bids::wire_bytes()).abs() < 2.0, "{mean}");
    }

    #[test]
    fn texts_have_many_lengths() {
        let lengths: std::collections::BTreeSet<usize> = (0..PATTERNS)
            .map(pattern)
            .map(|bid| bid.channel.len() + bid.url.len() + bid.extra.len())
            .collect();
        assert!(lengths.len() > 30, "{lengths:?}");
    }
}
