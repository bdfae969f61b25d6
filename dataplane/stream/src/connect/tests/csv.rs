//! Rows: the same wherever blocks are cut, and every line that is none is counted by file and line.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::runtime;
use crate::connect::blocks::Blocks;
use crate::connect::fields::{Fields, FieldsError};
use crate::connect::{CsvRow, CsvRows, LineBlock, OnError, Row, RowError, RowParser};
use crate::error::{Fault, TaskError};
use crate::function::FlatMapFunction;

fn blocks(text: &[u8], bytes_max: usize) -> Vec<LineBlock> {
    let mut blocks = Blocks::new(text, bytes_max, 1);
    let header = blocks.next().unwrap().map_or(Vec::new(), |block| block.bytes.trim_ascii_end().to_vec());
    blocks.set_lines_max(usize::MAX);
    let mut all = Vec::new();
    while let Some(block) = blocks.next().unwrap() {
        let (first_line, offset) = (block.first_line, block.offset);
        all.push(LineBlock { first_line, offset, header: header.clone(), bytes: block.bytes.to_vec() });
    }
    all
}

fn parse<P: RowParser>(rows: &mut CsvRows<P>, text: &[u8]) -> Result<Vec<P::Row>, TaskError> {
    let mut all = Vec::new();
    for block in blocks(text, 4096) {
        all.extend(FlatMapFunction::<LineBlock>::expand(rows, &block)?);
    }
    Ok(all)
}

type Pair = (String, Option<i32>);

fn pair(row: &Row<'_>) -> Result<Pair, RowError> {
    Ok((row.text(0)?.to_owned(), row.optional(1)?))
}

fn pairs() -> CsvRows<impl RowParser<Row = Pair>> {
    CsvRows::new("in.csv", ["name", "n"], pair).missing("NA")
}

#[test]
fn columns_are_found_by_name() {
    let text = b"x,n,name\n1,2,a\n1,NA,b\n1,,\"c, d\"\n";
    let expected = [("a".into(), Some(2)), ("b".into(), None), ("c, d".into(), None)];
    assert_eq!(parse(&mut pairs(), text).unwrap(), expected);
    let other = b" n ;name\r\n7;e\r\n\r\n8;f";
    assert_eq!(
        parse(&mut pairs().delimiter(b';'), other).unwrap(),
        [("e".into(), Some(7)), ("f".into(), Some(8))]
    );
}

#[test]
fn a_new_header_is_looked_at() {
    let mut rows = pairs();
    assert_eq!(parse(&mut rows, b"name,n\na,1\n").unwrap(), [("a".into(), Some(1))]);
    assert_eq!(parse(&mut rows, b"n,name\n2,b\n").unwrap(), [("b".into(), Some(2))]);
}

#[test]
fn structs_are_filled_by_the_names_of_their_fields() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Plane {
        tailnum: String,
        year: Option<u16>,
        seats: u32,
    }
    let text = b"tailnum,year,model,seats\nN1,2004,x,55\nN2,NA,\"y,\"\"z\",8\n";
    let mut planes = CsvRows::deserialize::<Plane>("planes.csv").missing("NA");
    let plane = |tailnum: &str, year, seats| Plane { tailnum: tailnum.into(), year, seats };
    assert_eq!(parse(&mut planes, text).unwrap(), [plane("N1", Some(2004), 55), plane("N2", None, 8)]);

    let error = parse(&mut planes, b"tailnum,year,model,seats\nN1,2004,x,many\n").unwrap_err();
    assert_eq!(error.message(), "planes.csv, line 2, column `seats`: invalid digit found in string");
}

#[test]
fn a_malformed_row_fails_by_file_line_and_column() {
    let faults: [(&[u8], &str); 6] = [
        (b"a,1\nb,x\n", "in.csv, line 3, column `n`: `x` is no i32: invalid digit found in string"),
        (b"\n\na\n", "in.csv, line 4: it has 1 fields, the header has 2"),
        (b"a,1,2\n", "in.csv, line 2: it has 3 fields, the header has 2"),
        (b"\xff,1\n", "in.csv, line 2, column `name`: `\u{fffd}` is not UTF-8"),
        (b"\"a\nb\",1\n", "in.csv, line 2: a quoted field does not end on its line"),
        (b"\"a\"b,1\n", "in.csv, line 2: a quoted field goes on behind its closing quote"),
    ];
    for (text, expected) in faults {
        let error = parse(&mut pairs(), &[b"name,n\n", text].concat()).unwrap_err();
        assert_eq!(error.fault(), Fault::Data);
        assert!(error.message().starts_with(expected), "{error}");
    }
}

#[test]
fn long_values_are_quoted_in_part() {
    let error = parse(&mut pairs(), &[b"name,n\na,".as_slice(), &b"9".repeat(900)].concat()).unwrap_err();
    assert!(error.message().len() < 200 && error.message().contains("999…`"), "{error}");
}

#[test]
fn malformed_rows_are_skipped_and_counted() {
    let context = runtime(0, 1, None);
    let mut rows = pairs().on_error(OnError::Skip);
    FlatMapFunction::<LineBlock>::open(&mut rows, &context).unwrap();
    let all = parse(&mut rows, b"name,n\na,1\nb,x\n\"c\nd,4\n").unwrap();
    assert_eq!(all, [("a".into(), Some(1)), ("d".into(), Some(4))]);
    assert_eq!(context.metrics.read(), [("rows".to_owned(), 2), ("malformed_rows".to_owned(), 2)]);
}

