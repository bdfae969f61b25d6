//! A file of lines as a source: blocks of whole lines, from one subtask, read ahead on the blocking pool.
//!
//! A [`LineFile`] is the description; the reading thread owns the file, the slot only the blocks it was handed. Always: a
//! block's position names the file's identity, so a restore never goes on in another file; what lies before a restored
//! position is skipped, never emitted again. One subtask reads and the others have nothing to say: spread the blocks with
//! `rebalance`.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tidegate_record::{Record, from_snapshot, to_snapshot};

use crate::connect::blocks::{BlockError, Blocks};
use crate::connect::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCKS_PER_SECOND_MIN, READ_BLOCKS};
use crate::connect::pace::Pacer;
use crate::error::{Fault, TaskError};
use crate::pool::{Batch, BlockingReader, More, Pooled};
use crate::source::{Next, Source, SourceContext, SourceReader};

/// Whole lines of a file. It can be parsed anywhere: it says where it comes from and carries the header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Record)]
#[record(derive(Debug))]
pub struct LineBlock {
    /// The number of its first line in the file, from 1, the header counted.
    pub first_line: u64,
    /// Where it starts in the (uncompressed) file, in bytes.
    pub offset: u64,
    /// The file's first line without its line break, if the file was said to have a header; else empty.
    pub header: Vec<u8>,
    /// The lines with their line breaks; the last of a file may lack it.
    pub bytes: Vec<u8>,
}

impl LineBlock {
    /// How many lines it has.
    pub fn lines(&self) -> u64 {
        let breaks = memchr::memchr_iter(b'\n', &self.bytes).count() as u64;
        breaks + u64::from(self.bytes.last().is_some_and(|&last| last != b'\n'))
    }
}

/// A file of lines, plain or (by the ending `.gz`) gzip. Lines end in `\n`, with or without a `\r` in front.
///
/// ```
/// use tidegate_stream::connect::LineFile;
/// use tidegate_stream::{Args, Job, JobResult, testing};
///
/// fn shout(job: &mut Job, args: &Args) -> JobResult {
///     job.source("lines", LineFile::new(args.required::<String>("input")?))
///         .flat_map("text", |block| String::from_utf8_lossy(&block.bytes).lines().map(str::to_uppercase).collect::<Vec<_>>())
///         .sink("out", testing::collect("out"));
///     Ok(())
/// }
/// let folder = tempfile::tempdir().unwrap();
/// let input = folder.path().join("words.txt");
/// std::fs::write(&input, "one\ntwo\n").unwrap();
/// let run = testing::run(shout, &["--input", input.to_str().unwrap()]).unwrap();
/// assert_eq!(run.collected::<String>("out"), ["ONE", "TWO"]);
/// ```
#[derive(Clone, Debug)]
pub struct LineFile {
    path: PathBuf,
    header: bool,
    block_bytes: usize,
    rate: Option<u64>,
}

impl LineFile {
    /// All lines of the file at `path`, which must be on the machine that runs the source.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LineFile { path: path.into(), header: false, block_bytes: BLOCK_BYTES_MAX, rate: None }
    }

    /// Whether the first line is a header: then it is no line of a block, and every block carries it.
    #[must_use]
    pub fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// The most bytes of a block, and so of a line with its line break: 64 to 8192, 8192 if nothing is said.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Lines per second, of the source as a whole; no limit if nothing is said.
    #[must_use]
    pub fn rate(mut self, lines_per_second: impl Into<Option<u64>>) -> Self {
        self.rate = lines_per_second.into();
        self
    }
}

/// What makes a file the same file: it would be read on at a position of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Record)]
struct Identity {
    len: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    inode: u64,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Identity { len: meta.len(), modified, inode: meta.ino() }
    }

    /// What is different, for people.
    fn difference(&self, found: &Self) -> String {
        let mut parts = Vec::new();
        if self.len != found.len {
            parts.push(format!("its length was {} bytes and is {}", self.len, found.len));
        }
        if self.modified != found.modified {
            parts.push(format!("its modification time was {} ns and is {}", self.modified, found.modified));
        }
        if self.inode != found.inode {
            parts.push(format!("its inode was {} and is {}", self.inode, found.inode));
        }
        parts.join(", ")
    }
}

/// The position behind a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Record)]
struct Position {
    /// None before the file was opened.
    identity: Option<Identity>,
    /// Bytes of the uncompressed file.
    offset: u64,
    /// The number of the next line, from 1.
    line: u64,
}

const START: Position = Position { identity: None, offset: 0, line: 1 };

impl Source for LineFile {
    type Item = LineBlock;
    type Reader = LineReader;

