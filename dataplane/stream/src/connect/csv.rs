//! Blocks of lines into rows of a user's type, wherever there are cores to parse them.
//!
//! A [`CsvRows`] is a flat-map function over [`LineBlock`]s: it owns the columns found in the last header and the memory of
//! one line's fields. Always: every line of a block becomes a row, is blank, or is counted as malformed with its file and
//! line; which of these does not depend on where blocks are cut.

use std::marker::PhantomData;
use std::str::FromStr;
use std::vec;

use memchr::memchr_iter;
use serde::de::DeserializeOwned;

use crate::connect::fields::Fields;
use crate::connect::limits::{MALFORMED_REPORTED_MAX, QUOTED_CHARS_MAX};
use crate::connect::lines::{ArchivedLineBlock, LineBlock};
use crate::context::{Counter, RuntimeContext};
use crate::error::TaskError;
use crate::function::FlatMapFunction;

/// What to do with a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Fail the task, naming file, line and column.
    #[default]
    Fail,
    /// Count it as `malformed_rows`, report the first few, and go on.
    Skip,
}

impl FromStr for OnError {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fail" => Ok(OnError::Fail),
            "skip" => Ok(OnError::Skip),
            _ => Err("expected `fail` or `skip`".to_owned()),
        }
    }
}

/// Why a row is malformed: the column, if one is to blame, and the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The column's name.
    pub column: Option<String>,
    /// What was expected and what was found.
    pub message: String,
}

impl From<String> for RowError {
    fn from(message: String) -> Self {
        RowError { column: None, message }
    }
}

impl From<&str> for RowError {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// The wanted columns of one row, in the order they were asked for.
#[derive(Debug)]
pub struct Row<'a> {
    fields: &'a Fields,
    line: &'a [u8],
    names: &'a [String],
    places: &'a [usize],
    missing: &'a [Vec<u8>],
}

impl Row<'_> {
    /// The bytes of wanted column `column`, without quotes.
    ///
    /// # Panics
    /// If fewer columns were asked for.
    #[inline]
    pub fn bytes(&self, column: usize) -> &[u8] {
        self.fields.get(self.line, self.places[column])
    }

    /// Whether the value is empty or one of the words for "not there".
    #[inline]
    pub fn is_missing(&self, column: usize) -> bool {
        let bytes = self.bytes(column);
        bytes.is_empty() || self.missing.iter().any(|word| word == bytes)
    }

    /// The value as text, empty or not.
    ///
    /// # Errors
    /// If it is not UTF-8.
    #[inline]
    pub fn text(&self, column: usize) -> Result<&str, RowError> {
        let bytes = self.bytes(column);
        std::str::from_utf8(bytes).map_err(|_| self.error(column, format!("{} is not UTF-8", quoted(bytes))))
    }

    /// The value as a number or any other type that can be read from text.
    ///
    /// # Errors
    /// If it cannot.
    #[inline]
    pub fn parse<T: FromStr<Err: std::fmt::Display>>(&self, column: usize) -> Result<T, RowError> {
        self.text(column)?.parse().map_err(|cause| {
            let found = quoted(self.bytes(column));
            self.error(column, format!("{found} is no {}: {cause}", std::any::type_name::<T>()))
        })
    }

    /// As `parse`, or `None` where the value is missing.
    ///
    /// # Errors
    /// If there is a value and it cannot be read.
    #[inline]
    pub fn optional<T: FromStr<Err: std::fmt::Display>>(&self, column: usize) -> Result<Option<T>, RowError> {
        if self.is_missing(column) { Ok(None) } else { self.parse(column).map(Some) }
    }

    #[cold]
    fn error(&self, column: usize, message: String) -> RowError {
        RowError { column: Some(self.names[column].clone()), message }
    }
}

/// The first characters of a value, in backticks.
fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let start: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let rest = if start.len() < text.len() { "…" } else { "" };
    format!("`{start}{rest}`")
}

/// Makes a row of the user's type.
pub trait RowParser: Clone + Send + 'static {
    /// The user's type.
    type Row: Send + 'static;

    /// Looks at a header; called before the first row and whenever the header is another one. Gives the places of the
    /// columns that [`Row`] is to have, and their names.
    ///
    /// # Errors
    /// What is missing, in words.
    fn bind(&mut self, header: &[&str]) -> Result<(Vec<usize>, Vec<String>), String>;

    /// Makes the row.
    ///
    /// # Errors
    /// If the row is malformed.
    fn parse(&mut self, row: &Row<'_>) -> Result<Self::Row, RowError>;
}

/// A parser by named columns and a function.
#[derive(Clone, Debug)]
pub struct ByName<F> {
    columns: Vec<String>,
    function: F,
}

