//! TaskManagers and their slots: who may join, what is free, who was last heard when.
//!
//! Owned by the core. Always: a TaskManager has exactly one connection; a slot is free or belongs to one
//! attempt; a lost TaskManager is forgotten with its slots.

use super::CoreConfig;
use crate::limits::REGISTER_TIMEOUT_MS;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use tidegate_graph::{Placement, Segments, SlotOffer};
use tidegate_plant::{Plant, Rare, planted, rare};
use tidegate_rpc::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_MIN, SLOTS_PER_TASKMANAGER_MAX};
use tidegate_rpc::{ClusterId, Heartbeat, JobId, MemoryUse, Refusal, Register, SlotMetrics};

/// All connections and TaskManagers.
#[derive(Debug, Default)]
pub(super) struct Registry {
    connections: BTreeMap<u64, Connection>,
    taskmanagers: BTreeMap<u64, TaskManager>,
}

#[derive(Debug)]
struct Connection {
    peer: Option<IpAddr>,
    /// Set once it has registered.
    taskmanager: Option<u64>,
    /// It must have registered by then.
    register_by_ms: u64,
}

/// A registered TaskManager.
#[derive(Debug)]
pub(crate) struct TaskManager {
    pub(crate) conn: u64,
    pub(crate) register: Register,
    pub(crate) address: SocketAddr,
    pub(crate) slots: Vec<Option<(JobId, u32)>>,
    pub(crate) heard_ms: u64,
    pub(crate) leaving: bool,
    pub(crate) metrics: Vec<SlotMetrics>,
    pub(crate) heap_allocations: u64,
    pub(crate) memory: MemoryUse,
    pub(crate) connections_refused: u64,
}

impl TaskManager {
    /// Slots that can be given away.
    pub(crate) fn free(&self) -> u32 {
        if self.leaving { 0 } else { self.slots.iter().filter(|slot| slot.is_none()).count() as u32 }
    }
}

impl Registry {
    pub(super) fn connected(&mut self, conn: u64, peer: Option<IpAddr>, register_by_ms: u64) {
        self.connections.insert(conn, Connection { peer, taskmanager: None, register_by_ms });
    }

