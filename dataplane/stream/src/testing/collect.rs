//! A sink whose items a test reads back: a real file sink with files, committables and all.
//!
//! The writer owns a file being filled and those that wait for their checkpoint. Always: a file is in a committable of
//! every checkpoint from the one it was cut for until one of them is complete.

use tidegate_record::{Field, to_snapshot};

use crate::error::{Fault, TaskError};
use crate::files::{Appender, FileEvent, FileId, FileReceipt, FileTarget, Files};
use crate::limits::SINK_ITEM_MAX;
use crate::sink::{Committable, Prepared, Sink, SinkContext, SinkWriter};

/// Collects items under `name`; `Harness::collected` gives them back.
pub fn collect(name: &str) -> Collect {
    Collect { name: name.to_owned() }
}

/// A sink whose items a test reads back.
#[derive(Clone, Debug)]
pub struct Collect {
    name: String,
}

impl<T: Field> Sink<T> for Collect {
    type Writer = CollectWriter;

    fn outputs(&mut self) -> Vec<&mut String> {
        vec![&mut self.name]
    }

    fn open(&self, context: &SinkContext<'_>) -> Result<CollectWriter, TaskError> {
        let counter = match context.states {
            [] => 0,
            [state] => {
                let bytes = state.as_slice().try_into();
                u32::from_le_bytes(
                    bytes.map_err(|_| TaskError::new(Fault::State, "a counter has four bytes"))?,
                )
            }
            // Files of a new set of subtasks must not meet those of the old one.
            states => states.len() as u32 * 1000,
        };
        Ok(CollectWriter {
            pending: format!("{}/{}", self.name, context.pending_folder()),
            target: self.name.clone(),
            subtask: context.runtime.subtask,
            counter,
            current: None,
            cuts: Vec::new(),
            scratch: Vec::new(),
        })
    }
}

struct Cut {
    checkpoint: u64,
    file: FileId,
    target: String,
    receipt: Option<FileReceipt>,
}

/// One subtask's items.
pub struct CollectWriter {
    pending: String,
    target: String,
    subtask: u32,
    counter: u32,
    current: Option<Appender>,
    cuts: Vec<Cut>,
    scratch: Vec<u8>,
}

impl CollectWriter {
    fn file_name(&self) -> String {
        format!("part-{:04}-{:06}", self.subtask, self.counter)
    }
}

impl<T: Field> SinkWriter<T> for CollectWriter {
    fn ready(&mut self, files: &mut dyn Files) -> bool {
        if self.current.is_none() {
            let path = format!("{}/{}", self.pending, self.file_name());
            self.current = Some(Appender::create(files, FileTarget::Output { path }));
        }
        self.current.as_mut().is_some_and(|current| current.room(files, SINK_ITEM_MAX))
    }

    fn write(&mut self, item: &T, _files: &mut dyn Files) -> Result<(), TaskError> {
        self.scratch.clear();
        to_snapshot(item, &mut self.scratch)
            .map_err(|error| TaskError::new(Fault::Sink, error.to_string()))?;
        let current = self.current.as_mut().expect("invariant: an item is written after ready");
        current.put(&self.scratch)
    }

    fn cut(&mut self, checkpoint: u64, files: &mut dyn Files) -> Result<(), TaskError> {
        let target = format!("{}/{}", self.target, self.file_name());
        if let Some(current) = self.current.take_if(|current| !current.is_empty()) {
            let (file, _) = current.finish(files);
            self.counter += 1;
            self.cuts.push(Cut { checkpoint, file, target, receipt: None });
        }
        Ok(())
    }

    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        let mut committables = Vec::with_capacity(self.cuts.len());
        for cut in &self.cuts {
            let Some(receipt) = &cut.receipt else { return Ok(Prepared::Pending) };
            committables.push(Committable {
                pending: receipt.path.clone(),
                target: cut.target.clone(),
                len: receipt.len,
                hash: receipt.hash,
            });
        }
        Ok(Prepared::Ready { state: self.counter.to_le_bytes().to_vec(), committables })
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        let Some(cut) = self.cuts.iter_mut().find(|cut| Some(cut.file) == event.file()) else {
            return Ok(());
        };
        match event {
            FileEvent::Finished { receipt, .. } => cut.receipt = Some(receipt.clone()),
            FileEvent::Failed { cause, .. } => return Err(TaskError::new(Fault::Files, cause.clone())),
            FileEvent::BuffersFree => {}
        }
        Ok(())
    }

    fn notify(&mut self, checkpoint: u64) {
        self.cuts.retain(|cut| cut.checkpoint > checkpoint);
    }

    fn close(&mut self, files: &mut dyn Files) {
        if let Some(current) = self.current.take() {
            current.abandon(files);
        }
    }
}
