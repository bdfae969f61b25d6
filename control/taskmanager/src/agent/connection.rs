//! The agent's side of the connection: registration, refusals, epochs, and which message does what.
//!
//! Always true: a message takes effect only on a connection that is registered, and only if its epoch is not over.

use std::path::PathBuf;

use tidegate_exchange::plant::{Plant, Rare, planted, rare};
use tidegate_rpc::{
    ClusterId, Envelope, HeldSlot, JobId, Refusal, Register, Registered, ToJobManager, ToTaskManager,
};
use tidegate_stream::slot::{AttemptId, SlotCommand};

use super::deploy::Occupant;
use super::{Action, Agent, End, Link};
use crate::limits::{RECONNECT_MAX, RECONNECT_MIN};

impl Agent {
    pub(super) fn connected(&mut self, now_ms: u64) {
        self.incarnation += 1;
        self.link = Link::Registering { since_ms: now_ms };
        let held = self.slots.iter().enumerate().filter_map(|(slot, occupant)| {
            let AttemptId { job, attempt } = occupant.attempt()?;
            Some(HeldSlot { slot: slot as u32, job: JobId(job), attempt })
        });
        self.named = held.collect();
        let register = Register {
            taskmanager: self.identity.taskmanager,
            incarnation: self.incarnation,
            slots: self.identity.slots,
            data_address: self.identity.data_address,
            host: self.identity.host.clone(),
            pid: self.identity.pid,
            binary_fingerprint: self.identity.binary_fingerprint,
            cluster: self.cluster,
            epoch_seen: self.fence.epoch(),
            segment_size: self.identity.segment_size,
            segments_per_slot: self.identity.segments_per_slot,
            record_max: self.identity.record_max,
            links_per_slot: self.identity.links_per_slot,
            memory: self.identity.memory.clone(),
            driver: self.identity.driver.clone(),
            held: self.named.clone(),
        };
        // The first message of a connection has epoch 0: which one it joins, the answer says.
        let envelope = Envelope::new(0, ToJobManager::Register(Box::new(register)));
        self.actions.push_back(Action::Send(Box::new(envelope)));
    }

    pub(super) fn disconnected(&mut self, now_ms: u64, reason: &str) {
        if self.link == Link::Registered {
            tracing::warn!("lost the JobManager ({reason}); cancelling every attempt and looking for it");
            self.actions.push_back(Action::Heartbeats { interval_ms: 0 });
        }
        self.link = Link::Down;
        self.cancel_all(now_ms);
        if !self.leaving {
            let after_ms = if rare(Rare::DialNow) { 0 } else { backoff_ms(self.retries) };
            self.retries = self.retries.saturating_add(1);
            self.actions.push_back(Action::Dial { after_ms });
        }
    }

    pub(super) fn registered(&mut self, now_ms: u64, registered: Registered) {
        if self.fence.admit(registered.epoch).is_err() && !planted(Plant::SkipEpochCheck) {
            tracing::warn!(
                epoch = registered.epoch,
                seen = self.fence.epoch(),
                "a JobManager of an older epoch answers"
            );
            return self.hang_up(now_ms, "its epoch is over");
        }
        tracing::info!(epoch = registered.epoch, cluster = %registered.cluster, "registered");
        if self.cluster == ClusterId::default() {
            self.cluster = registered.cluster;
            self.actions.push_back(Action::Join(registered.cluster));
        }
        self.link = Link::Registered;
        self.retries = 0;
        self.store = PathBuf::from(registered.store);
        self.actions.push_back(Action::Heartbeats { interval_ms: registered.heartbeat_interval_ms });
        for HeldSlot { slot, job, attempt } in std::mem::take(&mut self.named) {
            let held = AttemptId { job: job.0, attempt };
            if self.slots[slot as usize].attempt() != Some(held) {
                // It closed since, when nobody could be told.
                self.closed(slot, held, self.segments_free[slot as usize]);
            }
        }
    }