impl<T: Send + 'static, F> RowParser for ByName<F>
where
    F: FnMut(&Row<'_>) -> Result<T, RowError> + Clone + Send + 'static,
{
    type Row = T;

    fn bind(&mut self, header: &[&str]) -> Result<(Vec<usize>, Vec<String>), String> {
        let place = |wanted: &String| {
            header.iter().position(|name| name == wanted).ok_or_else(|| {
                format!("it has no column `{wanted}`; its header is {}", quoted(header.join(",").as_bytes()))
            })
        };
        let places = self.columns.iter().map(place).collect::<Result<_, _>>()?;
        Ok((places, self.columns.clone()))
    }

    #[inline]
    fn parse(&mut self, row: &Row<'_>) -> Result<T, RowError> {
        (self.function)(row)
    }
}

/// A parser by the `Deserialize` of a struct whose fields are named like columns.
pub struct BySerde<T> {
    header: ::csv::ByteRecord,
    record: ::csv::ByteRecord,
    row: PhantomData<fn() -> T>,
}

impl<T> Clone for BySerde<T> {
    fn clone(&self) -> Self {
        BySerde { header: self.header.clone(), record: self.record.clone(), row: PhantomData }
    }
}

impl<T: DeserializeOwned + Send + 'static> RowParser for BySerde<T> {
    type Row = T;

    fn bind(&mut self, header: &[&str]) -> Result<(Vec<usize>, Vec<String>), String> {
        self.header = header.iter().collect();
        Ok(((0..header.len()).collect(), header.iter().map(|&name| name.to_owned()).collect()))
    }

    fn parse(&mut self, row: &Row<'_>) -> Result<T, RowError> {
        self.record.clear();
        for column in 0..row.places.len() {
            self.record.push_field(if row.is_missing(column) { b"" } else { row.bytes(column) });
        }
        self.record.deserialize(Some(&self.header)).map_err(|error| match error.kind() {
            ::csv::ErrorKind::Deserialize { err, .. } => RowError {
                column: err.field().and_then(|field| row.names.get(field as usize)).cloned(),
                message: err.kind().to_string(),
            },
            _ => error.to_string().into(),
        })
    }
}

/// A flat-map function that turns blocks of a file with a header into rows. Blank lines are skipped.
///
/// ```
/// use tidegate_stream::connect::{CsvRows, LineBlock, OnError};
/// use tidegate_stream::FlatMapFunction;
///
/// let mut rows = CsvRows::new("flights.csv", ["dest", "dep_delay"], |row| {
///     Ok((row.text(0)?.to_owned(), row.optional::<i16>(1)?))
/// })
/// .missing("NA")
/// .on_error(OnError::Skip);
///
/// let block = LineBlock {
///     header: b"carrier,dep_delay,dest".to_vec(),
///     bytes: b"UA,2,IAH\nAA,NA,MIA\nB6,late,BQN\n".to_vec(),
///     first_line: 2,
///     offset: 23,
/// };
/// let all: Vec<_> = rows.expand(&block).unwrap().collect();
/// assert_eq!(all, [("IAH".to_owned(), Some(2)), ("MIA".to_owned(), None)]);
/// ```
#[derive(Clone, Debug)]
pub struct CsvRows<P> {
    file: String,
    parser: P,
    delimiter: u8,
    missing: Vec<Vec<u8>>,
    on_error: OnError,
    columns: Option<Columns>,
    fields: Fields,
    rows: Counter,
    malformed: Counter,
    reported: u64,
    /// Rows of the last block: the next one has about as many.
    guess: usize,
}

/// What a header says.
#[derive(Clone, Debug)]
struct Columns {
    header: Vec<u8>,
    width: usize,
    places: Vec<usize>,
    names: Vec<String>,
}

impl<F> CsvRows<ByName<F>> {
    /// Rows of `function`, which is given the values of `columns` in that order. `file` is for messages.
    pub fn new<T, N: Into<String>>(
        file: impl Into<String>,
        columns: impl IntoIterator<Item = N>,
        function: F,
    ) -> Self
    where
        F: FnMut(&Row<'_>) -> Result<T, RowError> + Clone + Send + 'static,
        T: Send + 'static,
    {
        let columns = columns.into_iter().map(Into::into).collect();
        CsvRows::with(file, ByName { columns, function })
    }
}

impl CsvRows<()> {
    /// Rows of a type that derives `serde::Deserialize`, by the names of its fields. Convenient, and about half as fast as
    /// naming the columns. `file` is for messages.
    ///
    /// ```
    /// use tidegate_stream::connect::{CsvRows, LineBlock};
    /// use tidegate_stream::FlatMapFunction;
    ///
    /// #[derive(Debug, PartialEq, serde::Deserialize)]
    /// struct Airline { carrier: String, name: String }
    ///
    /// let mut rows = CsvRows::deserialize::<Airline>("airlines.csv");
    /// let block = LineBlock { header: b"carrier,name".to_vec(), bytes: b"UA,\"United, Inc.\"\n".to_vec(), ..Default::default() };
    /// let all: Vec<_> = rows.expand(&block).unwrap().collect();
    /// assert_eq!(all, [Airline { carrier: "UA".into(), name: "United, Inc.".into() }]);
    /// ```
    pub fn deserialize<T: DeserializeOwned + Send + 'static>(file: impl Into<String>) -> CsvRows<BySerde<T>> {
        CsvRows::with(
            file,
            BySerde { header: Default::default(), record: Default::default(), row: PhantomData },
        )
    }
}

