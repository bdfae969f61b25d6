//! The source of lines: plain or zipped, from any position, never in another file, and never faster than its rate.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::{open, runtime};
use crate::connect::{LineBlock, LineFile};
use crate::error::{Fault, TaskError};
use crate::source::{Next, Pause, SourceReader};

const TEXT: &[u8] = b"name,size\r\nalpha,1\nbeta,22\n\ngamma,333\ndelta,4444\nlast,5";

fn plain(folder: &TempDir, text: &[u8]) -> PathBuf {
    let path = folder.path().join("input.csv");
    fs::write(&path, text).unwrap();
    path
}

/// Two members, as `cat a.gz b.gz` makes them.
fn zipped(folder: &TempDir, text: &[u8]) -> PathBuf {
    let path = folder.path().join("input.csv.GZ");
    let (a, b) = text.split_at(text.len() / 2);
    let member = |part: &[u8]| {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(part).unwrap();
        zip.finish().unwrap()
    };
    fs::write(&path, [member(a), member(b)].concat()).unwrap();
    path
}

fn read(file: &LineFile, restored: Option<u64>, positions: &[Vec<u8>]) -> Result<Vec<LineBlock>, TaskError> {
    open(file, &runtime(0, 1, restored), positions)?.all()
}

fn joined(blocks: &[LineBlock]) -> Vec<u8> {
    blocks.iter().flat_map(|block| block.bytes.iter().copied()).collect()
}

fn small(path: impl AsRef<Path>) -> LineFile {
    // With this rate a block has one line, and at a time that stands still nothing else changes.
    LineFile::new(path.as_ref()).block_bytes(64)
}

#[test]
fn plain_and_zipped_files_give_the_same_lines() {
    let folder = TempDir::new().unwrap();
    for path in [plain(&folder, TEXT), zipped(&folder, TEXT)] {
        let blocks = read(&LineFile::new(&path), None, &[]).unwrap();
        assert_eq!(joined(&blocks), TEXT);
        assert_eq!((blocks[0].first_line, blocks[0].offset), (1, 0));
        assert!(blocks.iter().all(|block| block.header.is_empty()));

        let blocks = read(&LineFile::new(&path).header(true), None, &[]).unwrap();
        assert_eq!(joined(&blocks), &TEXT[11..]);
        assert_eq!((blocks[0].first_line, blocks[0].offset), (2, 11));
        assert!(blocks.iter().all(|block| block.header == b"name,size"));
    }
}

#[test]
fn every_position_goes_on_with_exactly_the_rest() {
    let folder = TempDir::new().unwrap();
    let text: Vec<u8> = (0..500).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    for path in [plain(&folder, &text), zipped(&folder, &text)] {
        for header in [false, true] {
            let file = small(&path).header(header);
            let whole = read(&file, None, &[]).unwrap();
            let mut reader = open(&file, &runtime(0, 1, None), &[]).unwrap();
            assert!(whole.len() > 50);
            for taken in 0..=whole.len() {
                let position = reader.position();
                let rest = read(&file, Some(1), &[position]).unwrap();
                assert_eq!(rest, &whole[taken..], "{} after {taken} blocks", path.display());
                reader.next(0).unwrap();
            }
        }
    }
}

