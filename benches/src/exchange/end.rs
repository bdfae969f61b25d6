//! One side of an exchange that runs alone: a slot with nothing but its ports, its driver and the thread it is on.
//!
//! Owns the exchange. Always: a turn comes after each step, as in a slot, and a side that is stuck says so and ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize, Shard};
use tidegate_exchange::{
    AttemptPlan, Endpoint, Exchange, ExchangeConfig, LocalHub, Prepared, SlotId, TaskIds, TaskPorts,
};
use tidegate_ring::{AnyRing, EpollConfig, EpollRing, UringConfig, UringRing};

/// A run that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(120);
const JOB: u128 = 1;
const ATTEMPT: u32 = 1;

/// An arena with a shard for each of `segments`.
pub fn arena(segments: &[u32], segment_bytes: u32) -> Result<Vec<Shard>, String> {
    let config = ArenaConfig {
        segment_size: SegmentSize::new(segment_bytes).map_err(|error| error.to_string())?,
        shards: segments.to_vec(),
        huge_pages: HugePages::Auto,
    };
    Ok(Arena::map(&config).map_err(|error| error.to_string())?.1)
}

/// An end that listens on loopback.
pub fn endpoint() -> Result<Endpoint, String> {
    Endpoint::bind(([127, 0, 0, 1], 0).into(), Default::default()).map_err(|error| error.to_string())
}

/// One side.
pub struct End {
    pub slot: Exchange<AnyRing>,
    /// How often its thread waited since it was prepared.
    pub waits: u64,
}

impl End {
    /// With the segments of `shard`; `hub` is shared by the slots of one process.
    pub fn open(
        endpoint: &Endpoint,
        me: SlotId,
        shard: Shard,
        hub: LocalHub,
        flush: Duration,
    ) -> Result<Self, String> {
        let (arena, index) = (shard.arena().clone(), shard.index());
        let ring: AnyRing = match UringRing::new(&arena, index, &UringConfig::default()) {
            Ok(ring) => ring.into(),
            Err(_) => EpollRing::new(&arena, &EpollConfig::default()).map_err(|e| e.to_string())?.into(),
        };
        let config = ExchangeConfig { me, cluster: 1 };
        let mut slot = Exchange::new(ring, shard, hub, endpoint.connector(), config);
        slot.set_flush(flush);
        endpoint.register(me, slot.mailbox());
        Ok(Self { slot, waits: 0 })
    }

    /// Turns until `step` is done, which returns (did something, is done).
    pub fn turn_until(
        &mut self,
        mut step: impl FnMut(&mut Exchange<AnyRing>) -> Result<(bool, bool), String>,
    ) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let busy = self.slot.turn();
            let (moved, done) = step(&mut self.slot)?;
            if let Some(fault) = self.slot.take_fault() {
                return Err(fault.to_string());
            }
            if done {
                return Ok(());
            }
            if !busy && !moved {
                if start.elapsed() > HANGS {
                    return Err(format!("it hangs: {:?}", self.slot.ports.counters()));
                }
                self.waits += 1;
                self.slot.wait(Some(Duration::from_secs(1)));
            }
        }
    }

    /// Reserves the ports of `tasks`, and connects with the TaskManager `producers` at its address.
    pub fn prepare(
        &mut self,
        tasks: Vec<TaskPorts>,
        producers: (u64, SocketAddr),
        record_max: u32,
    ) -> Result<Vec<TaskIds>, String> {
        let peers = BTreeMap::from([producers]);
        let plan = AttemptPlan { job: JOB, epoch: 1, attempt: ATTEMPT, tasks, peers, record_max };
        let ids = self.slot.prepare(&plan).map_err(|error| error.to_string())?;
        self.turn_until(|slot| Ok((false, slot.prepared(JOB, ATTEMPT) != Prepared::Pending)))?;
        self.waits = 0;
        Ok(ids)
    }

    /// Ends its links in order.
    pub fn retire(mut self) -> Result<(), String> {
        self.slot.retire(JOB, ATTEMPT);
        self.turn_until(|slot| Ok((false, slot.closed(JOB, ATTEMPT))))
    }
}
