//! One door to threads and atomics: the standard library's, loom's under `--cfg loom`, or shuttle's under `--cfg shuttle`.
//! No state of its own.
//!
//! Everything concurrent in this crate comes through here, so the models explore the code that ships, but for one load in
//! `marks.rs`. Loom tries all interleavings and all that weak memory may show, of two or three threads; shuttle tries some
//! interleavings, of as many as there are, and takes each access for sequentially consistent.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// A cell reached through closures, as loom wants it. Shuttle knows no cells: there, two accesses at once, one of them for
/// writing, are found here.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(Inner<T>, #[cfg(shuttle)] AtomicBool);

#[cfg(loom)]
type Inner<T> = loom::cell::UnsafeCell<T>;
#[cfg(not(loom))]
type Inner<T> = std::cell::UnsafeCell<T>;

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(
            Inner::new(value),
            #[cfg(shuttle)]
            AtomicBool::new(false),
        )
    }

    /// Passes a pointer for reading. The caller's rule makes reading through it sound.
    #[inline]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        #[cfg(loom)]
        return self.0.with(read);
        #[cfg(shuttle)]
        assert!(!self.1.load(Ordering::SeqCst), "a cell is read while somebody writes it");
        #[cfg(not(loom))]
        read(self.0.get().cast_const())
    }

    /// Passes a pointer for writing. The caller's rule makes writing through it sound.
    #[inline]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(loom)]
        return self.0.with_mut(write);
        #[cfg(shuttle)]
        assert!(!self.1.swap(true, Ordering::SeqCst), "a cell is written by two at once");
        #[cfg(not(loom))]
        {
            let result = write(self.0.get());
            #[cfg(shuttle)]
            self.1.store(false, Ordering::SeqCst);
            result
        }
    }
}

/// The bytes of a segment as loom sees them: mapped memory is invisible to it, so every access to a segment's bytes
/// also touches its shadow, and an access without an edge to the one before fails the model. Nothing in a real build.
#[derive(Debug)]
pub(crate) struct Shadow(#[cfg(loom)] UnsafeCell<()>);

// SAFETY: rule 7. It holds no bytes; loom itself finds accesses that are not ordered, which is what it is for.
#[cfg(loom)]
unsafe impl Sync for Shadow {}

impl Shadow {
    pub(crate) fn new() -> Self {
        Self(
            #[cfg(loom)]
            UnsafeCell::new(()),
        )
    }

    /// The segment's bytes are (or were until now) readable by this thread.
    #[inline]
    pub(crate) fn read(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
    }

    /// The segment's bytes are (or were until now) writable by this thread.
    #[inline]
    pub(crate) fn write(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }
}
