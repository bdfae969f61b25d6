//! Keyed state, key group by key group, and its snapshots.
//!
//! One hash table per key group the subtask owns, probed with the hash that routed the record. A snapshot is a cut: only
//! a number changes at the barrier. Groups are then written one by one by `step`; a group that is about to change before
//! its turn is written first (`admit`). So the file holds the state at the cut, while records go on.
//!
//! The owner is one keyed operator instance. Always: without a run, every group's `saved` equals `cut`; during a run a
//! group is changed only if its `saved` equals `cut`; at most one group is half written, and it is not changed.
//!
//! The file: per group, frames (`frame`) one behind the other; groups lie in the order in which they were written, and are
//! told in ascending order. A frame may straddle file buffers.

mod frame;

use hashbrown::HashTable;
use tidegate_exchange::plant::{Plant, planted};
use tidegate_memory::prefetch;
use tidegate_record::limits::KEYED_BATCH;
use tidegate_record::{Field, Fingerprint, Key};
use xxhash_rust::xxh3::Xxh3;

use crate::error::TaskError;
use crate::files::{Appender, FileEvent, FileId, FileReceipt, FileTarget, Files};
use crate::memory::StateMemory;
use crate::router::{GroupRange, Groups};
use crate::slot::snapshot::{GroupSlice, OperatorSnapshot, StatePayload};
use frame::{Frame, fill_frame};

/// What a table keeps per key. `Kept` always has a value; `Option` has one unless the key is to be forgotten.
pub trait Cell: Send + 'static {
    /// What is written to snapshots.
    type Value: Field;
    /// The value, if any.
    fn value(&self) -> Option<&Self::Value>;
    /// A cell with that value.
    fn with(value: Self::Value) -> Self;
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<V>(pub V);

impl<V: Field> Cell for Kept<V> {
    type Value = V;

    fn value(&self) -> Option<&V> {
        Some(&self.0)
    }

    fn with(value: V) -> Self {
        Kept(value)
    }
}

impl<V: Field> Cell for Option<V> {
    type Value = V;

    fn value(&self) -> Option<&V> {
        self.as_ref()
    }

    fn with(value: V) -> Self {
        Some(value)
    }
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    hash: u64,
    /// Its group's place in the range.
    index: u32,
    /// The bucket of the table that looked like it; only a hint.
    bucket: u32,
}

impl Spot {
    /// That of a key which is not there, in group number `group` of the range.
    pub fn unseen(hash: u64, group: usize) -> Self {
        Self { hash, index: group as u32, bucket: u32::MAX }
    }

    /// The hash of the key.
    #[inline]
    pub fn hash(self) -> u64 {
        self.hash
    }

    /// Its group's place in the range.
    #[inline]
    pub fn group(self) -> usize {
        self.index as usize
    }
}

/// The spots of a batch of keys, in columns.
#[derive(Debug, Default)]
pub struct Spots {
    indices: [u32; KEYED_BATCH],
    buckets: [u32; KEYED_BATCH],
}

impl Spots {
    /// The spots of the keys from number `from` on, whose hashes these are.
    #[inline(always)]
    pub fn iter<'a>(&'a self, hashes: &'a [u64], from: usize) -> impl Iterator<Item = Spot> + 'a {
        let spots = hashes.iter().zip(&self.indices).zip(&self.buckets).skip(from);
        spots.map(|((&hash, &index), &bucket)| Spot { hash, index, bucket })
    }
}

/// How far a resumable piece of work came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do, now.
    Working,
    /// Nothing can be done before a file event.
    Waiting,
    /// It is done.
    Done,
    /// It cannot be done; the task itself is well.
    Declined(String),
}

impl Progress {
    /// That of two pieces of work which both have to be done.
    #[must_use]
    pub fn and(self, other: Progress) -> Progress {
        match (self, other) {
            (declined @ Progress::Declined(_), _) | (_, declined @ Progress::Declined(_)) => declined,
            (Progress::Working, _) | (_, Progress::Working) => Progress::Working,
            (Progress::Waiting, _) | (_, Progress::Waiting) => Progress::Waiting,
            (Progress::Done, Progress::Done) => Progress::Done,
        }
    }
}

struct Group<K, C> {
    table: HashTable<(K, C)>,
    /// The cut whose bytes of this group are written, or were not asked for.
    saved: u32,
}

/// The writing of one snapshot.
struct Run {
    target: FileTarget,
    appender: Option<Appender>,
    /// Where the scan for unwritten groups is.
    next: usize,
    current: Option<Current>,
    /// The frame being built, then sent.
    frame: Vec<u8>,
    sent: usize,
    slices: Vec<GroupSlice>,
    closing: Option<FileId>,
    receipt: Option<FileReceipt>,
    failed: Option<String>,
}

