//! The bounded queue of commands into a slot, and the doorbell that goes with it.
//!
//! Any thread may send; only the slot receives. Always: a command is in the queue before the bell rings, so the slot that
//! wakes finds it.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::limits::COMMANDS_MAX;
use crate::slot::message::SlotCommand;

/// A command could not be handed over; it comes back.
#[derive(Debug)]
pub enum MailboxError {
    /// The slot has not taken in its last commands yet: it is stuck in user code, or flooded.
    Full(SlotCommand),
    /// The slot's thread has ended.
    Closed(SlotCommand),
}

impl fmt::Display for MailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MailboxError::Full(_) => {
                write!(f, "{COMMANDS_MAX} commands wait for the slot already: it does not take them in")
            }
            MailboxError::Closed(_) => write!(f, "the slot's thread has ended"),
        }
    }
}

impl std::error::Error for MailboxError {}

/// The way into a slot for commands. Cheap to clone.
#[derive(Clone)]
pub struct SlotMailbox {
    sender: SyncSender<SlotCommand>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

impl SlotMailbox {
    /// Hands a command over and wakes the slot.
    ///
    /// # Errors
    /// `MailboxError`, with the command.
    pub fn send(&self, command: SlotCommand) -> Result<(), MailboxError> {
        match self.sender.try_send(command) {
            Ok(()) => {
                (self.ring)();
                Ok(())
            }
            Err(TrySendError::Full(command)) => Err(MailboxError::Full(command)),
            Err(TrySendError::Disconnected(command)) => Err(MailboxError::Closed(command)),
        }
    }
}

impl fmt::Debug for SlotMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMailbox").finish_non_exhaustive()
    }
}

/// Both ends; `ring` is the slot's doorbell.
pub(crate) fn mailbox(ring: Arc<dyn Fn() + Send + Sync>) -> (SlotMailbox, Receiver<SlotCommand>) {
    let (sender, receiver) = sync_channel(COMMANDS_MAX);
    (SlotMailbox { sender, ring }, receiver)
}
