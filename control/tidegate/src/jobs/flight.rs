//! One row of the flights file: what a valid one looks like, and what the jobs take from it.
//!
//! Owner of the state: nobody. Columns are found by the names in the header, so files with more of them work as well.
//!
//! Always true: a row is either taken whole or refused with its column, what was expected and what was found.

use crate::connect::{Row, RowError};
use crate::record::{Plain, Record};

/// What a missing value looks like, besides an empty one.
pub(crate) const MISSING: &str = "NA";

/// Code of an airport or airline: one to four ASCII letters or digits, filled up with zeros.
pub(crate) type Code = [u8; 4];

/// The text of a code.
pub(crate) fn code_text(code: &Code) -> &str {
    let len = code.iter().position(|byte| *byte == 0).unwrap_or(code.len());
    std::str::from_utf8(&code[..len])
        .expect("invariant: codes are ASCII, they were checked when they were read")
}

/// What `delays` takes from a row. Plain: it is its own archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Plain)]
#[repr(C)]
pub(crate) struct Flight {
    pub origin: Code,
    pub dest: Code,
    pub carrier: Code,
    /// Minutes; [`Flight::UNKNOWN`] if not known.
    arr_delay: i32,
    /// 1 if it never left.
    cancelled: u32,
}

impl Flight {
    /// The columns that [`Flight::read`] takes.
    pub(crate) const COLUMNS: [&str; 5] = ["dep_time", "arr_delay", "carrier", "origin", "dest"];

    const UNKNOWN: i32 = i32::MIN;

    /// Reads a row with [`Flight::COLUMNS`].
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, RowError> {
        let [dep_time, arr_delay, carrier, origin, dest] = Self::COLUMNS;
        let dep_time = number(row, 0, dep_time, CLOCK)?;
        let arr_delay = number(row, 1, arr_delay, DELAY)?;
        Ok(Self {
            carrier: code(row, 2, carrier)?,
            origin: code(row, 3, origin)?,
            dest: code(row, 4, dest)?,
            arr_delay: arr_delay.unwrap_or(Self::UNKNOWN),
            cancelled: u32::from(dep_time.is_none()),
        })
    }

    /// Whether it never left.
    pub(crate) fn cancelled(&self) -> bool {
        self.cancelled != 0
    }

    /// Its arrival delay in minutes, if known.
    pub(crate) fn arr_delay(&self) -> Option<i32> {
        (self.arr_delay != Self::UNKNOWN).then_some(self.arr_delay)
    }
}

/// What `flights-clean` sends: the normalised row, and the aircraft that it is keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Record)]
pub(crate) struct CleanRow {
    pub tailnum: String,
    /// The fields of [`CleanRow::COLUMNS`], separated by commas.
    pub row: String,
}

impl CleanRow {
    /// The columns of the output, all of them read.
    pub(crate) const COLUMNS: [&str; 14] = [
        "year",
        "month",
        "day",
        "dep_time",
        "dep_delay",
        "arr_time",
        "arr_delay",
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "distance",
        "time_hour",
    ];

    /// Reads a row with [`CleanRow::COLUMNS`]. A missing value is `NA` from here on, a number has one spelling.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, RowError> {
        let mut fields = String::with_capacity(80);
        for (column, kind) in KINDS.iter().enumerate() {
            if column > 0 {
                fields.push(',');
            }
            kind.normalise(row, column, &mut fields)?;
        }
        let tailnum = if row.is_missing(TAILNUM) { MISSING } else { row.text(TAILNUM)? };
        Ok(Self { tailnum: tailnum.to_owned(), row: fields })
    }
}

const TAILNUM: usize = 9;

/// From, to: inclusive.
type Range = (i32, i32);

/// A local clock time as a number: 517 is 5:17.
const CLOCK: Range = (0, 2400);
/// Minutes.
const DELAY: Range = (-10_000, 100_000);

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Number(Range),
    OptionalNumber(Range),
    Code,
    OptionalTail,
    Time,
}

const KINDS: [Kind; 14] = [
    Kind::Number((1900, 9999)),
    Kind::Number((1, 12)),
    Kind::Number((1, 31)),
    Kind::OptionalNumber(CLOCK),
    Kind::OptionalNumber(DELAY),
    Kind::OptionalNumber(CLOCK),
    Kind::OptionalNumber(DELAY),
    Kind::Code,
    Kind::Number((0, 99_999)),
    Kind::OptionalTail,
    Kind::Code,
    Kind::Code,
    Kind::Number((0, 50_000)),
    Kind::Time,
];

impl Kind {
    /// Appends the field of a column in its one spelling.
    fn normalise(self, row: &Row<'_>, column: usize, out: &mut String) -> Result<(), RowError> {
        let name = CleanRow::COLUMNS[column];
        match self {
            Self::Number(range) => match number(row, column, name, range)? {
                Some(value) => push(out, value),
                None => return Err(wrong(row, column, name, &in_words(range))),
            },
            Self::OptionalNumber(range) => match number(row, column, name, range)? {
                Some(value) => push(out, value),
                None => out.push_str(MISSING),
            },
            Self::Code => out.push_str(code_text(&code(row, column, name)?)),
            Self::OptionalTail if row.is_missing(column) => out.push_str(MISSING),
            Self::OptionalTail => {
                out.push_str(checked(row, column, name, "a tail number or NA", |text| is_code(text, 16))?)
            }
            Self::Time => {
                out.push_str(checked(row, column, name, "a time such as 2013-01-01T10:00:00Z", is_time)?)
            }
        }
        Ok(())
    }
}