#[test]
fn empty_files_have_no_lines() {
    let folder = TempDir::new().unwrap();
    for path in [plain(&folder, b""), zipped(&folder, b"")] {
        assert_eq!(read(&LineFile::new(&path), None, &[]).unwrap(), []);
        assert_eq!(read(&LineFile::new(&path).header(true), None, &[]).unwrap(), []);
    }
    assert_eq!(read(&LineFile::new(plain(&folder, b"only,header")).header(true), None, &[]).unwrap(), []);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_header() {
    let folder = TempDir::new().unwrap();
    let file = LineFile::new(plain(&folder, b"\xef\xbb\xbfa,b\n1,2\n")).header(true);
    assert_eq!(read(&file, None, &[]).unwrap()[0].header, b"a,b");
}

#[test]
fn one_subtask_reads_whatever_the_parallelism() {
    let folder = TempDir::new().unwrap();
    let file = small(plain(&folder, &b"some line of text\n".repeat(20)));
    let mut first = open(&file, &runtime(0, 2, None), &[]).unwrap();
    let mut second = open(&file, &runtime(1, 2, None), &[]).unwrap();
    let whole = read(&file, None, &[]).unwrap();
    assert_eq!(first.next(0).unwrap(), Some(&whole[0]));
    assert_eq!(second.next(0).unwrap(), None);
    // With another parallelism, each subtask is given all positions.
    let positions = [second.position(), first.position()];
    assert_eq!(open(&file, &runtime(0, 3, Some(1)), &positions).unwrap().all().unwrap(), &whole[1..]);
    assert_eq!(open(&file, &runtime(1, 3, Some(1)), &positions).unwrap().all().unwrap(), []);
    let lost = open(&file, &runtime(0, 3, Some(7)), &positions[..1]).err().unwrap();
    assert_eq!(lost.fault(), Fault::Setup);
    assert!(lost.message().contains("checkpoint 7 has no position"), "{lost}");
}

#[test]
fn faults_have_names() {
    let folder = TempDir::new().unwrap();
    let error = |file: &LineFile| read(file, None, &[]).unwrap_err();

    let missing = error(&LineFile::new(folder.path().join("nowhere.csv")));
    assert_eq!(missing.fault(), Fault::Input);
    assert!(missing.message().contains("nowhere.csv: it cannot be opened: No such file"), "{missing}");

    let directory = error(&LineFile::new(folder.path()));
    assert!(directory.message().contains("it is not a file"), "{directory}");

    let text = [b"short\n".as_slice(), &b"x".repeat(99), b"\n"].concat();
    for path in [plain(&folder, &text), zipped(&folder, &text)] {
        let long = error(&small(&path));
        assert_eq!(long.fault(), Fault::Data);
        let expected = "line 2: it has 100 bytes with its line break, the limit is 64 bytes";
        assert!(long.message().contains(expected), "{long}");
        assert!(long.message().contains(path.to_str().unwrap()), "{long}");
    }

    let cut = zipped(&folder, TEXT);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 9]).unwrap();
    let torn = error(&LineFile::new(&cut));
    assert_eq!(torn.fault(), Fault::Input);
    assert!(torn.message().contains("it cannot be read on at byte"), "{torn}");

    for file in [LineFile::new("x").block_bytes(63), LineFile::new("x").block_bytes(8193)] {
        assert!(error(&file).message().contains("a block may have 64 to 8192"));
    }
    assert!(error(&LineFile::new("x").rate(0)).message().contains("a rate of 0"));
    let garbage = read(&LineFile::new("x"), Some(1), &[vec![1, 2, 3]]).unwrap_err();
    assert_eq!(garbage.fault(), Fault::Setup);
}

/// Opening a pipe nobody writes to would keep a thread of the pool for ever.
#[test]
fn a_pipe_is_refused_without_being_opened() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe.csv");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (answer, answered) = std::sync::mpsc::channel();
    std::thread::spawn(move || answer.send(read(&LineFile::new(pipe), None, &[]).unwrap_err()));
    let error =
        answered.recv_timeout(std::time::Duration::from_secs(30)).expect("it does not wait for a writer");
    assert_eq!(error.fault(), Fault::Input);
    assert!(error.message().contains("it is not a file"), "{error}");
}

#[test]
fn only_what_lasts_is_the_inputs_fault() {
    let file = LineFile::new("flights.csv");
    for (errno, fault) in [
        (2, Fault::Input),    // ENOENT
        (13, Fault::Input),   // EACCES
        (20, Fault::Input),   // ENOTDIR
        (21, Fault::Input),   // EISDIR
        (4, Fault::Source),   // EINTR
        (5, Fault::Source),   // EIO
        (23, Fault::Source),  // ENFILE
        (24, Fault::Source),  // EMFILE
        (110, Fault::Source), // ETIMEDOUT
        (116, Fault::Source), // ESTALE
    ] {
        let error = file.io_error(&io::Error::from_raw_os_error(errno), "it cannot be opened");
        assert_eq!(error.fault(), fault, "{error}");
        assert!(error.message().starts_with("flights.csv: it cannot be opened: "), "{error}");
    }
}

