//! Cutting into blocks: whatever the sizes, the blocks are the stream and the lines are the lines.

use std::io::{self, ErrorKind, Read};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::connect::blocks::{BlockError, Blocks};

/// A stream that gives what it likes: pieces of the given sizes, in turn, with interruptions.
struct Crumbs<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
}

impl Read for Crumbs<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(3) {
            return Err(ErrorKind::Interrupted.into());
        }
        let len = self.sizes[self.turn % self.sizes.len()].min(out.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(len);
        out[..len].copy_from_slice(now);
        self.bytes = later;
        Ok(len)
    }
}

const LINE_MAX: usize = 40;

/// Lines of up to `LINE_MAX` bytes with their breaks, the last with or without one.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = vec(prop_oneof![Just(b'\r'), b' '..b'~', Just(0xffu8)], 0..LINE_MAX);
    (vec(line, 0..60), any::<bool>()).prop_map(|(lines, ends)| {
        let mut text: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
        if !ends {
            text.pop();
        }
        text
    })
}

fn lines_of(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

proptest! {
    #[test]
    fn any_sizes_give_the_same_lines(
        text in text(),
        bytes_max in LINE_MAX..600,
        lines_max in prop_oneof![Just(usize::MAX), 1usize..9],
        sizes in vec(1usize..200, 1..5),
    ) {
        let mut blocks = Blocks::new(Crumbs { bytes: &text, sizes: &sizes, turn: 0 }, bytes_max, lines_max);
        let (mut joined, mut lines) = (Vec::new(), Vec::new());
        while let Some(block) = blocks.next().unwrap() {
            prop_assert_eq!(block.offset, joined.len() as u64);
            prop_assert_eq!(block.first_line, lines.len() as u64 + 1);
            let own = lines_of(block.bytes);
            prop_assert_eq!(block.lines, own.len() as u64);
            prop_assert!(!own.is_empty() && own.len() <= lines_max && block.bytes.len() <= bytes_max);
            joined.extend_from_slice(block.bytes);
            lines.extend(own);
        }
        prop_assert_eq!(&lines, &lines_of(&text));
        prop_assert_eq!(joined, text);
    }

    #[test]
    fn skipping_goes_on_as_if_read(text in text(), at in any::<prop::sample::Index>(), sizes in vec(1usize..200, 1)) {
        let lines = lines_of(&text);
        let line = at.index(lines.len() + 1);
        let offset = lines[..line].iter().map(|line| line.len() as u64).sum();
        let mut blocks = Blocks::new(Crumbs { bytes: &text, sizes: &sizes, turn: 0 }, 64, usize::MAX);
        blocks.skip_to(offset, line as u64 + 1).unwrap();
        prop_assert_eq!(blocks.position(), (offset, line as u64 + 1));
        let mut rest = Vec::new();
        while let Some(block) = blocks.next().unwrap() {
            rest.extend_from_slice(block.bytes);
        }
        prop_assert_eq!(&rest, &text[offset as usize..]);
    }

    #[test]
    fn a_line_that_is_too_long_is_measured(before in 0u64..20, size in 65u64..300_000, broken in any::<bool>()) {
        let mut text = b"short\n".repeat(before as usize);
        text.resize(text.len() + size as usize - usize::from(broken), b'x');
        if broken {
            text.extend(b"\nmore\n");
        }
        let mut blocks = Blocks::new(text.as_slice(), 64, usize::MAX);
        let error = loop {
            match blocks.next() {
                Ok(block) => prop_assert!(block.is_some()),
                Err(error) => break error,
            }
        };
        let BlockError::LineTooLong { line, size: found, whole } = error else { panic!("{error:?}") };
        prop_assert_eq!((line, found, whole), (before + 1, size, true));
    }
}

#[test]
fn a_line_of_exactly_the_limit_is_read() {
    let mut blocks = Blocks::new(&b"1234567\n12345678"[..], 8, usize::MAX);
    assert_eq!(blocks.next().unwrap().unwrap().bytes, b"1234567\n");
    assert_eq!(blocks.next().unwrap().unwrap().bytes, b"12345678");
    assert_eq!(blocks.next().unwrap(), None);
    assert_eq!(blocks.next().unwrap(), None);
}

#[test]
fn skipping_behind_the_end_is_an_error() {
    let mut blocks = Blocks::new(&b"abc\n"[..], 8, 1);
    let error = blocks.skip_to(5, 2).unwrap_err();
    let BlockError::Read { cause, offset: 4 } = error else { panic!("{error:?}") };
    assert_eq!(cause.to_string(), "it ends at byte 4, byte 5 was asked for");
}

#[test]
fn a_read_error_names_how_far_it_came() {
    struct Torn(bool);
    impl Read for Torn {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("torn"));
            }
            out[..4].copy_from_slice(b"a\nb\n");
            Ok(4)
        }
    }
    let BlockError::Read { cause, offset: 4 } = Blocks::new(Torn(false), 8, 1).next().unwrap_err() else {
        panic!()
    };
    assert_eq!(cause.to_string(), "torn");
}