/// The group being written.
struct Current {
    index: usize,
    bucket: usize,
    offset: u64,
    hasher: Box<Xxh3>,
}

/// The state of one keyed operator instance.
pub struct KeyedState<K, C> {
    range: GroupRange,
    /// Which group a key belongs to.
    grouping: Groups,
    groups: Vec<Group<K, C>>,
    cut: u32,
    run: Option<Run>,
    /// Frame memory, kept between snapshots.
    scratch: Vec<u8>,
    /// What it may hold; without, anything.
    memory: Option<StateMemory>,
}

impl<K: Key, C: Cell> KeyedState<K, C> {
    /// Empty state for the key groups of `range`, out of those of `grouping`.
    pub fn new(range: GroupRange, grouping: Groups) -> Self {
        let groups = (0..range.len()).map(|_| Group { table: HashTable::new(), saved: 0 }).collect();
        KeyedState { range, grouping, groups, cut: 0, run: None, scratch: Vec::new(), memory: None }
    }

    /// Fingerprint of key and state type, as snapshots carry it.
    pub fn schema() -> u64 {
        let key = K::SHAPE.fingerprint();
        let value = C::Value::SHAPE.fingerprint();
        Fingerprint::new("keyed state").number(key).number(value).value()
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.table.len()).sum()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.table.is_empty())
    }

    /// Number of key groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Reserves from `memory` what it holds from now on.
    pub fn draw_on(&mut self, memory: StateMemory) {
        self.memory = Some(memory);
    }

    /// What it holds of the memory it draws on.
    pub(crate) fn memory(&mut self) -> Option<&mut StateMemory> {
        self.memory.as_mut()
    }

    /// The table of group number `index` of the range, to be changed, but not to be added to: ask `admit` first.
    #[inline(always)]
    pub fn table(&mut self, index: usize) -> &mut HashTable<(K, C)> {
        debug_assert_eq!(self.groups[index].saved, self.cut, "a group is changed only once it is written");
        &mut self.groups[index].table
    }

    /// The entry at `spot` whose key `is` the one: ask `admit` first.
    #[inline(always)]
    pub fn find(&mut self, spot: Spot, is: impl Fn(&K) -> bool) -> Option<&mut (K, C)> {
        let table = self.table(spot.group());
        // What `seek` saw is nearly always it, and then nothing is probed twice. It may have moved since, or be another key.
        let seen = table.get_bucket(spot.bucket as usize).is_some_and(|(known, _)| is(known));
        if seen { table.get_bucket_mut(spot.bucket as usize) } else { find_elsewhere(table, spot.hash, is) }
    }

    /// Adds a key that is not there yet: ask `admit` first.
    ///
    /// # Errors
    /// `Fault::Memory` if there is no room and no memory for more.
    pub fn insert(&mut self, spot: Spot, key: K, cell: C) -> Result<&mut (K, C), TaskError> {
        let table = self.table(spot.group());
        if table.len() == table.capacity() {
            self.grow(spot.group(), 1)?;
        }
        let entry = self.table(spot.group()).insert_unique(spot.hash, (key, cell), |(key, _)| key.hash());
        Ok(entry.into_mut())
    }

    /// Forgets the key at `spot` that `is` the one: ask `admit` first.
    pub fn remove(&mut self, spot: Spot, is: impl Fn(&K) -> bool) {
        if let Ok(entry) = self.table(spot.group()).find_entry(spot.hash, |(known, _)| is(known)) {
            entry.remove();
        }
    }

    /// Where the keys of up to `KEYED_BATCH` hashes are, or would be; asks for the memory that leads to, so that it is there
    /// when their turn comes.
    ///
    /// # Errors
    /// The key group that is not one of the range.
    #[inline(always)]
    pub fn seek(&self, hashes: &[u64], spots: &mut Spots) -> Result<(), u32> {
        self.grouping.each(hashes, self.range.first, &mut spots.indices);
        for ((&hash, &index), place) in hashes.iter().zip(&spots.indices).zip(&mut spots.buckets) {
            let Some(group) = self.groups.get(index as usize) else {
                return Err(index.wrapping_add(self.range.first));
            };
            // The first candidate is it but once in a hundred times; to compare keys would be to wait for the memory.
            let bucket = group.table.find_bucket_index(hash, |entry| {
                prefetch(entry);
                true
            });
            *place = bucket.map_or(u32::MAX, |bucket| bucket as u32);
        }
        Ok(())
    }

    /// Makes room for `more` entries; what that takes is reserved first.
    #[cold]
    fn grow(&mut self, index: usize, more: usize) -> Result<(), TaskError> {
        let table = &mut self.groups[index].table;
        let Some(memory) = &mut self.memory else { return Ok(()) }; // It grows by itself.
        let wanted = table.len().saturating_add(more);
        if wanted <= table.capacity() {
            return Ok(());
        }
        let before = table.allocation_size();
        memory.before_growth(before, table_bytes::<(K, C)>(wanted))?;
        table.reserve(more, |(key, _)| key.hash());
        memory.after_growth(before, table.allocation_size())
    }

    /// Whether a group may have to be written before it is changed. If not, `admit` says yes to all.
    #[inline]
    pub fn snapshot_goes_on(&self) -> bool {
        self.run.is_some()
    }

    /// Makes group number `index` ready to be changed: if a snapshot still needs it as it is, it is written now.
    /// False means that there is no file buffer.
    ///
    /// # Errors
    /// `Fault::TooLarge` if an entry is.
    #[inline]
    pub fn admit(&mut self, index: usize, files: &mut dyn Files) -> Result<bool, TaskError> {
        if self.groups[index].saved == self.cut {
            return Ok(true);
        }
        self.admit_unsaved(index, files)
    }

    #[cold]
    fn admit_unsaved(&mut self, index: usize, files: &mut dyn Files) -> Result<bool, TaskError> {
        while self.groups[index].saved != self.cut {
            match self.write(Some(index), files)? {
                Progress::Working => {}
                Progress::Waiting => return Ok(false),
                // A failed run asks for nothing any more.
                Progress::Done | Progress::Declined(_) => self.release_all(),
            }
        }
        Ok(true)
    }

    fn release_all(&mut self) {
        for group in &mut self.groups {
            group.saved = self.cut;
        }
    }

    /// Marks the state: what it is now is the snapshot. A run that is still going on is given up.
    pub fn cut(&mut self, target: FileTarget, files: &mut dyn Files) {
        self.abort(files);
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        self.cut = self.cut.wrapping_add(1);
        self.run = Some(Run {
            target,
            appender: None,
            next: 0,
            current: None,
            frame,
            sent: 0,
            slices: Vec::new(),
            closing: None,
            receipt: None,
            failed: None,
        });
    }

    /// Gives the snapshot up.
    pub fn abort(&mut self, files: &mut dyn Files) {
        if let Some(run) = self.run.take() {
            if let Some(appender) = run.appender {
                appender.abandon(files);
            }
            self.scratch = run.frame;
            self.release_all();
        }
    }

    /// Writes about `budget` bytes of the snapshot. `Done` once the file is safe; then `take` has the result.
    ///
    /// # Errors
    /// `Fault::TooLarge` if an entry is.
    pub fn step(&mut self, budget: u64, files: &mut dyn Files) -> Result<Progress, TaskError> {
        let start = self.written();
        loop {
            match self.write(None, files)? {
                Progress::Working if self.written() - start < budget => {}
                other => return Ok(other),
            }
        }
    }

    fn written(&self) -> u64 {
        self.run.as_ref().and_then(|run| run.appender.as_ref()).map_or(0, Appender::len)
    }

    /// One frame's worth of work, on `wanted` if it is given and no other group is half written.
    fn write(&mut self, wanted: Option<usize>, files: &mut dyn Files) -> Result<Progress, TaskError> {
        let Some(run) = &mut self.run else { return Ok(Progress::Done) };
        if let Some(cause) = &run.failed {
            return Ok(Progress::Declined(cause.clone()));
        }
        if run.closing.is_some() {
            return Ok(if run.receipt.is_some() { Progress::Done } else { Progress::Waiting });
        }
        if !run.send_frame(files) {
            return Ok(Progress::Waiting);
        }
        let Some(current) = &mut run.current else {
            return Ok(self.next_group(wanted, files));
        };
        let group = &mut self.groups[current.index];
        let id = self.range.first + current.index as u32;
        current.bucket = fill_frame(&mut run.frame, id, &group.table, current.bucket)?;
        current.hasher.update(&run.frame);
        if current.bucket == group.table.num_buckets() {
            // Its bytes are in the frame; from here on the table may change.
            group.saved = self.cut;
            run.close_slice(id);
        }
        Ok(Progress::Working)
    }

    /// Picks the next group to write; without any, closes the file.
    fn next_group(&mut self, wanted: Option<usize>, files: &mut dyn Files) -> Progress {
        let Some(run) = &mut self.run else { return Progress::Done };
        let mut index = wanted.filter(|&index| self.groups[index].saved != self.cut);
        while index.is_none() && run.next < self.groups.len() {
            let group = &self.groups[run.next];
            index = (group.saved != self.cut).then_some(run.next);
            run.next += usize::from(index.is_none());
        }
        let Some(index) = index else {
            let Some(appender) = run.appender.take() else { return Progress::Done };
            run.closing = Some(appender.finish(files).0);
            return Progress::Waiting;
        };
        let group = &mut self.groups[index];
        if group.table.is_empty() {
            group.saved = self.cut;
            return Progress::Working;
        }
        let target = &run.target;
        let appender = run.appender.get_or_insert_with(|| Appender::create(files, target.clone()));
        run.current = Some(Current { index, bucket: 0, offset: appender.len(), hasher: Box::default() });
        Progress::Working
    }

    /// Takes in what happened to the snapshot's file. Gives whether it was this one's.
    pub fn file_event(&mut self, event: &FileEvent) -> bool {
        let Some(run) = &mut self.run else { return false };
        let open = run.appender.as_ref().map(Appender::file).or(run.closing);
        if open.is_none() || event.file() != open {
            return false;
        }
        match event {
            FileEvent::Finished { receipt, .. } => run.receipt = Some(receipt.clone()),
            FileEvent::Failed { cause, .. } => run.failed = Some(cause.clone()),
            FileEvent::BuffersFree => {}
        }
        true
    }

    /// The finished snapshot, after `step` said `Done`.
    pub fn take(&mut self) -> OperatorSnapshot {
        let mut snapshot = OperatorSnapshot { schema: Self::schema(), ..OperatorSnapshot::default() };
        if let Some(run) = self.run.take() {
            self.scratch = run.frame;
            snapshot.file = run.receipt;
            snapshot.groups = run.slices;
            // They were written as records wanted them; whoever reads them looks them up by group.
            snapshot.groups.sort_unstable_by_key(|slice| slice.group);
        }
        self.release_all();
        snapshot
    }

    /// Reads back about `budget` bytes of `restore`. True once all is read.
    ///
    /// # Errors
    /// `Fault::State` if the bytes are not a snapshot of this key and state type, `Fault::Memory` if they are more than it
    /// may hold.
    pub fn restore(&mut self, restore: &mut Restore, budget: u64) -> Result<bool, TaskError> {
        let mut read = 0;
        while let Some(payload) = restore.payloads.get(restore.payload) {
            let Some(frame) = Frame::parse(&payload.bytes, restore.offset)? else {
                restore.payload += 1;
                restore.offset = 0;
                continue;
            };
            restore.offset = frame.end;
            read += frame.bytes.len() as u64;
            let wanted = payload.groups.is_none_or(|(first, last)| (first..=last).contains(&frame.group));
            let lost = planted(Plant::LoseKeyGroup) && frame.group % 8 == 3;
            if wanted
                && !lost
                && let Some(index) = self.range.index(frame.group)
            {
                let mark = self.memory.as_ref().map(StateMemory::mark);
                // A frame that lies about its entries is found out when they are read: no more than fit into it.
                self.grow(index, (frame.entries as usize).min(frame.bytes.len()))?;
                frame.read_into(&mut self.groups[index].table, self.grouping)?;
                if let (Some(memory), Some(mark)) = (&mut self.memory, mark) {
                    memory.settle(mark)?;
                }
            }
            if read >= budget {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Run {
    /// Moves the frame into file buffers; false if they ran out.
    fn send_frame(&mut self, files: &mut dyn Files) -> bool {
        let Some(appender) = &mut self.appender else { return true };
        while self.sent < self.frame.len() {
            if !appender.room(files, 1) {
                return false;
            }
            let spare = appender.spare();
            let n = spare.len().min(self.frame.len() - self.sent);
            spare[..n].copy_from_slice(&self.frame[self.sent..self.sent + n]);
            appender.advance(n);
            self.sent += n;
        }
        self.frame.clear();
        self.sent = 0;
        true
    }

    /// The last frame of the current group is built.
    fn close_slice(&mut self, group: u32) {
        let current = self.current.take().expect("invariant: a slice is closed while its group is current");
        let written = self.appender.as_ref().map_or(0, Appender::len);
        let len = written + self.frame.len() as u64 - current.offset;
        let hash = current.hasher.digest();
        self.slices.push(GroupSlice { group, offset: current.offset, len, hash });
    }
}

#[cold]
#[inline(never)]
fn find_elsewhere<K, C>(
    table: &mut HashTable<(K, C)>,
    hash: u64,
    is: impl Fn(&K) -> bool,
) -> Option<&mut (K, C)> {
    table.find_mut(hash, |(known, _)| is(known))
}

/// About how many bytes a table for `entries` takes: seven eighths of a power of two of places, each with a byte beside it.
fn table_bytes<T>(entries: usize) -> usize {
    let places =
        entries.saturating_mul(8).div_ceil(7).max(4).checked_next_power_of_two().unwrap_or(usize::MAX);
    places.saturating_mul(size_of::<T>().saturating_add(1))
}

/// Where a restore is in what it reads.
#[derive(Debug, Default)]
pub struct Restore {
    payloads: Vec<StatePayload>,
    payload: usize,
    offset: usize,
}

impl Restore {
    /// A restore from `payloads`.
    pub fn new(payloads: Vec<StatePayload>) -> Self {
        Restore { payloads, payload: 0, offset: 0 }
    }
}