    pub(super) fn is_open(&self, conn: u64) -> bool {
        self.connections.contains_key(&conn)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = u64> + use<> {
        self.connections.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn taskmanager_of(&self, conn: u64) -> Option<u64> {
        self.connections.get(&conn)?.taskmanager
    }

    pub(super) fn connection_of(&self, taskmanager: u64) -> Option<u64> {
        self.taskmanagers.get(&taskmanager).map(|found| found.conn)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &TaskManager> {
        self.taskmanagers.values()
    }

    pub(super) fn get(&self, taskmanager: u64) -> Option<&TaskManager> {
        self.taskmanagers.get(&taskmanager)
    }

    /// The largest record that all TaskManagers of the placement have regions for, and the segments of such a region; zeros
    /// if records have to fit a segment.
    pub(super) fn record_max(&self, placement: &Placement) -> (u32, u32) {
        let registers = || placement.slots().into_iter().filter_map(|slot| self.get(slot.taskmanager));
        let record_max = registers().map(|found| found.register.record_max).min().unwrap_or(0);
        let segment = registers().map(|found| found.register.segment_size).max().unwrap_or(0);
        // Numbers that no TaskManager of ours would say are cut, so that sums with them hold.
        let record_max = record_max.min(RECORD_BYTES_MAX);
        match Segments::of_region(record_max, segment.max(SEGMENT_BYTES_MIN)) {
            0 => (0, 0),
            region => (record_max, region),
        }
    }

    /// Whether a TaskManager may join.
    pub(super) fn check(&self, register: &Register, config: &CoreConfig) -> Result<(), Refusal> {
        if register.binary_fingerprint != config.binary_fingerprint {
            let (expected, found) = (config.binary_fingerprint, register.binary_fingerprint);
            return Err(Refusal::Binary { expected, found });
        }
        if register.cluster != ClusterId(0) && register.cluster != config.cluster {
            return Err(Refusal::Cluster { expected: config.cluster, found: register.cluster });
        }
        if register.epoch_seen > config.epoch && !planted(Plant::SkipEpochCheck) {
            return Err(Refusal::StaleEpoch { expected: config.epoch, found: register.epoch_seen });
        }
        if register.slots == 0 || register.slots > SLOTS_PER_TASKMANAGER_MAX {
            return Err(Refusal::Slots { expected: SLOTS_PER_TASKMANAGER_MAX, found: register.slots });
        }
        if let Some(other) = self.taskmanagers.values().next()
            && other.register.segment_size != register.segment_size
            && other.register.taskmanager != register.taskmanager
        {
            let (expected, found) = (other.register.segment_size, register.segment_size);
            return Err(Refusal::SegmentSize { expected, found });
        }
        if let Some(known) = self.taskmanagers.get(&register.taskmanager)
            && known.register.incarnation >= register.incarnation
        {
            let (expected, found) = (known.register.incarnation, register.incarnation);
            return Err(Refusal::Incarnation { expected, found });
        }
        Ok(())
    }

    /// Takes in a TaskManager that passed [`Registry::check`].
    pub(super) fn register(&mut self, conn: u64, register: Register, now_ms: u64) {
        let connection = self.connections.get_mut(&conn).expect("invariant: it is open");
        connection.taskmanager = Some(register.taskmanager);
        let mut address = register.data_address;
        if let Some(peer) = connection.peer.filter(|_| address.ip().is_unspecified()) {
            address.set_ip(peer);
        }
        let mut slots = vec![None; register.slots as usize];
        for held in &register.held {
            if let Some(slot) = slots.get_mut(held.slot as usize) {
                *slot = Some((held.job, held.attempt));
            }
        }
        let taskmanager = TaskManager {
            conn,
            address,
            slots,
            heard_ms: now_ms,
            leaving: false,
            metrics: Vec::new(),
            heap_allocations: 0,
            memory: MemoryUse::default(),
            connections_refused: 0,
            register,
        };
        self.taskmanagers.insert(taskmanager.register.taskmanager, taskmanager);
    }

    /// Forgets a connection and, if it had registered, its TaskManager; gives that one, and whether it had said that
    /// it leaves.
    pub(super) fn forget(&mut self, conn: u64) -> Option<(u64, bool)> {
        let taskmanager = self.connections.remove(&conn)?.taskmanager?;
        let leaving = self.taskmanagers.remove(&taskmanager).is_some_and(|found| found.leaving);
        Some((taskmanager, leaving))
    }

    pub(super) fn heard(&mut self, taskmanager: u64, now_ms: u64) {
        if let Some(found) = self.taskmanagers.get_mut(&taskmanager) {
            found.heard_ms = now_ms;
        }
    }

    /// Nobody could be heard until now: everybody gets a whole timeout again.
    pub(super) fn forgive(&mut self, now_ms: u64) {
        for found in self.taskmanagers.values_mut() {
            found.heard_ms = now_ms;
        }
        for connection in self.connections.values_mut() {
            connection.register_by_ms = connection.register_by_ms.max(now_ms + REGISTER_TIMEOUT_MS);
        }
    }

    pub(super) fn leaving(&mut self, taskmanager: u64) {
        if let Some(found) = self.taskmanagers.get_mut(&taskmanager) {
            found.leaving = true;
        }
    }

    pub(super) fn measured(&mut self, taskmanager: u64, heartbeat: Heartbeat) {
        if let Some(found) = self.taskmanagers.get_mut(&taskmanager) {
            found.metrics = heartbeat.slots;
            found.metrics.truncate(found.slots.len());
            found.heap_allocations = heartbeat.heap_allocations;
            found.memory = heartbeat.memory;
            found.connections_refused = heartbeat.connections_refused;
        }
    }

    /// A slot is free again.
    pub(super) fn closed(&mut self, taskmanager: u64, slot: u32, attempt: (JobId, u32), segments_free: u32) {
        let Some(found) = self.taskmanagers.get_mut(&taskmanager) else { return };
        if let Some(held) = found.slots.get_mut(slot as usize)
            && *held == Some(attempt)
        {
            *held = None;
        }
        if let Some(metrics) = found.metrics.iter_mut().find(|metrics| metrics.slot == slot) {
            metrics.segments_free = segments_free;
        }
    }

    /// Gives a free slot to an attempt.
    pub(super) fn occupy(&mut self, slot: SlotOffer, attempt: (JobId, u32)) {
        let found = self.taskmanagers.get_mut(&slot.taskmanager).expect("invariant: only offers are taken");
        let place = &mut found.slots[slot.slot as usize];
        assert!(place.is_none(), "invariant: a slot belongs to one attempt");
        *place = Some(attempt);
    }

    pub(super) fn offers(&self) -> Vec<SlotOffer> {
        let free = self.taskmanagers.iter().filter(|(_, found)| !found.leaving).flat_map(|(id, found)| {
            (0u32..)
                .zip(&found.slots)
                .filter(|(_, held)| held.is_none())
                .map(|(slot, _)| SlotOffer { taskmanager: *id, slot })
        });
        free.collect()
    }

    /// All slots, as if nothing ran.
    pub(super) fn all_slots(&self) -> Vec<SlotOffer> {
        let all = self.taskmanagers.iter().filter(|(_, found)| !found.leaving).flat_map(|(id, found)| {
            (0..found.slots.len() as u32).map(|slot| SlotOffer { taskmanager: *id, slot })
        });
        all.collect()
    }

    pub(super) fn slots_total(&self) -> u32 {
        self.taskmanagers.values().map(|found| found.slots.len() as u32).sum()
    }

    pub(super) fn slots_free(&self) -> u32 {
        self.taskmanagers.values().map(TaskManager::free).sum()
    }

    /// When the next connection runs out of time if nothing is heard.
    pub(super) fn next_timeout(&self, heartbeat_timeout_ms: u64) -> Option<u64> {
        let silent = self.taskmanagers.values().map(|found| found.heard_ms + heartbeat_timeout_ms);
        let unknown = self
            .connections
            .values()
            .filter(|connection| connection.taskmanager.is_none())
            .map(|connection| connection.register_by_ms);
        silent.chain(unknown).min()
    }

    /// Connections that are out of time, with the reason.
    pub(super) fn expired(&self, now_ms: u64, heartbeat_timeout_ms: u64) -> Vec<(u64, String)> {
        let mut expired = Vec::new();
        let early = if rare(Rare::SuspectEarly) { heartbeat_timeout_ms / 2 } else { 0 };
        let heartbeat_timeout_ms = heartbeat_timeout_ms - early;
        for (conn, connection) in &self.connections {
            match connection.taskmanager.and_then(|id| self.taskmanagers.get(&id)) {
                Some(found) => {
                    let silent = now_ms.saturating_sub(found.heard_ms);
                    if silent >= heartbeat_timeout_ms {
                        expired.push((*conn, format!("not heard for {silent} ms")));
                    }
                }
                None if now_ms >= connection.register_by_ms => {
                    expired.push((*conn, "it did not register".to_owned()));
                }
                None => {}
            }
        }
        expired
    }
}
