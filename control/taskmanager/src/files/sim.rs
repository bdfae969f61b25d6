//! The files thread without a thread and without a disk: a simulation carries out its operations, in its own time.
//!
//! It owns what the thread owns: the core, the slots' requests, the other side of every buffer. Always true: what is true
//! of the files thread, whose decisions these are.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::core::{Core, Done, Operation};
use super::slot::{Lending, Loan, Roots, SlotFiles};
use super::{Deliver, Inbox, deliver};
use crate::limits::FILE_REQUESTS_PER_SLOT;

/// See the module.
pub struct SimFilesThread {
    core: Core<Loan>,
    inbox: Inbox,
    lendings: Vec<Lending>,
    ready: VecDeque<Operation<Loan>>,
}

impl SimFilesThread {
    /// The thread's side and each slot's. `tell` has one entry per slot.
    pub fn new(roots: &Roots, tell: Vec<Deliver>) -> (Self, Vec<SlotFiles>) {
        let (requests, inbox) = mpsc::channel(tell.len().max(1) * FILE_REQUESTS_PER_SLOT);
        let (sides, bytes) = (tell.into_iter().zip(0..), Arc::default());
        let (slots, lendings) = sides
            .map(|(tell, slot)| {
                SlotFiles::new(slot, requests.clone(), roots.clone(), Arc::clone(&bytes), tell)
            })
            .collect::<(Vec<_>, Vec<_>)>();
        (Self { core: Core::default(), inbox, lendings, ready: VecDeque::new() }, slots)
    }

    /// Takes in what slots asked for; gives the next operation to carry out.
    pub fn poll(&mut self) -> Option<Operation<Loan>> {
        while let Ok(request) = self.inbox.try_recv() {
            self.core.handle_request(request);
        }
        self.pump();
        self.ready.pop_front()
    }

    /// An operation has ended.
    pub fn done(&mut self, done: Done<Loan>) {
        self.core.handle_done(done);
        self.pump();
    }

    /// Files that are not over yet.
    pub fn files_open(&self) -> usize {
        self.core.files_open()
    }

    fn pump(&mut self) {
        self.ready.extend(std::iter::from_fn(|| self.core.poll_operation()));
        while let Some(event) = self.core.poll_event() {
            deliver(event, &self.lendings);
        }
    }
}