#[test]
fn a_header_without_a_wanted_column_fails_even_when_rows_are_skipped() {
    for text in [b"name,m\na,1\n".as_slice(), b"\na,1\n", b"\"name,n\na,1\n", b"name,\xff\na,1\n"] {
        let error = parse(&mut pairs().on_error(OnError::Skip), text).unwrap_err();
        assert!(error.message().starts_with("in.csv, line 1: "), "{error}");
    }
    let error = parse(&mut pairs(), b"name,m\na,1\n").unwrap_err();
    assert!(error.message().contains("no column `n`; its header is `name,m`"), "{error}");
}

#[test]
fn on_error_is_read_from_arguments() {
    assert_eq!("skip".parse(), Ok(OnError::Skip));
    assert_eq!("fail".parse(), Ok(OnError::Fail));
    assert!("explode".parse::<OnError>().is_err());
}

#[test]
fn too_many_fields_are_refused() {
    let mut fields = Fields::default();
    assert_eq!(fields.split(&b",".repeat(4095), b','), Ok(()));
    assert_eq!(fields.len(), 4096);
    assert_eq!(fields.split(&b",".repeat(4096), b','), Err(FieldsError::TooMany));
    assert!(fields.is_empty());
}

/// Fields with everything that makes a reader stumble, but line breaks.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,6}", "[,\"; a]{0,6}", ".{0,6}"]
        .prop_map(|text| text.replace(['\n', '\r'], " "))
}

proptest! {
    #[test]
    fn rows_do_not_depend_on_where_blocks_are_cut(
        lines in vec(prop_oneof!["[a-z\",]{0,20}", "[a-z]{1,9},[0-9]{1,5}", Just("\"a,\"\"b\",7".to_owned())], 0..60),
        bytes_max in 40usize..300,
    ) {
        let text = ["name,n", &lines.join("\n"), ""].join("\n");
        let (mut whole, mut cut) = (pairs().on_error(OnError::Skip), pairs().on_error(OnError::Skip));
        let expected = parse(&mut whole, text.as_bytes()).unwrap();
        let mut found = Vec::new();
        for block in blocks(text.as_bytes(), bytes_max) {
            found.extend(FlatMapFunction::<LineBlock>::expand(&mut cut, &block).unwrap());
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_written_is_read_back(fields in vec(field(), 1..7), delimiter in prop::sample::select(b",;\t|".to_vec())) {
        let mut buffer = vec![0; 4096];
        let mut row = CsvRow::new(&mut buffer, delimiter);
        for (number, field) in fields.iter().enumerate() {
            // Both ways to write a text.
            if number % 2 == 0 { row.text(field) } else { row.value(field) };
        }
        let (len, count) = row.end().unwrap();
        prop_assert_eq!(count, fields.len());
        let line = buffer[..len].strip_suffix(b"\n").unwrap();
        prop_assert!(!line.is_empty());
        let mut split = Fields::default();
        split.split(line, delimiter).unwrap();
        let found: Vec<_> = (0..split.len()).map(|i| split.get(line, i).to_vec()).collect();
        let expected: Vec<_> = fields.iter().map(|field| field.as_bytes().to_vec()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn another_reader_reads_what_is_written(fields in vec(".{0,9}|[\n\r\",]{0,4}", 1..5)) {
        // A reader takes a byte order mark at the start of a file for one; our files start with a header.
        let fields: Vec<_> = fields.iter().map(|field| field.replace('\u{feff}', "")).collect();
        let mut buffer = vec![0; 4096];
        let mut row = CsvRow::new(&mut buffer, b',');
        fields.iter().for_each(|field| { row.text(field); });
        let (len, _) = row.end().unwrap();
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(&buffer[..len]);
        let records = reader.records().collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(records.len(), 1);
        prop_assert_eq!(records[0].iter().collect::<Vec<_>>(), fields);
    }

    #[test]
    fn a_row_that_does_not_fit_says_so_and_writes_nothing_beyond(fields in vec(field(), 1..6), room in 0usize..60) {
        let write = |out: &mut [u8]| {
            let mut row = CsvRow::new(out, b',');
            for (number, field) in fields.iter().enumerate() {
                if number % 2 == 0 { row.text(field) } else { row.value(field) };
            }
            row.end()
        };
        let mut large = vec![0; 4096];
        let (len, count) = write(&mut large).unwrap();
        let mut small = vec![0; room];
        prop_assert_eq!(write(&mut small), (len <= room).then_some((len, count)));
        if len <= room {
            prop_assert_eq!(&small[..len], &large[..len]);
        }
    }

    #[test]
    fn any_bytes_are_rows_or_errors(line in vec(prop_oneof![Just(b'"'), Just(b','), any::<u8>()], 0..60)) {
        let mut fields = Fields::default();
        if fields.split(&line, b',').is_ok() {
            for index in 0..fields.len() {
                fields.get(&line, index);
            }
        }
    }
}
