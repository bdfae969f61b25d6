//! The bounds of this crate, with their reasons and how they relate.

use std::time::Duration;

use tidegate_flow::limits::{EVENTS_MAX, PLACES_MAX};
use tidegate_ring::PARTS_MAX;
use tidegate_ring::limits::NOTIFICATIONS_MAX;
use tidegate_wire::{ENTRIES_MAX, PAYLOAD_MAX, PAYLOADS_MAX};

/// Segments a partition needs to make progress: one that is filled or sent, one spare for a worst-case record.
pub const PARTITION_SEGMENTS_MIN: u32 = 2;
/// Segments beyond one per channel that let a partition fill while a whole train is in flight and another waits.
pub const PARTITION_SEGMENTS_AHEAD: u32 = 2 * PAYLOADS_MAX as u32;
/// Segments a gate needs: one that is read, one that arrives.
pub const GATE_SEGMENTS_MIN: u32 = 2;
/// Segments beyond two per channel of a gate: two trains, so that one is read while the other arrives.
pub const GATE_SEGMENTS_AHEAD: u32 = 2 * PAYLOADS_MAX as u32;
/// Up to so many channels of a gate or partition can hold its whole quota without ever making room in a queue. Of more
/// channels each has its part of as many places; one that holds more than that makes room, twice as much each time.
pub const CHANNELS_OF_QUOTA: u32 = 8;
/// Segments of a link without which it is not made: one for staging, one for the manifest it sends.
pub const LINK_SEGMENTS: u32 = 2;
/// Manifests of a link at most: of the train that is sent, and of those before it that a driver sent without a copy and
/// whose notifications are awaited. As many more than one as such a driver asks for, if the shard has them.
pub const MANIFESTS_MAX: usize = NOTIFICATIONS_MAX + 1;
/// Segments of a process-local channel that its consumer has not given back: two trains' worth, as for a remote one.
pub const LOCAL_SEGMENTS_MAX: u32 = 2 * PAYLOADS_MAX as u32;
/// Payloads taken from one channel before the next one has its turn.
pub const PAYLOADS_PER_VISIT: u32 = 4;
/// Bytes of one slice of a record that is larger than a segment, at most: as many as a full train of default segments has, so
/// that such a record takes no more manifests and calls per byte than others, and what shares the link waits no longer.
pub const SLICE_BYTES_MAX: u32 = 512 << 10;
/// Completions handled in one turn; more stay in the ring for the next turn, after the tasks.
pub const COMPLETIONS_PER_TURN: u32 = 128;
/// Connections handed over by the endpoint that wait for the slot's next turn: a slot with many links hears of all of them at
/// once, while it may be busy with its first tasks.
pub const INCOMING_MAX: usize = 1024;
/// Connections taken over in one turn.
pub const INCOMING_PER_TURN: usize = 64;
/// Connections of an attempt that is not prepared yet, which wait for it.
pub const EARLY_MAX: usize = 256;
/// How long such a connection waits before it is refused.
pub const EARLY_WAIT: Duration = Duration::from_secs(10);
/// How long a dialer waits for the connection and for each part of the handshake. Longer than [`EARLY_WAIT`], so that a
/// refusal arrives by name.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(12);
/// First wait before a link is dialled again after a refusal that may pass; doubles each time up to [`REDIAL_WAIT_MAX`].
pub const REDIAL_WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two dials of a link.
pub const REDIAL_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a link goes on dialling before its last refusal fails the attempt: a producer that restores a large state is not
/// prepared before that is read. The control side has a deadline of its own for the whole attempt.
pub const REDIAL_FOR: Duration = Duration::from_secs(600);
/// Bytes of a refused stranger that are read so that the refusal arrives.
pub const UNREAD_MAX: usize = 64 << 10;
/// How long an accepted connection may take to say who it is.
pub const HELLO_WAIT: Duration = Duration::from_secs(2);
/// Connections that are being accepted at once; more are dropped.
pub const ACCEPTING_MAX: usize = 64;
/// Connections that are being dialed at once by one endpoint; more wait.
pub const DIALING_MAX: usize = 32;
/// The smallest staging offer while payloads are large: a manifest and the start of what follows.
pub const STAGING_SMALL: u32 = 4 << 10;
/// Trains with at least this many payload bytes on average get the small offer: at most one part in sixteen is copied.
pub const STAGING_SWITCH: u64 = 64 << 10;

/// Places for data in a channel's queues at least; a queue that needs more of them makes room. Two are 64 bytes: of ten
/// thousand channels most have nothing to say for most of the time, and an idle one is to cost less than a kilobyte.
pub const CHANNEL_PLACES_MIN: u32 = 2;
/// Longest flush interval: beyond it a partly filled segment is as good as lost to whoever waits for it.
pub const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Places for data in the queues of all channels of a port together, unless few channels want more: of many channels few are
/// busy at once, however rich the quota.
pub const PORT_PLACES: u64 = 16_384;

