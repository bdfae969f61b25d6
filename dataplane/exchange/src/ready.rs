//! Which channels of a link have something to send, and when: nobody looks through channels that have nothing.
//!
//! Two lists. In `now` are channels with full segments, events or words of their own. In `later` are those with nothing but
//! a partly filled segment, which waits for more until the link's flush: that turns ten thousand trickles into few payloads.
//! A flush is of the whole link, not of a channel: when its time has come, all that wait at that moment are due. They go when
//! the link has nothing else to send (a flush yields to a busy link), but once they have waited for a second interval they
//! go first. With an interval of zero nobody is ever put into `later`, and a link sends what there is whenever it is idle.
//!
//! Always: a channel is at most once in each list, so each has at most as many entries as the link has channels;
//! `due` ≤ entries of `later`; `flush_ns` is set while entries of `later` are not due.

use std::collections::VecDeque;

use crate::ports::OutRef;

/// The ready lists of one link.
#[derive(Debug, Default)]
pub(crate) struct ReadyList {
    now: VecDeque<OutRef>,
    later: VecDeque<OutRef>,
    /// Entries at the front of `later` whose time has come.
    due: usize,
    due_since_ns: u64,
    /// When the others are due.
    flush_ns: Option<u64>,
    interval_ns: u64,
}

/// The next channel to visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Something is ready.
    Now(OutRef),
    /// Its partly filled segment has waited long enough.
    Flush(OutRef),
}

impl ReadyList {
    /// For `channels` channels, whose partly filled segments wait at most `interval_ns`, and as long again on a busy link.
    pub fn new(channels: usize, interval_ns: u64) -> Self {
        let later = VecDeque::with_capacity(if interval_ns > 0 { channels } else { 0 });
        Self { now: VecDeque::with_capacity(channels), later, interval_ns, ..Self::default() }
    }

    pub fn push_now(&mut self, entry: OutRef) {
        self.now.push_back(entry);
    }

    pub fn push_later(&mut self, entry: OutRef, now_ns: u64) {
        self.later.push_back(entry);
        self.flush_ns.get_or_insert(now_ns + self.interval_ns);
    }

    /// True if [`press`](Self::press) would find somebody.
    pub fn would_yield(&self, count: usize) -> bool {
        self.due < count.min(self.later.len())
    }

    /// Somebody waits for segments: those that have waited longest go, up to `count`, whatever the time.
    pub fn press(&mut self, count: usize, now_ns: u64) {
        if self.would_yield(count) {
            if self.due == 0 {
                self.due_since_ns = now_ns;
            }
            self.due = count.min(self.later.len());
        }
    }

    /// True if there is somebody to visit.
    pub fn any(&mut self, now_ns: u64) -> bool {
        self.look(now_ns);
        !self.now.is_empty() || self.due > 0
    }

    /// Whom to visit next.
    pub fn pop(&mut self, now_ns: u64) -> Option<Visit> {
        self.look(now_ns);
        let overdue = self.due > 0 && now_ns >= self.due_since_ns + self.interval_ns;
        if !overdue && let Some(entry) = self.now.pop_front() {
            return Some(Visit::Now(entry));
        }
        self.due = self.due.checked_sub(1)?;
        self.later.pop_front().map(Visit::Flush)
    }

    /// Bytes of the heap that the lists take.
    #[cfg(test)]
    pub fn idle_bytes(&self) -> usize {
        (self.now.capacity() + self.later.capacity()) * size_of::<OutRef>()
    }

    /// When somebody will be due who is not yet.
    pub fn next_flush_ns(&self) -> Option<u64> {
        self.flush_ns
    }

    fn look(&mut self, now_ns: u64) {
        if self.flush_ns.is_some_and(|at| at <= now_ns) {
            if self.due == 0 {
                self.due_since_ns = now_ns;
            }
            self.due = self.later.len();
            self.flush_ns = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 100;

    fn at(channel: u32) -> OutRef {
        OutRef { partition: 0, channel }
    }

    #[test]
    fn who_waits_is_due_with_all_others_at_the_flush_and_not_before() {
        let mut list = ReadyList::new(4, INTERVAL);
        list.push_later(at(1), 0);
        list.push_later(at(2), 60);
        assert_eq!((list.pop(99), list.next_flush_ns()), (None, Some(100)));
        assert!(!list.any(99) && list.any(100));
        list.push_later(at(3), 110);
        assert_eq!(list.pop(110), Some(Visit::Flush(at(1))));
        assert_eq!(list.pop(110), Some(Visit::Flush(at(2))));
        assert_eq!(
            (list.pop(110), list.next_flush_ns()),
            (None, Some(210)),
            "the next one has its own flush"
        );
        assert_eq!(list.pop(210), Some(Visit::Flush(at(3))));
    }

    #[test]
    fn a_flush_yields_to_a_busy_link_for_one_interval() {
        let mut list = ReadyList::new(4, INTERVAL);
        list.push_later(at(1), 0);
        for _ in 0..3 {
            list.push_now(at(9));
        }
        assert_eq!(list.pop(100), Some(Visit::Now(at(9))));
        assert_eq!(list.pop(199), Some(Visit::Now(at(9))));
        assert_eq!(list.pop(200), Some(Visit::Flush(at(1))), "two intervals are enough");
        assert_eq!(list.pop(200), Some(Visit::Now(at(9))));
    }

    #[test]
    fn who_needs_segments_presses_the_oldest_out() {
        let mut list = ReadyList::new(4, INTERVAL);
        (1..=3).for_each(|channel| list.push_later(at(channel), 0));
        assert!(list.would_yield(2));
        list.press(2, 10);
        assert!(!list.would_yield(2), "as many are due as were asked for");
        assert_eq!(list.pop(10), Some(Visit::Flush(at(1))));
        assert_eq!(list.pop(10), Some(Visit::Flush(at(2))));
        assert_eq!(list.pop(10), None);
        list.press(2, 11);
        assert_eq!(list.pop(11), Some(Visit::Flush(at(3))));
        list.press(2, 12);
        assert_eq!(list.pop(100), None, "nobody is left");
    }
}
