//! One line of a table into its fields. It owns the places of the last line's fields and the bytes of unquoted ones.
//!
//! The grammar is RFC 4180 but for one thing: a row is a line, so a quoted field holds no line break. A file of blocks is
//! cut at line breaks without looking at quotes, and what a row is must not depend on where a block ends. Always: the
//! places lie within the line, or within `unquoted`.

use memchr::{memchr, memchr_iter};

use crate::connect::limits::COLUMNS_MAX;

/// Why a line is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsError {
    /// A quoted field does not end on its line.
    Unclosed,
    /// Something follows the quote that ends a field.
    AfterQuote,
    /// More columns than any table may have.
    TooMany,
}

impl FieldsError {
    /// In words.
    pub fn message(self) -> String {
        match self {
            Self::Unclosed => {
                "a quoted field does not end on its line; line breaks within fields are not read".into()
            }
            Self::AfterQuote => {
                "a quoted field goes on behind its closing quote; a quote in a field is written twice".into()
            }
            Self::TooMany => format!("it has more than {COLUMNS_MAX} fields"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
    unquoted: bool,
}

/// Splits lines, one at a time, keeping its memory.
///
/// ```
/// use tidegate_stream::connect::fields::Fields;
/// let mut fields = Fields::default();
/// let line = br#"a,"b, ""c""",,d"#;
/// fields.split(line, b',').unwrap();
/// let all: Vec<&[u8]> = (0..fields.len()).map(|i| fields.get(line, i)).collect();
/// assert_eq!(all, [&b"a"[..], b"b, \"c\"", b"", b"d"]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fields {
    places: Vec<Place>,
    unquoted: Vec<u8>,
}

impl Fields {
    /// Splits `line`, which has no line break.
    ///
    /// # Errors
    /// What is wrong with the line; then there are no fields.
    pub fn split(&mut self, line: &[u8], delimiter: u8) -> Result<(), FieldsError> {
        self.places.clear();
        self.unquoted.clear();
        let outcome = if memchr(b'"', line).is_none() {
            self.split_simple(line, delimiter)
        } else {
            self.split_quoted(line, delimiter)
        };
        if outcome.is_err() {
            self.places.clear();
        }
        outcome
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Field `index` of the line that was split last, without its quotes.
    #[inline]
    pub fn get<'a>(&'a self, line: &'a [u8], index: usize) -> &'a [u8] {
        let place = self.places[index];
        let bytes = if place.unquoted { &self.unquoted } else { line };
        &bytes[place.start as usize..place.end as usize]
    }

    fn split_simple(&mut self, line: &[u8], delimiter: u8) -> Result<(), FieldsError> {
        let mut start = 0;
        for end in memchr_iter(delimiter, line) {
            self.push(start, end, false)?;
            start = end + 1;
        }
        self.push(start, line.len(), false)
    }

    fn split_quoted(&mut self, line: &[u8], delimiter: u8) -> Result<(), FieldsError> {
        let mut at = 0;
        loop {
            let end = if line.get(at) == Some(&b'"') {
                self.unquote(line, at + 1)?
            } else {
                let end = memchr(delimiter, &line[at..]).map_or(line.len(), |len| at + len);
                self.push(at, end, false)?;
                end
            };
            match line.get(end) {
                None => return Ok(()),
                Some(&byte) if byte == delimiter => at = end + 1,
                Some(_) => return Err(FieldsError::AfterQuote),
            }
        }
    }

    /// Takes in the field whose text starts at `at`; gives the place behind its closing quote.
    fn unquote(&mut self, line: &[u8], mut at: usize) -> Result<usize, FieldsError> {
        let start = self.unquoted.len();
        loop {
            let len = memchr(b'"', &line[at..]).ok_or(FieldsError::Unclosed)?;
            self.unquoted.extend_from_slice(&line[at..at + len]);
            at += len + 1;
            if line.get(at) != Some(&b'"') {
                self.push(start, self.unquoted.len(), true)?;
                return Ok(at);
            }
            self.unquoted.push(b'"');
            at += 1;
        }
    }

    fn push(&mut self, start: usize, end: usize, unquoted: bool) -> Result<(), FieldsError> {
        if self.places.len() >= COLUMNS_MAX {
            return Err(FieldsError::TooMany);
        }
        // Lines are at most a block long, far below 4 GiB.
        self.places.push(Place { start: start as u32, end: end as u32, unquoted });
        Ok(())
    }
}