    fn open(&self, context: &SourceContext<'_>) -> Result<LineReader, TaskError> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block_bytes) {
            let message = format!(
                "blocks of {} bytes: a block may have {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}",
                self.block_bytes
            );
            return Err(TaskError::new(Fault::Setup, message));
        }
        let pacer = self.rate.map(|rate| Pacer::new(rate, 1)).transpose()?;
        if context.runtime.subtask != 0 {
            return Ok(LineReader { blocks: None, pacer });
        }
        let start = self.start(context)?;
        let reader = FileBlocks { file: self.clone(), start, open: None };
        Ok(LineReader { blocks: Some(Pooled::new(reader, start, context)?), pacer })
    }
}

impl LineFile {
    /// Where the one reading subtask starts. Another parallelism changes nothing: subtask 0 always reads, and is given the
    /// positions of all subtasks then, of which one is the file's.
    fn start(&self, context: &SourceContext<'_>) -> Result<Position, TaskError> {
        let mut found = None;
        for bytes in context.positions {
            let (position, _) = from_snapshot::<Option<Position>>(bytes).map_err(|error| {
                let message = format!(
                    "the checkpoint's position is not one of a file of lines ({error}); give the source another uid to \
                     start without it"
                );
                TaskError::new(Fault::Setup, message)
            })?;
            found = found.or(position);
        }
        match (found, context.runtime.restored) {
            (Some(position), _) => Ok(position),
            (None, None) => Ok(START),
            (None, Some(checkpoint)) => {
                let message = format!(
                    "checkpoint {checkpoint} has no position for {}: it would be read from its start again",
                    self.path.display()
                );
                Err(TaskError::new(Fault::Setup, message))
            }
        }
    }

    fn lines_max(&self) -> usize {
        self.rate
            .map_or(usize::MAX, |rate| (rate / BLOCKS_PER_SECOND_MIN).clamp(1, u64::from(u32::MAX)) as usize)
    }

    /// The file itself is at fault, and stays so.
    #[cold]
    fn error(&self, what: impl std::fmt::Display) -> TaskError {
        TaskError::new(Fault::Input, format!("{}: {what}", self.path.display()))
    }

    /// The operating system says no; whether for good, `cause` says.
    #[cold]
    pub(crate) fn io_error(&self, cause: &io::Error, what: impl std::fmt::Display) -> TaskError {
        let fault = if is_lasting(cause) { Fault::Input } else { Fault::Source };
        TaskError::new(fault, format!("{}: {what}: {cause}", self.path.display()))
    }

    #[cold]
    fn block_error(&self, error: BlockError) -> TaskError {
        match error {
            BlockError::Read { cause, offset } => self.io_error(
                &cause,
                format_args!("it cannot be read on at byte {offset} (of the uncompressed file)"),
            ),
            BlockError::LineTooLong { line, size, whole } => TaskError::data(format!(
                "{}, line {line}: it has {}{size} bytes with its line break, the limit is {} bytes",
                self.path.display(),
                if whole { "" } else { "more than " },
                self.block_bytes
            )),
        }
    }
}

/// One subtask's end of a [`LineFile`].
pub struct LineReader {
    /// None in subtasks that do not read.
    blocks: Option<Pooled<FileBlocks>>,
    pacer: Option<Pacer>,
}

impl SourceReader for LineReader {
    type Item = LineBlock;

    fn next(&mut self, now_ns: u64) -> Result<Next<'_, LineBlock>, TaskError> {
        let Some(blocks) = &mut self.blocks else { return Ok(Next::End) };
        if let Some(at) = self.pacer.as_mut().and_then(|pacer| pacer.wait(now_ns)) {
            return Ok(Next::Wait(crate::source::Pause::Until(at)));
        }
        let next = blocks.next(now_ns)?;
        if let (Next::Item(block), Some(pacer)) = (&next, &mut self.pacer) {
            pacer.spend(block.lines());
        }
        Ok(next)
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        match &self.blocks {
            Some(blocks) => blocks.position(out),
            None => encode(None, out),
        }
    }
}

fn encode(position: Option<Position>, out: &mut Vec<u8>) -> Result<(), TaskError> {
    to_snapshot(&position, out).map_err(|error| TaskError::new(Fault::Runtime, error.to_string()))
}

/// The reading thread's end: everything in it may block.
struct FileBlocks {
    file: LineFile,
    start: Position,
    open: Option<Open>,
}

struct Open {
    blocks: Blocks<Box<dyn Read + Send>>,
    identity: Identity,
    header: Vec<u8>,
}

impl BlockingReader for FileBlocks {
    type Item = LineBlock;
    type Position = Position;

