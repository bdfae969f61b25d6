//! Where the next bytes of a link belong, and in which order its entries are delivered.
//!
//! A link is a sequence of trains: a manifest and the payloads it lists. One receive op is in flight; it is scattered into
//! payload slots of the current train and, behind the last of them, into a staging area, where the next manifest is
//! expected. What falls into staging beyond a manifest is the head of that train's payloads and is copied to its place: the only copy on this side.
//!
//! State: staging bytes `from..to` are unread, `from ≤ to ≤ staging.len()`. Payloads before `filling` are complete, those
//! after it are empty. Entries before `next` were delivered. A manifest is looked for only when all entries of the one
//! before were delivered, so at most one train is open.

use arrayvec::ArrayVec;
use core::ops::Range;
use tidegate_plant::{Rare, rare};
use tidegate_wire::{ENTRIES_MAX, Entry, Kind, MANIFEST_MAX, PAYLOADS_MAX, Parsed, WireError};

use crate::limits::{PLACES_MAX, RECEIVE_BYTES};

/// One destination of the next receive op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `len` bytes at `at` of the segment that was assigned to payload `payload` of the train.
    Payload {
        /// Position of the payload in the train.
        payload: usize,
        /// Offset in its segment.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// `len` bytes at `at` of the staging area.
    Staging {
        /// Offset in the staging area.
        at: u32,
        /// Bytes.
        len: u32,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A manifest is complete and well-formed: check each of [`TrainReceiver::entries`] against its channel, and assign a
    /// segment to each data entry, in order, before going on.
    Manifest,
    /// Copy staged bytes into a payload's segment.
    Copy {
        /// Position of the payload in the train.
        payload: usize,
        /// Offset in its segment.
        at: u32,
        /// The bytes in the staging area.
        from: Range<usize>,
    },
    /// This entry is complete; for data, its payload is too.
    Deliver {
        /// The entry.
        entry: Entry,
        /// Position of its payload in the train, for data.
        payload: Option<usize>,
    },
    /// Nothing more without bytes: post [`TrainReceiver::places`].
    Receive,
}

#[derive(Debug, Clone, Copy)]
struct Payload {
    len: u32,
    filled: u32,
}

/// The receiving half of a link.
#[derive(Debug, Default)]
pub struct TrainReceiver {
    from: u32,
    to: u32,
    entries: ArrayVec<Entry, ENTRIES_MAX>,
    next: usize,
    payloads: ArrayVec<Payload, PAYLOADS_MAX>,
    filling: usize,
    delivered_payloads: usize,
    birth_ns: u64,
    sent_ns: u64,
    payload_bytes: u64,
    trains: u64,
}

impl TrainReceiver {
    /// A link before its first train.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entries of the train that is open.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Birth time of the oldest record of the open train, nanoseconds of the sender's clock.
    pub fn birth_ns(&self) -> u64 {
        self.birth_ns
    }

    /// When the open train was handed to its link, nanoseconds of the sender's clock; 0 if that is not known.
    pub fn sent_ns(&self) -> u64 {
        self.sent_ns
    }

    /// Payload bytes of the open train.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// True between trains: the peer may end the link here and nowhere else.
    pub fn at_boundary(&self) -> bool {
        self.next == self.entries.len() && self.from == self.to
    }

    /// Where the next receive op goes: what is missing of the open train's payloads, and, unless there is more of that than
    /// one op takes, up to `offer` bytes of staging (never less than a whole manifest needs, never past `staging_len`).
    pub fn places(&self, staging_len: u32, offer: u32) -> ArrayVec<Place, PLACES_MAX> {
        let mut places = ArrayVec::new();
        let (mut bytes, bound) = (0, if rare(Rare::PartReceive) { 1 } else { RECEIVE_BYTES });
        for (index, payload) in self.payloads.iter().enumerate().skip(self.filling) {
            if bytes >= bound {
                return places;
            }
            let (at, len) = (payload.filled, payload.len - payload.filled);
            bytes += len;
            places.push(Place::Payload { payload: index, at, len });
        }
        let room = staging_len - self.to;
        let len = offer.max(MANIFEST_MAX as u32).min(room);
        assert!(len > 0, "staging is compacted before it is posted");
        places.push(Place::Staging { at: self.to, len });
        places
    }

    /// `count` bytes arrived, laid into the places in order.
    ///
    /// # Panics
    /// If more bytes are reported than were asked for: the driver's bug, and memory may be wrong by then.
    pub fn received(&mut self, count: u32, staging_len: u32) {
        let mut left = count;
        while left > 0 && self.filling < self.payloads.len() {
            let payload = &mut self.payloads[self.filling];
            let taken = left.min(payload.len - payload.filled);
            payload.filled += taken;
            left -= taken;
            if payload.filled == payload.len {
                self.filling += 1;
            }
        }
        self.to += left;
        assert!(self.to <= staging_len, "{count} bytes were received, more than were asked for");
    }

    /// Moves unread staged bytes to the front, so that a whole manifest fits behind them. Returns how many were moved.
    pub fn compact(&mut self, staging: &mut [u8]) -> u32 {
        let unread = self.to - self.from;
        if self.from > 0 && unread > 0 {
            staging.copy_within(self.from as usize..self.to as usize, 0);
        }
        let moved = if self.from > 0 { unread } else { 0 };
        (self.from, self.to) = (0, unread);
        moved
    }

    /// The next step, given the staging area's bytes.
    ///
    /// # Errors
    /// [`WireError`] if the staged bytes are no manifest.
    pub fn poll(&mut self, staging: &[u8]) -> Result<Step, WireError> {
        if let Some(&entry) = self.entries.get(self.next) {
            return Ok(self.poll_entry(entry));
        }
        let staged = &staging[self.from as usize..self.to as usize];
        match tidegate_wire::parse(staged)? {
            Parsed::Incomplete { .. } => Ok(Step::Receive),
            Parsed::Complete(manifest) => {
                manifest.check_train(self.trains)?;
                self.trains += 1;
                self.entries.clear();
                self.payloads.clear();
                (self.next, self.filling, self.delivered_payloads) = (0, 0, 0);
                for entry in manifest.entries() {
                    if let Some(data) = entry.payload() {
                        self.payloads.push(Payload { len: data.len, filled: 0 });
                    }
                    self.entries.push(entry);
                }
                (self.birth_ns, self.sent_ns) = (manifest.birth_ns(), manifest.sent_ns());
                self.payload_bytes = manifest.payload_bytes();
                self.from += manifest.len() as u32;
                Ok(Step::Manifest)
            }
        }
    }

    fn poll_entry(&mut self, entry: Entry) -> Step {
        if entry.kind() != Kind::Data {
            self.next += 1;
            return Step::Deliver { entry, payload: None };
        }
        let payload = self.delivered_payloads;
        if payload < self.filling {
            self.next += 1;
            self.delivered_payloads += 1;
            return Step::Deliver { entry, payload: Some(payload) };
        }
        let staged = self.to - self.from;
        if staged == 0 {
            return Step::Receive;
        }
        let slot = &mut self.payloads[payload];
        let (at, len) = (slot.filled, staged.min(slot.len - slot.filled));
        slot.filled += len;
        if slot.filled == slot.len {
            self.filling += 1;
        }
        let from = self.from as usize..(self.from + len) as usize;
        self.from += len;
        Step::Copy { payload, at, from }
    }
}