    pub(super) fn refused(&mut self, now_ms: u64, refusal: Refusal) {
        let passing = match &refusal {
            // Too many connections, or too slow to register: so says a JobManager that is overloaded, too.
            Refusal::Protocol(_) => true,
            Refusal::StaleEpoch { .. } | Refusal::Incarnation { .. } | Refusal::Draining => true,
            Refusal::Version { .. }
            | Refusal::Binary { .. }
            | Refusal::Cluster { .. }
            | Refusal::SegmentSize { .. }
            | Refusal::Slots { .. } => false,
        };
        if passing {
            tracing::warn!("the JobManager refuses this TaskManager for now: {refusal}");
            self.hang_up(now_ms, "refused");
        } else {
            self.end(End::Refused(refusal));
        }
    }

    pub(super) fn hang_up(&mut self, now_ms: u64, reason: &str) {
        self.actions.push_back(Action::HangUp);
        self.disconnected(now_ms, reason);
    }

    pub(super) fn message(&mut self, now_ms: u64, envelope: Envelope<ToTaskManager>) {
        let Envelope { epoch, body, .. } = envelope;
        match (self.link, body) {
            (Link::Registering { .. }, ToTaskManager::Registered(registered)) => {
                self.registered(now_ms, registered)
            }
            (Link::Registering { .. }, ToTaskManager::Refused(refusal)) => self.refused(now_ms, refusal),
            (Link::Registered, body) => match self.fence.admit(epoch) {
                Ok(()) => self.command(now_ms, epoch, body),
                Err(_) if planted(Plant::SkipEpochCheck) => self.command(now_ms, epoch, body),
                Err(stale) => tracing::warn!("ignored a message: {stale}"),
            },
            (_, body) => tracing::warn!("ignored a message before registration: {}", name_of(&body)),
        }
    }

    pub(super) fn command(&mut self, now_ms: u64, epoch: u64, body: ToTaskManager) {
        match body {
            ToTaskManager::Prepare(prepare) => self.prepare(epoch, *prepare),
            ToTaskManager::Start { job, attempt } => self.tell_slots(job, attempt, SlotCommand::Start),
            ToTaskManager::Trigger { job, attempt, checkpoint } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::Trigger { attempt, checkpoint });
            }
            ToTaskManager::CheckpointComplete { job, attempt, checkpoint, last } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::CheckpointComplete {
                    attempt,
                    checkpoint,
                    last,
                });
            }
            ToTaskManager::CheckpointAborted { job, attempt, checkpoint } => {
                self.tell_slots(job, attempt, |attempt| SlotCommand::CheckpointAborted {
                    attempt,
                    checkpoint,
                });
            }
            ToTaskManager::Cancel { job, attempt } => self.cancel(now_ms, AttemptId { job: job.0, attempt }),
            ToTaskManager::Goodbye { reason } => tracing::info!("the JobManager leaves: {reason}"),
            ToTaskManager::Refused(refusal) => self.refused(now_ms, refusal),
            ToTaskManager::Registered(_) => {
                tracing::warn!("the JobManager registered this TaskManager twice")
            }
        }
    }

    /// Tells every slot that runs the attempt. Attempts that are not here any more are nobody's business.
    pub(super) fn tell_slots(
        &mut self,
        job: JobId,
        attempt: u32,
        command: impl Fn(AttemptId) -> SlotCommand,
    ) {
        let wanted = AttemptId { job: job.0, attempt };
        for (slot, occupant) in self.slots.iter().enumerate() {
            if matches!(occupant, Occupant::Running { attempt, .. } if *attempt == wanted) {
                self.actions.push_back(Action::Command(slot as u32, command(wanted)));
            }
        }
    }
}

/// The wait before dialling for the `retries`-th time.
fn backoff_ms(retries: u32) -> u64 {
    let wait = (RECONNECT_MIN.as_millis() as u64).saturating_mul(1 << retries.min(16));
    wait.min(RECONNECT_MAX.as_millis() as u64)
}

fn name_of(message: &ToTaskManager) -> &'static str {
    match message {
        ToTaskManager::Registered(_) => "Registered",
        ToTaskManager::Refused(_) => "Refused",
        ToTaskManager::Prepare(_) => "Prepare",
        ToTaskManager::Start { .. } => "Start",
        ToTaskManager::Trigger { .. } => "Trigger",
        ToTaskManager::CheckpointComplete { .. } => "CheckpointComplete",
        ToTaskManager::CheckpointAborted { .. } => "CheckpointAborted",
        ToTaskManager::Cancel { .. } => "Cancel",
        ToTaskManager::Goodbye { .. } => "Goodbye",
    }
}
