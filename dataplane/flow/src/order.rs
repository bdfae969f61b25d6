//! Where a channel stands: which entries may still come (W-27, W-32, W-33, W-37), checked by the end that receives them.
//!
//! State: what was announced so far. Always: after the end of partition only the close-ack is lawful, after the close-ack
//! nothing; a close-ack answers a close. The order is checked when a manifest is accepted, before any of its entries has an
//! effect, so a peer out of step can never make a channel look finished.

use tidegate_wire::{Body, Entry};

use crate::error::Violation;

/// The consumer's view of what a producer may still say on one channel.
#[derive(Debug, Clone, Default)]
pub struct ReceiveOrder {
    /// The newest checkpoint of a barrier or abort-marker, and whether it was a marker.
    checkpoint: Option<(u64, bool)>,
    data_ended: bool,
    partition_ended: bool,
    close_sent: bool,
    acknowledged: bool,
}

impl ReceiveOrder {
    /// Our close is on its way: from now on a close-ack is lawful.
    pub fn close_sent(&mut self) {
        self.close_sent = true;
    }

    /// The producer announced `entry`.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] if it may not come here.
    pub fn handle(&mut self, entry: &Entry) -> Result<(), Violation> {
        let ended = self.partition_ended;
        let lawful = !self.acknowledged
            && match entry.body {
                Body::CloseAck => self.close_sent,
                _ if ended => false,
                Body::Data(_) | Body::Ask { .. } | Body::EndOfData => !self.data_ended,
                Body::Barrier { checkpoint } => self.ascends(checkpoint, false),
                Body::AbortMarker { checkpoint } => self.ascends(checkpoint, true),
                _ => true,
            };
        if !lawful {
            return Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 });
        }
        match entry.body {
            Body::Barrier { checkpoint } => self.checkpoint = Some((checkpoint, false)),
            Body::AbortMarker { checkpoint } => self.checkpoint = Some((checkpoint, true)),
            Body::EndOfData => self.data_ended = true,
            Body::EndOfPartition => (self.data_ended, self.partition_ended) = (true, true),
            Body::CloseAck => self.acknowledged = true,
            _ => {}
        }
        Ok(())
    }

    /// Checkpoints ascend; only a marker may repeat one, the barrier's own (W-27).
    fn ascends(&self, checkpoint: u64, marker: bool) -> bool {
        self.checkpoint.is_none_or(|(newest, was_marker)| {
            checkpoint > newest || (checkpoint == newest && marker && !was_marker)
        })
    }
}

/// The producer's view of what a consumer may still say on one channel: nothing after its close (W-33).
#[derive(Debug, Clone, Copy, Default)]
pub struct SendOrder {
    closed: bool,
}

impl SendOrder {
    /// The consumer announced `entry`.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] if it comes after a close.
    pub fn handle(&mut self, entry: &Entry) -> Result<(), Violation> {
        if self.closed {
            return Err(Violation::Unexpected { channel: entry.channel, kind: entry.kind() as u8 });
        }
        self.closed = entry.body == Body::Close;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::{Data, Kind};

    const DATA: Body = Body::Data(Data { len: 8, total: 8, offset: 0, crc: 0 });

    fn barrier(checkpoint: u64) -> Body {
        Body::Barrier { checkpoint }
    }

    fn marker(checkpoint: u64) -> Body {
        Body::AbortMarker { checkpoint }
    }

    fn entry(body: Body) -> Entry {
        match body {
            Body::Data(data) => Entry::data(7, 1, 0, 0, data),
            Body::Backlog => Entry::backlog(7, 1, 1),
            Body::Grant { .. } | Body::Resume { .. } | Body::Close => Entry::control(7, 1, body),
            _ => Entry::sequenced(7, 1, 0, body),
        }
    }

    /// All but the last are lawful; the last is refused.
    #[track_caller]
    fn refuses(history: &[Body]) {
        let (last, before) = history.split_last().expect("a history");
        let mut order = ReceiveOrder::default();
        for body in before {
            order.handle(&entry(*body)).expect("lawful so far");
        }
        let kind = entry(*last).kind() as u8;
        assert_eq!(order.handle(&entry(*last)), Err(Violation::Unexpected { channel: 7, kind }));
    }

    /// W-37, W-33: a close-ack that answers no close would end a channel whose data is unread.
    #[test]
    fn a_close_ack_answers_a_close() {
        refuses(&[DATA, Body::CloseAck]);
        let mut order = ReceiveOrder::default();
        order.close_sent();
        assert_eq!(order.handle(&entry(Body::CloseAck)), Ok(()));
        let again = Violation::Unexpected { channel: 7, kind: Kind::CloseAck as u8 };
        assert_eq!(order.handle(&entry(Body::CloseAck)), Err(again));
    }

    /// W-32, W-37.
    #[test]
    fn nothing_follows_an_end() {
        refuses(&[DATA, Body::EndOfData, DATA]);
        refuses(&[Body::EndOfData, Body::EndOfData]);
        for late in [DATA, barrier(1), marker(1), Body::EndOfData, Body::EndOfPartition, Body::Backlog] {
            refuses(&[Body::EndOfPartition, late]);
        }
    }

    /// W-27.
    #[test]
    fn checkpoints_ascend() {
        refuses(&[barrier(5), barrier(5)]);
        refuses(&[barrier(5), marker(3)]);
        refuses(&[marker(5), barrier(5)]);
        refuses(&[barrier(5), marker(5), marker(5)]);
        let mut order = ReceiveOrder::default();
        for body in [barrier(2), marker(2), marker(3), DATA, barrier(4), Body::EndOfData, barrier(9)] {
            assert_eq!(order.handle(&entry(body)), Ok(()), "{body:?}");
        }
    }

    /// W-33.
    #[test]
    fn nothing_of_the_consumer_follows_its_close() {
        let mut order = SendOrder::default();
        let grant = entry(Body::Grant { credits: 1, barriers: 0 });
        assert_eq!(order.handle(&grant), Ok(()));
        assert_eq!(order.handle(&entry(Body::Close)), Ok(()));
        for late in [grant, entry(Body::Close)] {
            let kind = late.kind() as u8;
            assert_eq!(order.handle(&late), Err(Violation::Unexpected { channel: 7, kind }));
        }
    }
}
