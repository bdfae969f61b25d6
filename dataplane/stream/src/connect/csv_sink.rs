//! A sink of part files that appear with their checkpoint.
//!
//! A [`CsvSink`] is the description; a [`CsvWriter`] owns one part being filled and those that wait for their checkpoint.
//! Always: parts are written under the attempt's own pending folder and never renamed here; a part holds exactly the rows
//! between two barriers, after its header; a part is handed in with every checkpoint from its own on until one is known to
//! be complete (committing a part twice is harmless, forgetting one is not). A part's number is above every number that a
//! checkpoint up to the restored one can hold: numbers start behind that checkpoint's, and at most one is used per
//! checkpoint. So a target is never given to two parts.

use std::marker::PhantomData;

use tidegate_graph::normal_path;

use crate::connect::csv_row::CsvRow;
use crate::connect::limits::{COLUMNS_MAX, PARTS_WAITING_MAX};
use crate::error::{Fault, TaskError};
use crate::files::{Appender, FileEvent, FileId, FileReceipt, FileTarget, Files};
use crate::limits::{FILE_BUFFER_MIN, SINK_ITEM_MAX};
use crate::sink::{Committable, Prepared, Sink, SinkContext, SinkWriter};

/// Part files of rows: `<output>/part-<subtask>-<number>.csv`, each with a header line.
///
/// ```
/// use tidegate_stream::connect::{CsvRow, CsvSink};
/// use tidegate_stream::{Args, Job, JobResult, testing};
///
/// fn squares(job: &mut Job, _args: &Args) -> JobResult {
///     let sink = CsvSink::new("out", ["n", "square"], |pair: &(u64, u64), row: &mut CsvRow<'_>| {
///         row.value(pair.0).value(pair.1);
///     });
///     job.source("numbers", testing::items([2u64, 3])).map("square", |&n| (n, n * n)).sink("squares", sink);
///     Ok(())
/// }
/// let run = testing::run(squares, &[]).unwrap();
/// assert_eq!(run.manager().store().read("out/part-0-1.csv").unwrap(), b"n,square\n2,4\n3,9\n");
/// ```
pub struct CsvSink<In: ?Sized, F> {
    output: String,
    folder: Option<String>,
    columns: Vec<String>,
    delimiter: u8,
    function: F,
    item: PhantomData<fn(&In)>,
}

impl<In: ?Sized, F: Clone> Clone for CsvSink<In, F> {
    fn clone(&self) -> Self {
        CsvSink {
            output: self.output.clone(),
            folder: self.folder.clone(),
            columns: self.columns.clone(),
            delimiter: self.delimiter,
            function: self.function.clone(),
            item: PhantomData,
        }
    }
}