fn push(out: &mut String, value: i32) {
    use std::fmt::Write as _;
    let _ = write!(out, "{value}"); // Writing to a string cannot fail.
}

/// A whole number within `range`, or `None` where it is missing.
fn number(row: &Row<'_>, column: usize, name: &str, range: Range) -> Result<Option<i32>, RowError> {
    if row.is_missing(column) {
        return Ok(None);
    }
    let value = row.text(column)?.trim().parse().ok().filter(|value| (range.0..=range.1).contains(value));
    value.map(Some).ok_or_else(|| wrong(row, column, name, &in_words(range)))
}

fn in_words((from, to): Range) -> String {
    format!("a whole number from {from} to {to}")
}

fn code(row: &Row<'_>, column: usize, name: &str) -> Result<Code, RowError> {
    let text = checked(row, column, name, "a code of 1 to 4 letters and digits", |text| is_code(text, 4))?;
    let mut code = Code::default();
    code[..text.len()].copy_from_slice(text.as_bytes());
    Ok(code)
}

fn is_code(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    text.len() == SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

/// The text of a column without spaces around it, if it is what it should be.
fn checked<'a>(
    row: &'a Row<'_>,
    column: usize,
    name: &str,
    expected: &str,
    is: impl Fn(&str) -> bool,
) -> Result<&'a str, RowError> {
    let text = row.text(column)?.trim();
    if is(text) { Ok(text) } else { Err(wrong(row, column, name, expected)) }
}

#[cold]
fn wrong(row: &Row<'_>, column: usize, name: &str, expected: &str) -> RowError {
    const SHOWN: usize = 40;
    let found: String = String::from_utf8_lossy(row.bytes(column)).chars().take(SHOWN).collect();
    RowError { column: Some(name.to_owned()), message: format!("{expected} expected, found {found:?}") }
}

#[cfg(test)]
mod tests {
    use tidegate_stream::FlatMapFunction as _;

    use super::*;
    use crate::connect::{CsvRows, LineBlock, OnError};

    const HEADER: &str = "year,month,day,dep_time,dep_delay,arr_time,arr_delay,carrier,flight,tailnum,origin,dest,distance,time_hour";
    const LINE: &str = "2013,1,1,517,2,830,11,UA,1545,N14228,EWR,IAH,1400,2013-01-01T10:00:00Z";

    fn block(header: &str, lines: &str) -> LineBlock {
        LineBlock { header: header.into(), bytes: lines.into(), first_line: 2, offset: 0 }
    }

    fn flights(header: &str, lines: &str) -> Result<Vec<Flight>, String> {
        let rows = CsvRows::new("flights.csv", Flight::COLUMNS, Flight::read).missing(MISSING);
        let all =
            rows.on_error(OnError::Fail).expand(&block(header, lines)).map_err(|error| error.to_string());
        all.map(Iterator::collect)
    }

    fn clean(lines: &str) -> Result<Vec<CleanRow>, String> {
        let rows = CsvRows::new("flights.csv", CleanRow::COLUMNS, CleanRow::read).missing(MISSING);
        let all =
            rows.on_error(OnError::Fail).expand(&block(HEADER, lines)).map_err(|error| error.to_string());
        all.map(Iterator::collect)
    }

    #[test]
    fn a_flight_is_found_by_the_header() {
        let flights = flights(&format!("extra,{HEADER},more"), &format!("x,{LINE},y\n")).expect("valid");
        let [flight] = flights[..] else { panic!("one flight: {flights:?}") };
        assert_eq!(
            [flight.origin, flight.dest, flight.carrier].each_ref().map(code_text),
            ["EWR", "IAH", "UA"]
        );
        assert_eq!((flight.cancelled(), flight.arr_delay()), (false, Some(11)));
    }

    #[test]
    fn missing_values_have_one_spelling() {
        let line = "2013,1,1,NA,,NA,NA,UA,1545,,EWR,IAH, 1400,2013-01-01T10:00:00Z\r\n";
        let flight = flights(HEADER, line).expect("valid")[0];
        assert_eq!((flight.cancelled(), flight.arr_delay()), (true, None));
        let row = &clean(line).expect("valid")[0];
        assert_eq!(row.tailnum, "NA");
        assert_eq!(row.row, "2013,1,1,NA,NA,NA,NA,UA,1545,NA,EWR,IAH,1400,2013-01-01T10:00:00Z");
    }

    #[test]
    fn a_good_row_stays_as_it_is() {
        assert_eq!(clean(LINE).expect("valid")[0].row, LINE);
        assert_eq!(clean(&LINE.replace(",11,", ",+011,")).expect("valid")[0].row, LINE);
    }

    #[test]
    fn a_malformed_row_says_what_is_wrong() {
        for (from, to, says) in [
            (",IAH", "", "line 2"),
            (",UA,", ",UA,UA,", "line 2"),
            (
                ",11,",
                ",late,",
                "column `arr_delay`: a whole number from -10000 to 100000 expected, found \"late\"",
            ),
            (
                "EWR",
                "LONDON",
                "column `origin`: a code of 1 to 4 letters and digits expected, found \"LONDON\"",
            ),
            ("EWR", "", "column `origin`"),
            ("2013,1,", "2013,13,", "column `month`: a whole number from 1 to 12 expected, found \"13\""),
            ("2013,1,", "2013,NA,", "column `month`"),
            ("T10", " 10", "column `time_hour`"),
        ] {
            let error = clean(&LINE.replacen(from, to, 1)).expect_err(says);
            assert!(error.contains("flights.csv") && error.contains(says), "{error}");
        }
    }
}
