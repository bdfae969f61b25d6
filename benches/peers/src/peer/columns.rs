//! Columns as a container of timely's, after its example `columnar`: pushed into as typed columns, read where they arrived.
//!
//! Always: a builder's containers hold as many records as were pushed. How many make a message is set once a process.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use columnar::bytes::stash::Stash;
use columnar::common::IterOwn;
use columnar::{Index, Len, Push};
use timely::bytes::arc::Bytes;
use timely::container::{
    Accountable, ContainerBuilder, DrainContainer, LengthPreservingContainerBuilder, PushInto,
    SizableContainer,
};
use timely::dataflow::channels;

static CAPACITY: AtomicUsize = AtomicUsize::new(1024);

/// Says how many records make a message.
pub fn set_capacity(records: usize) {
    CAPACITY.store(records, Ordering::Relaxed);
}

/// Columns, typed or as bytes.
#[derive(Clone, Default)]
pub struct Column<C> {
    stash: Stash<C, Bytes>,
}

impl<C: columnar::ContainerBytes> Column<C> {
    /// What is in them, however it is kept.
    #[inline]
    pub fn borrow(&self) -> C::Borrowed<'_> {
        self.stash.borrow()
    }

    /// Adds a record.
    #[inline]
    pub fn push<T>(&mut self, item: T)
    where
        C: Push<T>,
    {
        self.stash.push(item);
    }
}

impl<C: columnar::ContainerBytes> Accountable for Column<C> {
    #[inline]
    fn record_count(&self) -> i64 {
        self.borrow().len() as i64
    }
}

impl<C: columnar::ContainerBytes> DrainContainer for Column<C> {
    type Item<'a> = C::Ref<'a>;
    type DrainIter<'a> = IterOwn<C::Borrowed<'a>>;

    #[inline]
    fn drain(&mut self) -> Self::DrainIter<'_> {
        self.borrow().into_index_iter()
    }
}

impl<C: columnar::ContainerBytes> SizableContainer for Column<C> {
    fn at_capacity(&self) -> bool {
        self.borrow().len() >= CAPACITY.load(Ordering::Relaxed)
    }

    fn ensure_capacity(&mut self, _stash: &mut Option<Self>) {}
}

impl<C: columnar::ContainerBytes> channels::ContainerBytes for Column<C> {
    fn from_bytes(bytes: Bytes) -> Self {
        // Timely's trait has no way to refuse; the process ends, and with it the run.
        Self { stash: Stash::try_from_bytes(bytes).expect("invariant: the other end is this program") }
    }

    fn length_in_bytes(&self) -> usize {
        self.stash.length_in_bytes()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        self.stash.write_bytes(writer).expect("invariant: timely made room for as many bytes");
    }
}

/// Makes messages of the records for one worker.
#[derive(Default)]
pub struct ColumnBuilder<C> {
    current: C,
    records: usize,
    pending: VecDeque<Column<C>>,
    /// The one that was taken last; timely borrows it.
    taken: Option<Column<C>>,
}

impl<C: columnar::ContainerBytes, T> PushInto<T> for ColumnBuilder<C>
where
    C: Push<T>,
{
    #[inline]
    fn push_into(&mut self, item: T) {
        self.current.push(item);
        self.records += 1;
        if self.records >= CAPACITY.load(Ordering::Relaxed) {
            self.ship();
        }
    }
}

impl<C: columnar::ContainerBytes> ColumnBuilder<C> {
    fn ship(&mut self) {
        // The columns of the last message are empty and large enough: their memory is used again.
        let mut next = match self.taken.take().map(|column| column.stash) {
            Some(Stash::Typed(columns)) => columns,
            _ => C::default(),
        };
        next.clear();
        let full = std::mem::replace(&mut self.current, next);
        self.pending.push_back(Column { stash: Stash::Typed(full) });
        self.records = 0;
    }
}

impl<C: columnar::ContainerBytes> ContainerBuilder for ColumnBuilder<C> {
    type Container = Column<C>;

    #[inline]
    fn extract(&mut self) -> Option<&mut Column<C>> {
        let next = self.pending.pop_front()?;
        Some(self.taken.insert(next))
    }

    #[inline]
    fn finish(&mut self) -> Option<&mut Column<C>> {
        if self.records > 0 {
            self.ship();
        }
        self.extract()
    }
}

impl<C: columnar::ContainerBytes> LengthPreservingContainerBuilder for ColumnBuilder<C> {}