    fn read(&mut self, batch: &mut Batch<LineBlock, Position>) -> Result<More, TaskError> {
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open(&self.file, self.start)?),
        };
        while batch.len() < READ_BLOCKS && !batch.is_full() {
            let Some(block) = open.blocks.next().map_err(|error| self.file.block_error(error))? else {
                check_unchanged(&self.file, &open.identity)?;
                return Ok(More::No);
            };
            let slot = batch.slot(LineBlock::default);
            (slot.first_line, slot.offset) = (block.first_line, block.offset);
            slot.bytes.clear();
            slot.bytes.extend_from_slice(block.bytes);
            slot.header.clone_from(&open.header);
            let (offset, line) = open.blocks.position();
            batch.commit(Position { identity: Some(open.identity), offset, line });
        }
        Ok(More::Yes)
    }

    fn encode(position: &Position, out: &mut Vec<u8>) {
        // A position is a few numbers: it is never too long.
        let encoded = encode(Some(*position), out);
        debug_assert!(encoded.is_ok(), "a position of fixed size can be written");
    }
}

/// Whether trying again is no use: what else there is (too many open files, a disk or a server that does not answer)
/// passes. The last two are what a decompressor says of a damaged file.
fn is_lasting(cause: &io::Error) -> bool {
    use io::ErrorKind::{
        InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof,
    };
    matches!(
        cause.kind(),
        NotFound
            | PermissionDenied
            | IsADirectory
            | NotADirectory
            | InvalidData
            | InvalidInput
            | UnexpectedEof
    )
}

/// Opens the file, reads its header and goes to `start`.
fn open(file: &LineFile, start: Position) -> Result<Open, TaskError> {
    let look = |meta: io::Result<Metadata>| {
        let meta = meta.map_err(|cause| file.io_error(&cause, "it cannot be opened"))?;
        if meta.is_file() {
            return Ok(meta);
        }
        Err(file.error("it is not a file; give the path of a .csv, .txt or .gz file"))
    };
    // Before it is opened: opening a pipe waits for somebody who writes, and a thread of the pool with it.
    look(fs::metadata(&file.path))?;
    let handle = File::open(&file.path).map_err(|cause| file.io_error(&cause, "it cannot be opened"))?;
    let meta = look(handle.metadata())?;
    let identity = Identity::of(&meta);
    if let Some(known) = start.identity.filter(|known| *known != identity) {
        let message = format_args!(
            "it is not the file the checkpoint was made with: {}; put the file of then back",
            known.difference(&identity)
        );
        return Err(file.error(message));
    }
    let zipped = file.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let mut blocks = Blocks::new(input(&handle, zipped, file)?, file.block_bytes, 1);
    let header = if file.header { header(&mut blocks, file)? } else { Vec::new() };
    if start.offset > blocks.position().0 {
        if zipped {
            blocks.skip_to(start.offset, start.line).map_err(|error| file.block_error(error))?;
        } else {
            let mut handle = &handle;
            handle.seek(SeekFrom::Start(start.offset)).map_err(|cause| {
                file.io_error(&cause, format_args!("byte {} cannot be gone to", start.offset))
            })?;
            blocks = Blocks::at(input(handle, false, file)?, start.offset, start.line, file.block_bytes, 1);
        }
    }
    blocks.set_lines_max(file.lines_max());
    Ok(Open { blocks, identity, header })
}

fn input(handle: &File, zipped: bool, file: &LineFile) -> Result<Box<dyn Read + Send>, TaskError> {
    let handle = handle.try_clone().map_err(|cause| file.io_error(&cause, "it cannot be opened twice"))?;
    Ok(if zipped { Box::new(MultiGzDecoder::new(io::BufReader::new(handle))) } else { Box::new(handle) })
}

/// The first line without its line break and without a byte order mark.
fn header(blocks: &mut Blocks<Box<dyn Read + Send>>, file: &LineFile) -> Result<Vec<u8>, TaskError> {
    let first = blocks.next().map_err(|error| file.block_error(error))?;
    let line = first.map_or(&b""[..], |block| block.bytes);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).to_vec())
}

/// At its end, the file must be what it was when it was opened, or lines may be torn or missing.
fn check_unchanged(file: &LineFile, identity: &Identity) -> Result<(), TaskError> {
    let now = look_at(&file.path).map_err(|cause| file.io_error(&cause, "it vanished while it was read"))?;
    if now != *identity {
        return Err(file.error(format_args!("it changed while it was read: {}", identity.difference(&now))));
    }
    Ok(())
}

fn look_at(path: &Path) -> io::Result<Identity> {
    Ok(Identity::of(&fs::metadata(path)?))
}
