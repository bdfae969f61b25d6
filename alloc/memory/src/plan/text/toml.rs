//! Tables and `key = value` lines, with inline tables. Numbers, texts and truth values are values; arrays of tables, dates
//! and texts over several lines are refused.
//!
//! Always: a table is opened once; recursion ends at `FILE_DEPTH_MAX`.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::{Entry, FILE_DEPTH_MAX, Found, SyntaxError, join, too_deep};

pub(super) fn read(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut cursor = Cursor::new(text, 1);
    let mut found = Found::default();
    let mut table = String::new();
    let mut opened = BTreeSet::new();
    loop {
        cursor.take_while(|character| matches!(character, ' ' | '\t' | '\r' | '\n'));
        match cursor.peek() {
            None => return Ok(found.0),
            Some('#') => drop(cursor.take_while(|character| character != '\n')),
            Some('[') => {
                let line = cursor.line;
                cursor.next();
                table = key(&mut cursor)?;
                if !cursor.take(']') {
                    return cursor.refuse("`]`");
                }
                if !opened.insert(table.clone()) {
                    return Err(SyntaxError::new(line, format!("table `{table}` is opened twice")));
                }
                end_of_line(&mut cursor)?;
            }
            Some(_) => {
                pair(&mut cursor, &table, 0, &mut found)?;
                end_of_line(&mut cursor)?;
            }
        }
    }
}

fn pair(cursor: &mut Cursor<'_>, path: &str, depth: usize, found: &mut Found) -> Result<(), SyntaxError> {
    let line = cursor.line;
    let key = join(path, &key(cursor)?);
    if !cursor.take('=') {
        return cursor.refuse("`=` after the key");
    }
    blanks(cursor);
    match cursor.peek() {
        Some('{') => inline(cursor, &key, depth + 1, found),
        Some('"') if cursor.starts_with("\"\"\"") => cursor.refuse("a text on one line"),
        Some('"') => found.push(key, cursor.double_quoted()?, line),
        Some('\'') if cursor.starts_with("'''") => cursor.refuse("a text on one line"),
        Some('\'') => found.push(key, cursor.single_quoted(false)?, line),
        _ => {
            let here = cursor.clone();
            let word = cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'));
            let digits = word.replace('_', "");
            let starts = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-');
            let number = digits.starts_with(starts) && digits.parse::<f64>().is_ok();
            if number || word == "true" || word == "false" {
                found.push(key, digits, line)
            } else {
                here.refuse("a number, true, false or a text in quotes (sizes need quotes: \"4g\")")
            }
        }
    }
}

fn inline(cursor: &mut Cursor<'_>, path: &str, depth: usize, found: &mut Found) -> Result<(), SyntaxError> {
    if depth >= FILE_DEPTH_MAX {
        return Err(too_deep(cursor.line));
    }
    cursor.next();
    blanks(cursor);
    if cursor.take('}') {
        return Ok(());
    }
    loop {
        pair(cursor, path, depth, found)?;
        blanks(cursor);
        if cursor.take('}') {
            return Ok(());
        }
        if !cursor.take(',') {
            return cursor.refuse("`,` or `}`");
        }
    }
}

/// A dotted key, with the blanks around it.
fn key(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let mut whole = String::new();
    loop {
        blanks(cursor);
        let part = match cursor.peek() {
            Some('"') => cursor.double_quoted()?,
            Some('\'') => cursor.single_quoted(false)?,
            _ => cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).to_owned(),
        };
        if part.is_empty() {
            return cursor.refuse("a key");
        }
        whole = join(&whole, &part);
        blanks(cursor);
        if !cursor.take('.') {
            return Ok(whole);
        }
    }
}

fn blanks(cursor: &mut Cursor<'_>) {
    cursor.take_while(|character| matches!(character, ' ' | '\t'));
}

fn end_of_line(cursor: &mut Cursor<'_>) -> Result<(), SyntaxError> {
    cursor.take_while(|character| matches!(character, ' ' | '\t' | '\r'));
    match cursor.peek() {
        None | Some('\n' | '#') => Ok(()),
        _ => cursor.refuse("the end of the line"),
    }
}