#[test]
fn another_file_under_the_name_is_refused_on_restore() {
    let folder = TempDir::new().unwrap();
    let path = plain(&folder, &b"some line of text\n".repeat(20));
    let file = small(&path);
    let mut reader = open(&file, &runtime(0, 1, None), &[]).unwrap();
    reader.next(0).unwrap();
    let position = reader.position();

    fs::write(&path, b"some line of text\n".repeat(21)).unwrap();
    let changed = read(&file, Some(1), std::slice::from_ref(&position)).unwrap_err();
    assert_eq!(changed.fault(), Fault::Input);
    assert!(changed.message().contains("its length was 360 bytes and is 378"), "{changed}");

    // The same bytes in another file are another file too: nobody looked at them all.
    let copy = folder.path().join("copy.csv");
    fs::write(&copy, b"some line of text\n".repeat(20)).unwrap();
    fs::rename(&copy, &path).unwrap();
    let replaced = read(&file, Some(1), &[position]).unwrap_err();
    assert!(replaced.message().contains("its inode was"), "{replaced}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error_not_a_torn_line() {
    let folder = TempDir::new().unwrap();
    // More than is read ahead, so that the end is reached after the change.
    let path = plain(&folder, &b"some line of text\n".repeat(200_000));
    let mut reader = open(&LineFile::new(&path), &runtime(0, 1, None), &[]).unwrap();
    reader.next(0).unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"one more\n").unwrap();
    let error = reader.all().unwrap_err();
    assert!(error.message().contains("it changed while it was read"), "{error}");
}

#[test]
fn read_ahead_is_bounded() {
    let folder = TempDir::new().unwrap();
    let path = plain(&folder, &b"some line of text\n".repeat(200_000));
    let mut reader = open(&LineFile::new(&path), &runtime(0, 1, None), &[]).unwrap();
    assert!(reader.next(0).unwrap().is_some());
    // Nothing was consumed but one block, and the pool has run until it had nothing to do.
    assert!(!reader.pool.run_one(), "the reader waits for its blocks to be consumed");
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"").unwrap();
    assert!(reader.all().is_err(), "so the end of the file was not reached yet");
}

#[test]
fn a_rate_is_kept_and_evenly() {
    let folder = TempDir::new().unwrap();
    let path = plain(&folder, &b"some line of text\n".repeat(3_000));
    let mut reader = open(&LineFile::new(&path).rate(1_000), &runtime(0, 1, None), &[]).unwrap();
    let (mut now, mut lines, mut longest) = (0, 0, 0);
    loop {
        while reader.pool.run_one() {}
        match reader.reader.next(now).unwrap() {
            Next::Item(block) => {
                assert!(lines <= now / 1_000_000, "{lines} lines had passed after {now} ns");
                lines += block.lines();
            }
            Next::Wait(Pause::Until(at) | Pause::Punctual(at)) => {
                assert!(at > now);
                longest = longest.max(at - now);
                now = at;
            }
            Next::Wait(Pause::External) => panic!("the pool has nothing to do"),
            Next::End => break,
        }
    }
    assert_eq!(lines, 3_000);
    assert!((2_900_000_000..=3_000_000_000).contains(&now), "3000 lines took {now} ns");
    assert!(longest <= 10_000_000, "a pause of {longest} ns");
}

#[test]
fn a_rate_is_not_caught_up_after_a_long_wait() {
    let folder = TempDir::new().unwrap();
    let path = plain(&folder, &b"some line of text\n".repeat(30_000));
    let mut reader = open(&LineFile::new(&path).rate(1_000), &runtime(0, 1, None), &[]).unwrap();
    assert!(reader.next(0).unwrap().is_some());
    let hour = 3_600_000_000_000;
    let mut lines = 0;
    while let Some(block) = reader.next(hour).unwrap() {
        lines += block.lines();
    }
    assert!((100..=120).contains(&lines), "{lines} lines at once");
}