impl<In: ?Sized, F> CsvSink<In, F>
where
    F: FnMut(&In, &mut CsvRow<'_>) + Clone + Send + 'static,
{
    /// Rows under the folder `output`. `function` puts the fields of one item into a row, one for each of `columns`.
    pub fn new<N: Into<String>>(
        output: impl Into<String>,
        columns: impl IntoIterator<Item = N>,
        function: F,
    ) -> Self {
        CsvSink {
            output: output.into(),
            folder: None,
            columns: columns.into_iter().map(Into::into).collect(),
            delimiter: b',',
            function,
            item: PhantomData,
        }
    }

    /// A folder under `output` for the parts. Two sinks of a job with the same output need different ones.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<String>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// What stands between two fields; a comma if nothing is said.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The header line.
    fn header(&self) -> Result<Vec<u8>, TaskError> {
        let named = |message: String| TaskError::new(Fault::Setup, format!("{}: {message}", self.output));
        if self.columns.is_empty() || self.columns.len() > COLUMNS_MAX {
            return Err(named(format!("{} columns: there must be 1 to {COLUMNS_MAX}", self.columns.len())));
        }
        let mut header = vec![0; FILE_BUFFER_MIN - SINK_ITEM_MAX];
        let mut row = CsvRow::new(&mut header, self.delimiter);
        for column in &self.columns {
            row.text(column);
        }
        match row.end() {
            Some((len, _)) => {
                header.truncate(len);
                Ok(header)
            }
            None => Err(named(format!("the header has more than {} bytes", FILE_BUFFER_MIN - SINK_ITEM_MAX))),
        }
    }
}

impl<In: ?Sized + 'static, F> Sink<In> for CsvSink<In, F>
where
    F: FnMut(&In, &mut CsvRow<'_>) + Clone + Send + 'static,
{
    type Writer = CsvWriter<In, F>;

    fn outputs(&mut self) -> Vec<&mut String> {
        vec![&mut self.output]
    }

    fn open(&self, context: &SinkContext<'_>) -> Result<CsvWriter<In, F>, TaskError> {
        // However it is written, the folder lies within the output: the way out of that is cut off at its root.
        let folder = normal_path(&format!("/{}", self.folder.as_deref().unwrap_or_default()));
        let name = format!("{}/part-{}", folder.trim_end_matches('/'), context.runtime.subtask);
        Ok(CsvWriter {
            header: self.header()?,
            columns: self.columns.len(),
            delimiter: self.delimiter,
            function: self.function.clone(),
            pending: format!("{}/{}{name}", self.output, context.pending_folder()),
            target: format!("{}{name}", self.output),
            output: self.output.clone(),
            number: context.runtime.restored.unwrap_or(0) + 1,
            part: None,
            waiting: Vec::new(),
            item: PhantomData,
        })
    }
}

/// The part being filled.
struct Part {
    file: Appender,
    rows: u64,
}

/// A part that was cut.
struct Cut {
    checkpoint: u64,
    file: FileId,
    len: u64,
    pending: String,
    target: String,
    receipt: Option<FileReceipt>,
}

/// One instance of a [`CsvSink`].
pub struct CsvWriter<In: ?Sized, F> {
    header: Vec<u8>,
    columns: usize,
    delimiter: u8,
    function: F,
    output: String,
    /// Paths up to the part's number.
    pending: String,
    target: String,
    /// The number of the part being filled, or of the next one.
    number: u64,
    part: Option<Part>,
    waiting: Vec<Cut>,
    item: PhantomData<fn(&In)>,
}

impl<In: ?Sized, F> CsvWriter<In, F> {
    /// Starts a part, or goes on with one whose header is not written yet. A part is started before its first row is
    /// there, so that an output that cannot be written is found at once.
    #[cold]
    fn start(&mut self, files: &mut dyn Files) -> bool {
        let path = format!("{}-{}.csv", self.pending, self.number);
        let part = self.part.get_or_insert_with(|| Part {
            file: Appender::create(files, FileTarget::Output { path }),
            rows: 0,
        });
        if !part.file.room(files, self.header.len() + SINK_ITEM_MAX) {
            return false;
        }
        let place = &mut part.file.spare()[..self.header.len()];
        place.copy_from_slice(&self.header);
        part.file.advance(self.header.len());
        true
    }

    #[cfg(test)]
    pub(crate) fn part_file(&self) -> Option<FileId> {
        self.part.as_ref().map(|part| part.file.file())
    }

    #[cold]
    fn error(&self, what: impl std::fmt::Display) -> TaskError {
        TaskError::new(Fault::Sink, format!("output {}: {what}", self.output))
    }

    #[cold]
    fn wrong_row(&self, ended: Option<(usize, usize)>) -> TaskError {
        match ended {
            Some((_, fields)) => {
                let message = format!("a row has {fields} fields and the header {} columns", self.columns);
                TaskError::new(Fault::Setup, format!("output {}: {message}", self.output))
            }
            None => {
                let message = format!("a row has more than {SINK_ITEM_MAX} bytes, the limit of one item");
                TaskError::new(Fault::TooLarge, format!("output {}: {message}", self.output))
            }
        }
    }
}

impl<In: ?Sized + 'static, F> SinkWriter<In> for CsvWriter<In, F>
where
    F: FnMut(&In, &mut CsvRow<'_>) + Clone + Send + 'static,
{
    #[inline]
    fn ready(&mut self, files: &mut dyn Files) -> bool {
        match &mut self.part {
            Some(part) if !part.file.is_empty() => part.file.room(files, SINK_ITEM_MAX),
            _ => self.start(files),
        }
    }

    fn write(&mut self, item: &In, _files: &mut dyn Files) -> Result<(), TaskError> {
        let part = self.part.as_mut().expect("invariant: write follows ready, which starts a part");
        let mut row = CsvRow::new(&mut part.file.spare()[..SINK_ITEM_MAX], self.delimiter);
        (self.function)(item, &mut row);
        match row.end() {
            Some((len, fields)) if fields == self.columns => {
                part.file.advance(len);
                part.rows += 1;
                Ok(())
            }
            ended => Err(self.wrong_row(ended)),
        }
    }

    fn cut(&mut self, checkpoint: u64, files: &mut dyn Files) -> Result<(), TaskError> {
        // A part without rows stays open and takes those after the barrier.
        let Some(part) = self.part.take_if(|part| part.rows > 0) else { return Ok(()) };
        if self.waiting.len() >= PARTS_WAITING_MAX {
            part.file.abandon(files);
            let message = format!("{PARTS_WAITING_MAX} parts wait for a checkpoint to complete, none does");
            return Err(self.error(message));
        }
        let (file, len) = part.file.finish(files);
        let (pending, target) =
            (format!("{}-{}.csv", self.pending, self.number), format!("{}-{}.csv", self.target, self.number));
        self.waiting.push(Cut { checkpoint, file, len, pending, target, receipt: None });
        self.number += 1;
        Ok(())
    }

    fn prepare_commit(&mut self, checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        let mut committables = Vec::new();
        for cut in self.waiting.iter().filter(|cut| cut.checkpoint <= checkpoint) {
            let Some(receipt) = &cut.receipt else { return Ok(Prepared::Pending) };
            let (pending, target) = (cut.pending.clone(), cut.target.clone());
            committables.push(Committable { pending, target, len: receipt.len, hash: receipt.hash });
        }
        Ok(Prepared::Ready { state: Vec::new(), committables })
    }

    fn file_event(&mut self, event: &FileEvent) -> Result<(), TaskError> {
        match event {
            FileEvent::Finished { file, receipt } => {
                let Some(cut) = self.waiting.iter_mut().find(|cut| cut.file == *file) else { return Ok(()) };
                if receipt.len != cut.len {
                    let (len, found) = (cut.len, receipt.len);
                    let message = format!("{} has {found} bytes on disk, {len} were written", receipt.path);
                    return Err(TaskError::new(Fault::Files, message));
                }
                cut.receipt = Some(receipt.clone());
                Ok(())
            }
            FileEvent::Failed { file, cause } => {
                let own = self.waiting.iter().any(|cut| cut.file == *file)
                    || self.part.as_ref().is_some_and(|part| part.file.file() == *file);
                if own { Err(self.error(format_args!("it cannot be written: {cause}"))) } else { Ok(()) }
            }
            FileEvent::BuffersFree => Ok(()),
        }
    }

    fn notify(&mut self, checkpoint: u64) {
        self.waiting.retain(|cut| cut.checkpoint > checkpoint);
    }

    fn close(&mut self, files: &mut dyn Files) {
        if let Some(part) = self.part.take() {
            part.file.abandon(files);
        }
    }
}
