//! Cuts a stream of bytes into blocks of whole lines. It owns its buffer and where it is in the stream.
//!
//! Always: `start` ≤ `end` ≤ the buffer's length; `offset` and `line` are those of the byte at `start`; a block ends behind
//! a line break, or at the end of the stream. Joined, the blocks are the stream.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use crate::connect::limits::{LINE_SCAN_BYTES_MAX, READ_BYTES};

/// Whole lines, in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The lines; the last of a stream may lack its line break.
    pub bytes: &'a [u8],
    /// The number of its first line, from 1.
    pub first_line: u64,
    /// Where it starts in the stream, in bytes.
    pub offset: u64,
    /// How many lines it has.
    pub lines: u64,
}

/// Why there is no next block.
#[derive(Debug)]
pub enum BlockError {
    /// The stream could not be read.
    Read {
        /// The operating system's or the decompressor's error.
        cause: io::Error,
        /// How far it was read, in bytes.
        offset: u64,
    },
    /// A line does not fit into a block.
    LineTooLong {
        /// Its number, from 1.
        line: u64,
        /// Its bytes with the line break.
        size: u64,
        /// Whether `size` is all of it; otherwise it goes on beyond what is worth reading.
        whole: bool,
    },
}

/// A stream of bytes being cut into blocks.
///
/// ```
/// use tidegate_stream::connect::blocks::Blocks;
/// let mut blocks = Blocks::new(&b"one\ntwo\nthree\nfour"[..], 10, usize::MAX);
/// let mut seen = Vec::new();
/// while let Some(block) = blocks.next().unwrap() {
///     seen.push((block.first_line, block.offset, block.bytes.to_vec()));
/// }
/// assert_eq!(seen, [(1, 0, b"one\ntwo\n".to_vec()), (3, 8, b"three\n".to_vec()), (4, 14, b"four".to_vec())]);
/// ```
#[derive(Debug)]
pub struct Blocks<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    offset: u64,
    line: u64,
    bytes_max: usize,
    lines_max: usize,
}

impl<R: Read> Blocks<R> {
    /// Blocks of at most `bytes_max` bytes (more than half of the read buffer is not possible) and `lines_max` lines.
    pub fn new(input: R, bytes_max: usize, lines_max: usize) -> Self {
        assert!((1..=READ_BYTES / 2).contains(&bytes_max), "a block of {bytes_max} bytes");
        assert!(lines_max > 0, "a block has a line at least");
        let buffer = vec![0; READ_BYTES];
        Blocks { input, buffer, start: 0, end: 0, ended: false, offset: 0, line: 1, bytes_max, lines_max }
    }

    /// As `new`, where the first byte of `input` is at `offset` of the stream and on line `line`.
    pub fn at(input: R, offset: u64, line: u64, bytes_max: usize, lines_max: usize) -> Self {
        Blocks { offset, line, ..Self::new(input, bytes_max, lines_max) }
    }

    /// Where the next block starts, in bytes, and the number of its first line.
    pub fn position(&self) -> (u64, u64) {
        (self.offset, self.line)
    }

    /// Changes the number of lines a block may have.
    pub fn set_lines_max(&mut self, lines_max: usize) {
        assert!(lines_max > 0, "a block has a line at least");
        self.lines_max = lines_max;
    }

    /// The next block; `None` at the end of the stream.
    ///
    /// # Errors
    /// See [`BlockError`]. Asked again, it tries again.
    #[allow(clippy::should_implement_trait)] // a block borrows the buffer, which an iterator's item cannot
    pub fn next(&mut self) -> Result<Option<Block<'_>>, BlockError> {
        self.fill()?;
        if self.start == self.end {
            return Ok(None);
        }
        let Some((len, lines)) = self.cut() else { return Err(self.too_long()) };
        let (range, first_line, offset) = (self.start..self.start + len, self.line, self.offset);
        self.consume(len, lines);
        Ok(Some(Block { bytes: &self.buffer[range], first_line, offset, lines }))
    }

    /// Reads on to `offset`, where line `line` starts, and forgets what lies before it.
    ///
    /// # Errors
    /// [`BlockError::Read`], also if the stream ends earlier.
    pub fn skip_to(&mut self, offset: u64, line: u64) -> Result<(), BlockError> {
        assert!(
            self.offset <= offset,
            "a stream is not read backwards: at {}, asked for {offset}",
            self.offset
        );
        while self.offset < offset {
            if self.start == self.end {
                self.fill()?;
                if self.start == self.end {
                    let message = format!("it ends at byte {}, byte {offset} was asked for", self.offset);
                    return Err(self.read_error(io::Error::new(ErrorKind::UnexpectedEof, message)));
                }
            }
            let step = ((self.end - self.start) as u64).min(offset - self.offset) as usize;
            self.consume(step, 0);
        }
        self.line = line;
        Ok(())
    }

    fn consume(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        self.offset += bytes as u64;
        self.line += lines;
    }

    /// Length and number of lines of the next block; `None` if its first line is too long. There are bytes.
    fn cut(&self) -> Option<(usize, u64)> {
        let window = &self.buffer[self.window()];
        let end = if self.lines_max == usize::MAX {
            memrchr(b'\n', window)
        } else {
            memchr_iter(b'\n', window).take(self.lines_max).last()
        };
        match end {
            Some(end) => Some((end + 1, memchr_iter(b'\n', &window[..=end]).count() as u64)),
            // The last line of the stream has no line break.
            None if self.ended && self.end - self.start <= self.bytes_max => Some((window.len(), 1)),
            None => None,
        }
    }

    fn window(&self) -> Range<usize> {
        self.start..self.end.min(self.start + self.bytes_max)
    }

    /// Reads until more than a whole block is there, or the end: a last line of just a block's size is no longer one.
    fn fill(&mut self) -> Result<(), BlockError> {
        while self.end - self.start <= self.bytes_max && !self.ended {
            if self.buffer.len() - self.start <= self.bytes_max || self.end == self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let read = self.read_at(self.end)?;
            self.end += read;
            self.ended = read == 0;
        }
        Ok(())
    }

    /// One read into the buffer from `at` on.
    fn read_at(&mut self, at: usize) -> Result<usize, BlockError> {
        loop {
            match self.input.read(&mut self.buffer[at..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
                Ok(read) => return Ok(read),
            }
        }
    }

    fn read_error(&self, cause: io::Error) -> BlockError {
        BlockError::Read { cause, offset: self.offset + (self.end - self.start) as u64 }
    }

    /// Follows the line at `start` to its end to tell its size. The stream cannot be used afterwards, nor will it be.
    #[cold]
    fn too_long(&mut self) -> BlockError {
        let line = self.line;
        let mut size = 0;
        loop {
            let rest = &self.buffer[self.start..self.end];
            if let Some(end) = memchr(b'\n', rest) {
                return BlockError::LineTooLong { line, size: size + end as u64 + 1, whole: true };
            }
            size += rest.len() as u64;
            if size > LINE_SCAN_BYTES_MAX {
                return BlockError::LineTooLong { line, size, whole: false };
            }
            match self.read_at(0) {
                Ok(0) => return BlockError::LineTooLong { line, size, whole: true },
                Ok(read) => (self.start, self.end) = (0, read),
                Err(error) => return error,
            }
        }
    }
}
