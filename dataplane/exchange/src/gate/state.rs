//! A gate's state in words, for those who compare states.

use super::{Arrived, Gate, GateItem};

impl Gate {
    pub fn state(&self) -> String {
        let channels: Vec<_> = self
            .channels
            .iter()
            .map(|entry| {
                let queue: Vec<_> = entry
                    .queue
                    .iter()
                    .map(|item| match item {
                        Arrived::Data(..) => "data".to_owned(),
                        Arrived::Event(event) => format!("{event:?}"),
                    })
                    .collect();
                let pending = (entry.voided, entry.pending_grant, entry.pending_resume, entry.pending_close);
                let flags = (entry.ready, entry.hungry, entry.listed, entry.phase, entry.data_ended);
                let granted = entry.granted.len();
                let large = (&entry.large, entry.pending_admit);
                format!(
                    "{:?} {large:?} {:?} {granted} {queue:?} {pending:?} {flags:?}",
                    entry.credit, entry.order
                )
            })
            .collect();
        let next = self.next.as_ref().map(|item| match item {
            GateItem::Aligned { checkpoint, .. } | GateItem::Aborted { checkpoint } => *checkpoint,
            _ => 0,
        });
        let lists = (&self.ready, &self.hungry, next, &self.announce);
        let ends = (self.data_ended, self.told_data_end, self.told_partition_end);
        let region = self.region.state();
        format!("{channels:?} {:?} {:?} {lists:?} {ends:?} {region:?}", self.alignment, self.policy)
    }
}
