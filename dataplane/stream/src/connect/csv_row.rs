//! One row on its way into a file: fields go straight into the file's buffer. It borrows that buffer and owns its length.
//!
//! Always: `len` ≤ the buffer's length; what was written is whole fields in RFC 4180, so that any reader gets the values
//! back. A row that does not fit is remembered as such and never reaches the file.

use std::fmt::{self, Display, Write};

use memchr::memchr3;

/// Takes the fields of one row, in the order of the columns.
///
/// ```
/// use tidegate_stream::connect::CsvRow;
/// let mut buffer = [0; 64];
/// let mut row = CsvRow::new(&mut buffer, b',');
/// row.text("Newark, NJ").value(1.5).missing().text("\"EWR\"");
/// assert_eq!(row.end(), Some((28, 4)));
/// assert_eq!(&buffer[..28], b"\"Newark, NJ\",1.5,,\"\"\"EWR\"\"\"\n");
/// ```
#[derive(Debug)]
pub struct CsvRow<'a> {
    out: &'a mut [u8],
    len: usize,
    fields: usize,
    delimiter: u8,
    overflow: bool,
}

impl<'a> CsvRow<'a> {
    /// A row into `out`.
    pub fn new(out: &'a mut [u8], delimiter: u8) -> Self {
        CsvRow { out, len: 0, fields: 0, delimiter, overflow: false }
    }

    /// A text field.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.begin();
        if self.needs_quotes(text.as_bytes()) {
            self.put(b"\"");
            for (number, part) in text.split('"').enumerate() {
                if number > 0 {
                    self.put(b"\"\"");
                }
                self.put(part.as_bytes());
            }
            self.put(b"\"");
        } else {
            self.put(text.as_bytes());
        }
        self
    }

    /// A number, or anything else that can be displayed.
    pub fn value(&mut self, value: impl Display) -> &mut Self {
        self.begin();
        let start = self.len;
        if write!(Raw(self), "{value}").is_err() {
            self.overflow = true;
        }
        if !self.overflow && self.needs_quotes(&self.out[start..self.len]) {
            self.quote(start);
        }
        self
    }

    /// A value, or an empty field.
    pub fn optional(&mut self, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.value(value),
            None => self.missing(),
        }
    }

    /// An empty field.
    pub fn missing(&mut self) -> &mut Self {
        self.begin();
        self
    }

    /// Ends the row with a line break: its bytes and its fields. `None` if it did not fit.
    pub fn end(mut self) -> Option<(usize, usize)> {
        if self.len == 0 && self.fields == 1 {
            // A line without anything on it would be no row at all.
            self.put(b"\"\"");
        }
        self.put(b"\n");
        (!self.overflow).then_some((self.len, self.fields))
    }

    fn begin(&mut self) {
        if self.fields > 0 {
            self.put(&[self.delimiter]);
        }
        self.fields += 1;
    }

    fn needs_quotes(&self, field: &[u8]) -> bool {
        memchr3(self.delimiter, b'"', b'\n', field).is_some() || field.contains(&b'\r')
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.len..self.len + bytes.len()) {
            Some(place) if !self.overflow => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.overflow = true,
        }
    }

    /// Puts quotes around the field that starts at `start` and doubles those in it, from its end on.
    #[cold]
    fn quote(&mut self, start: usize) {
        let quotes = self.out[start..self.len].iter().filter(|&&byte| byte == b'"').count();
        let end = self.len + quotes + 2;
        if end > self.out.len() {
            self.overflow = true;
            return;
        }
        let mut to = end - 1;
        self.out[to] = b'"';
        for from in (start..self.len).rev() {
            let byte = self.out[from];
            to -= 1;
            self.out[to] = byte;
            if byte == b'"' {
                to -= 1;
                self.out[to] = b'"';
            }
        }
        self.out[start] = b'"';
        self.len = end;
    }
}

/// What `write!` needs.
struct Raw<'r, 'a>(&'r mut CsvRow<'a>);

impl Write for Raw<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.put(text.as_bytes());
        if self.0.overflow { Err(fmt::Error) } else { Ok(()) }
    }
}
