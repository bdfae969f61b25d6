//! A partition's state in words, for those who compare states.

use super::{Partition, Queued};

impl Partition {
    pub fn state(&self) -> String {
        let channels: Vec<_> = self
            .channels
            .iter()
            .zip(&self.filling)
            .map(|(out, filling)| {
                let queue: Vec<_> = out
                    .queue
                    .iter()
                    .map(|item| match item {
                        Queued::Data { len, .. } => format!("{len}"),
                        Queued::Large { len, .. } => format!("large {len}"),
                        Queued::Event(event) => format!("{event:?}"),
                    })
                    .collect();
                let filled = filling.as_ref().map(|draft| draft.len());
                let flags = (out.listed, out.waits, out.flush, out.closed, out.ack_due);
                format!("{:?} {:?} {:?} {queue:?} {filled:?} {flags:?}", out.credit, out.large, out.order)
            })
            .collect();
        let shared = self.shared.as_ref().map(|draft| draft.len());
        format!("{channels:?} {shared:?} {} {} {}", self.used, self.spare.is_some(), self.region.is_some())
    }
}