impl<P> CsvRows<P> {
    /// Rows of any parser. `file` is for messages.
    pub fn with(file: impl Into<String>, parser: P) -> Self {
        CsvRows {
            file: file.into(),
            parser,
            delimiter: b',',
            missing: Vec::new(),
            on_error: OnError::Fail,
            columns: None,
            fields: Fields::default(),
            rows: Counter::default(),
            malformed: Counter::default(),
            reported: 0,
            guess: 0,
        }
    }

    /// What to do with malformed rows; fail if nothing is said.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// A word that stands for "not there", such as `NA`, besides the empty value. May be called more than once.
    #[must_use]
    pub fn missing(mut self, word: impl Into<Vec<u8>>) -> Self {
        self.missing.push(word.into());
        self
    }

    /// What stands between two fields; a comma if nothing is said.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }
}

impl<P: RowParser> CsvRows<P> {
    fn block(
        &mut self,
        header: &[u8],
        first_line: u64,
        bytes: &[u8],
    ) -> Result<vec::IntoIter<P::Row>, TaskError> {
        if self.columns.as_ref().is_none_or(|columns| columns.header != header) {
            self.columns = Some(self.bind(header)?);
        }
        let mut rows = Vec::with_capacity(self.guess);
        let (mut start, mut line) = (0, first_line);
        let breaks = memchr_iter(b'\n', bytes).chain((bytes.last() != Some(&b'\n')).then_some(bytes.len()));
        for end in breaks {
            let text = &bytes[start..end];
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if !text.is_empty() {
                match self.row(text) {
                    Ok(row) => rows.push(row),
                    Err(error) => self.malformed(line, error)?,
                }
            }
            (start, line) = (end + 1, line + 1);
        }
        self.rows.add(rows.len() as u64);
        self.guess = rows.len();
        Ok(rows.into_iter())
    }

    #[cold]
    fn bind(&mut self, header: &[u8]) -> Result<Columns, TaskError> {
        let named = |message: String| TaskError::data(format!("{}, line 1: {message}", self.file));
        if header.is_empty() {
            let message = "rows by column names need a header: say `header(true)` to the file of lines";
            return Err(named(message.to_owned()));
        }
        self.fields.split(header, self.delimiter).map_err(|error| named(error.message()))?;
        let names = (0..self.fields.len())
            .map(|index| std::str::from_utf8(self.fields.get(header, index)).map(str::trim))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| named("the header is not UTF-8".to_owned()))?;
        let (places, wanted) = self.parser.bind(&names).map_err(named)?;
        Ok(Columns { header: header.to_vec(), width: names.len(), places, names: wanted })
    }

    #[inline]
    fn row(&mut self, line: &[u8]) -> Result<P::Row, RowError> {
        let columns =
            self.columns.as_ref().expect("invariant: the header was looked at before the first row");
        self.fields.split(line, self.delimiter).map_err(|error| error.message())?;
        if self.fields.len() != columns.width {
            return Err(
                format!("it has {} fields, the header has {}", self.fields.len(), columns.width).into()
            );
        }
        let (names, places) = (&columns.names, &columns.places);
        self.parser.parse(&Row { fields: &self.fields, line, names, places, missing: &self.missing })
    }

    #[cold]
    fn malformed(&mut self, line: u64, error: RowError) -> Result<(), TaskError> {
        let column = error.column.map(|column| format!(", column `{column}`")).unwrap_or_default();
        let message = format!("{}, line {line}{column}: {}", self.file, error.message);
        if self.on_error == OnError::Fail {
            return Err(TaskError::data(message));
        }
        self.malformed.add(1);
        if self.reported < MALFORMED_REPORTED_MAX {
            self.reported += 1;
            tracing::warn!("malformed row skipped: {message}");
        }
        Ok(())
    }

    fn opened(&mut self, context: &RuntimeContext) {
        self.rows = context.metrics.counter("rows");
        self.malformed = context.metrics.counter("malformed_rows");
    }
}

impl<P: RowParser> FlatMapFunction<LineBlock> for CsvRows<P> {
    type Out = P::Row;
    type Outputs = vec::IntoIter<P::Row>;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.opened(context);
        Ok(())
    }

    fn expand(&mut self, block: &LineBlock) -> Result<Self::Outputs, TaskError> {
        self.block(&block.header, block.first_line, &block.bytes)
    }
}

impl<P: RowParser> FlatMapFunction<ArchivedLineBlock> for CsvRows<P> {
    type Out = P::Row;
    type Outputs = vec::IntoIter<P::Row>;

    fn open(&mut self, context: &RuntimeContext) -> Result<(), TaskError> {
        self.opened(context);
        Ok(())
    }

    fn expand(&mut self, block: &ArchivedLineBlock) -> Result<Self::Outputs, TaskError> {
        self.block(&block.header, block.first_line.to_native(), &block.bytes)
    }
}