/// Places to reserve in a queue of one of `channels` channels that share `quota`.
pub(crate) fn places(quota: u32, channels: usize) -> usize {
    let channels = channels.max(1) as u64;
    let all = if channels > u64::from(CHANNELS_OF_QUOTA) { PORT_PLACES } else { u64::MAX };
    let part = (u64::from(quota) * u64::from(CHANNELS_OF_QUOTA)).min(all) / channels;
    part.max(u64::from(CHANNEL_PLACES_MIN)).min(u64::from(quota)) as usize
}

/// The shortest time that a latency histogram tells from nothing: less than a turn of a slot.
pub const HISTOGRAM_LOW_NS: u64 = 100;
/// The longest; what takes longer counts as this. A channel that stands still for a minute is no question of latency.
pub const HISTOGRAM_HIGH_NS: u64 = 60_000_000_000;
/// Digits that are kept: steps of less than one in a hundred.
pub const HISTOGRAM_DIGITS: u8 = 2;
/// Counters of four bytes in one histogram of these bounds: 12 KiB.
pub const HISTOGRAM_PLACES: usize = 3_072;
/// Histograms of one end of an edge.
pub const STAGES_MAX: usize = 3;
/// Histograms that a slot records into: five for each edge of which it has both ends. Each exists twice, so a slot has at most
/// 3 MiB of them; edges beyond are not measured.
pub const HISTOGRAMS_MAX: usize = 128;

const _: () = assert!(2 * HISTOGRAMS_MAX * HISTOGRAM_PLACES * 4 <= 3 << 20);
const _: () = assert!(PLACES_MAX <= PARTS_MAX, "a receive op must fit the driver");
const _: () = assert!(PAYLOADS_MAX < PARTS_MAX, "a train must fit the driver");
const _: () = assert!(SLICE_BYTES_MAX <= PAYLOAD_MAX, "a slice is a payload");
const _: () = assert!(PAYLOADS_PER_VISIT as usize <= PAYLOADS_MAX);
const _: () =
    assert!(PAYLOADS_MAX < ENTRIES_MAX, "a train full of payloads still has room for control entries");
const _: () = assert!(EVENTS_MAX >= 4, "barrier, marker, end of data, end of partition");
const _: () = assert!(REDIAL_WAIT_MIN.as_millis() < REDIAL_WAIT_MAX.as_millis());
const _: () = assert!(REDIAL_FOR.as_secs() > HANDSHAKE_WAIT.as_secs());
const _: () = assert!(EARLY_WAIT.as_millis() < HANDSHAKE_WAIT.as_millis());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Gate, InRoute};
    use crate::link::LinkTableEntry;
    use crate::partition::{OutRoute, Partition};
    use crate::ports::InRef;
    use crate::ready::ReadyList;

    /// Bytes of both sides that an idle channel of ten thousand takes.
    const IDLE_CHANNEL_BYTES: usize = 1024;

    #[test]
    fn an_idle_channel_of_many_takes_less_than_a_kilobyte() {
        const CHANNELS: usize = 10_000;
        let routes = (0..CHANNELS as u32).map(|channel| OutRoute::Remote { link: 0, channel }).collect();
        // As rich as a quota gets.
        let quota = crate::plan::gate_wanted(CHANNELS).max(crate::plan::partition_wanted(CHANNELS));
        let partition = Partition::new(0, "out".into(), 1, quota, false, routes, true);
        let routes = (0..CHANNELS as u32).map(|channel| (InRoute::Remote { link: 0, channel }, 0)).collect();
        let gate =
            Gate::new(0, "in".into(), 1, quota, crate::gate::Region::new(None, 32 << 10, 0, 0), routes);
        let lists = ReadyList::new(CHANNELS, 1).idle_bytes() + CHANNELS * size_of::<InRef>();
        let tables = 2 * CHANNELS * size_of::<LinkTableEntry>();
        let parts = [partition.idle_bytes(), gate.idle_bytes(), lists, tables].map(|bytes| bytes / CHANNELS);
        let [producer, consumer, lists, tables] = parts;
        println!(
            "an idle channel: producer {producer}, consumer {consumer}, lists {lists}, tables {tables} bytes"
        );
        assert!(parts.iter().sum::<usize>() <= IDLE_CHANNEL_BYTES, "{parts:?}");
    }

    #[test]
    fn few_channels_have_places_for_all_of_the_quota() {
        for channels in 0..=CHANNELS_OF_QUOTA as usize {
            assert_eq!(places(512, channels), 512);
        }
        assert_eq!(places(512, 64), 64);
        assert_eq!(places(512, 10_000), CHANNEL_PLACES_MIN as usize);
        assert_eq!(places(1, 10_000), 1, "never more than there can be");
        assert_eq!(places(u32::MAX, 1), u32::MAX as usize);
    }
}
