//! One JSON object. Keys may be joined by `.` or, as .NET writes them, by `:`.
//!
//! Always: recursion ends at `FILE_DEPTH_MAX`.

use super::cursor::Cursor;
use super::{Entry, FILE_DEPTH_MAX, Found, SyntaxError, join, too_deep};

pub(super) fn read(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut cursor = Cursor::new(text, 1);
    let mut found = Found::default();
    spaces(&mut cursor);
    if cursor.peek() != Some('{') {
        return cursor.refuse("an object, `{`");
    }
    object(&mut cursor, "", 0, &mut found)?;
    spaces(&mut cursor);
    if cursor.peek().is_some() { cursor.refuse("nothing after the object") } else { Ok(found.0) }
}

fn object(cursor: &mut Cursor<'_>, path: &str, depth: usize, found: &mut Found) -> Result<(), SyntaxError> {
    if depth >= FILE_DEPTH_MAX {
        return Err(too_deep(cursor.line));
    }
    cursor.next();
    spaces(cursor);
    if cursor.take('}') {
        return Ok(());
    }
    loop {
        spaces(cursor);
        let line = cursor.line;
        if cursor.peek() != Some('"') {
            return cursor.refuse("a key in double quotes");
        }
        let key = join(path, &cursor.double_quoted()?.replace(':', "."));
        spaces(cursor);
        if !cursor.take(':') {
            return cursor.refuse("`:` after the key");
        }
        spaces(cursor);
        if cursor.peek() == Some('{') {
            object(cursor, &key, depth + 1, found)?;
        } else {
            let value = value(cursor, depth + 1)?;
            found.push(key, value, line)?;
        }
        spaces(cursor);
        if cursor.take('}') {
            return Ok(());
        }
        if !cursor.take(',') {
            return cursor.refuse("`,` or `}`");
        }
    }
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<String, SyntaxError> {
    match cursor.peek() {
        Some('"') => cursor.double_quoted(),
        Some('[') => list(cursor, depth),
        _ => {
            let word =
                cursor.clone().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
            // Not every text of a number: no infinity, no leading zero, no bare point.
            let number = serde_json::from_str::<serde_json::Number>(word).is_ok();
            if !(number || word == "true" || word == "false") {
                return cursor.refuse("a text, a number, true, false or an object");
            }
            cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
            Ok(word.to_owned())
        }
    }
}

/// A list of scalars, as one text.
fn list(cursor: &mut Cursor<'_>, depth: usize) -> Result<String, SyntaxError> {
    if depth >= FILE_DEPTH_MAX {
        return Err(too_deep(cursor.line));
    }
    cursor.next();
    let mut items = Vec::new();
    spaces(cursor);
    while !cursor.take(']') {
        if !items.is_empty() && !cursor.take(',') {
            return cursor.refuse("`,` or `]`");
        }
        spaces(cursor);
        items.push(value(cursor, depth + 1)?);
        spaces(cursor);
    }
    Ok(format!("[{}]", items.join(", ")))
}

fn spaces(cursor: &mut Cursor<'_>) {
    cursor.take_while(|character| matches!(character, ' ' | '\t' | '\r' | '\n'));
}
