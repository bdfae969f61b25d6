//! The YAML that configurations are written in: nested maps by indentation, `{…}` in a line, scalars plain or quoted, lists
//! of scalars (as one text), comments.
//!
//! Always: each open map is indented deeper than the one around it; open maps ≤ `FILE_DEPTH_MAX`.

use super::cursor::Cursor;
use super::{Entry, FILE_DEPTH_MAX, Found, SyntaxError, join, too_deep};

/// A map that lines are being added to.
struct Open {
    indent: usize,
    path: String,
}

/// A key without a value on its line: a map or a list follows, indented.
struct Pending {
    indent: usize,
    key: String,
    line: u32,
    items: Vec<String>,
}

pub(super) fn read(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut reader = Reader { open: Vec::new(), pending: None, found: Found::default(), begun: false };
    for (number, line) in text.lines().enumerate() {
        reader.line(line, u32::try_from(number + 1).unwrap_or(u32::MAX))?;
    }
    reader.settle()?;
    Ok(reader.found.0)
}

struct Reader {
    open: Vec<Open>,
    pending: Option<Pending>,
    found: Found,
    /// Whether anything but comments has been met.
    begun: bool,
}

impl Reader {
    fn line(&mut self, text: &str, line: u32) -> Result<(), SyntaxError> {
        let content = text.trim_start_matches(' ');
        let indent = text.len() - content.len();
        if content.trim_end().is_empty() || content.starts_with('#') {
            return Ok(());
        }
        if content.starts_with('\t') {
            return Err(SyntaxError::new(line, "a tab in the indentation; use spaces"));
        }
        if indent == 0 && (content.starts_with("---") || content.starts_with("...")) {
            if content.trim_end() == "---" && !self.begun {
                self.begun = true;
                return Ok(());
            }
            return Err(SyntaxError::new(line, "a second document; a configuration is one"));
        }
        if content.starts_with('%') {
            return Err(SyntaxError::new(line, "a directive; a configuration has none"));
        }
        self.begun = true;
        if content == "-" || content.starts_with("- ") {
            return self.item(content, indent, line);
        }
        self.place(indent, line)?;
        self.pair(content, indent, line)
    }

    /// Opens the map that the line is the first of, or closes those that it is outside of.
    fn place(&mut self, indent: usize, line: u32) -> Result<(), SyntaxError> {
        let deeper =
            self.pending.as_ref().is_some_and(|pending| indent > pending.indent && pending.items.is_empty());
        if deeper {
            if self.open.len() >= FILE_DEPTH_MAX {
                return Err(too_deep(line));
            }
            let path = self.pending.take().map(|pending| pending.key).unwrap_or_default();
            self.open.push(Open { indent, path });
            return Ok(());
        }
        self.settle()?;
        if self.open.is_empty() {
            self.open.push(Open { indent, path: String::new() });
        }
        while self.open.len() > 1 && self.open.last().is_some_and(|open| open.indent > indent) {
            self.open.pop();
        }
        match self.open.last() {
            Some(open) if open.indent == indent => Ok(()),
            _ => Err(SyntaxError::new(line, "the indentation is that of no map around it")),
        }
    }

    fn pair(&mut self, content: &str, indent: usize, line: u32) -> Result<(), SyntaxError> {
        let path = self.open.last().map(|open| open.path.as_str()).unwrap_or_default();
        let mut cursor = Cursor::new(content, line);
        let key = join(path, &key(&mut cursor)?);
        blanks(&mut cursor);
        match cursor.peek() {
            None | Some('#') => {
                self.pending = Some(Pending { indent, key, line, items: Vec::new() });
                return Ok(());
            }
            Some('{') => map(&mut cursor, &key, self.open.len(), &mut self.found)?,
            _ => {
                let value = scalar(&mut cursor, false)?;
                self.found.push(key, value, line)?;
            }
        }
        end(&mut cursor)
    }

    fn item(&mut self, content: &str, indent: usize, line: u32) -> Result<(), SyntaxError> {
        let Some(pending) = self.pending.as_mut().filter(|pending| indent >= pending.indent) else {
            return Err(SyntaxError::new(line, "an item of a list, but no list was begun"));
        };
        let mut cursor = Cursor::new(content.strip_prefix('-').unwrap_or(content), line);
        blanks(&mut cursor);
        let value = scalar(&mut cursor, false)?;
        end(&mut cursor)?;
        pending.items.push(value);
        Ok(())
    }

    /// The key that waits for more gets no more.
    fn settle(&mut self) -> Result<(), SyntaxError> {
        match self.pending.take() {
            None => Ok(()),
            Some(pending) if pending.items.is_empty() => Err(SyntaxError::new(
                pending.line,
                format!("`{}` has no value; write one, or remove it", pending.key),
            )),
            Some(pending) => {
                self.found.push(pending.key, format!("[{}]", pending.items.join(", ")), pending.line)
            }
        }
    }
}

/// `{a: 1, b: {c: 2}}` on one line.
fn map(cursor: &mut Cursor<'_>, path: &str, depth: usize, found: &mut Found) -> Result<(), SyntaxError> {
    if depth >= FILE_DEPTH_MAX {
        return Err(too_deep(cursor.line));
    }
    let line = cursor.line;
    cursor.next();
    blanks(cursor);
    while !cursor.take('}') {
        let key = join(path, &key(cursor)?);
        blanks(cursor);
        if cursor.peek() == Some('{') {
            map(cursor, &key, depth + 1, found)?;
        } else {
            let value = scalar(cursor, true)?;
            found.push(key, value, line)?;
        }
        blanks(cursor);
        if !cursor.take(',') && cursor.peek() != Some('}') {
            return cursor.refuse("`,` or `}`");
        }
        blanks(cursor);
    }
    Ok(())
}

/// A key and the colon behind it.
fn key(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let key = match cursor.peek() {
        Some('"') => cursor.double_quoted()?,
        Some('\'') => cursor.single_quoted(true)?,
        _ => {
            refuse_indicator(cursor)?;
            let mut key = String::new();
            while let Some(character) = cursor.peek() {
                // A colon ends a key only with a blank behind it.
                if character == ':' && matches!(second(cursor), None | Some(' ' | '\t' | '\r' | '\n')) {
                    break;
                }
                if matches!(character, '{' | '}' | '[' | ']' | ',' | '\n') {
                    break;
                }
                key.push(character);
                cursor.next();
            }
            key.trim_end().to_owned()
        }
    };
    blanks(cursor);
    if key.is_empty() || !cursor.take(':') {
        return cursor.refuse("`key: value`");
    }
    Ok(key)
}

/// A scalar or a list in brackets, as text. Inside a map on one line, `,` and `}` end it.
fn scalar(cursor: &mut Cursor<'_>, inside: bool) -> Result<String, SyntaxError> {
    match cursor.peek() {
        Some('"') => return cursor.double_quoted(),
        Some('\'') => return cursor.single_quoted(true),
        Some('[') => {
            let text = cursor.take_while(|character| !matches!(character, ']' | '\n'));
            return if cursor.take(']') { Ok(format!("{text}]")) } else { cursor.refuse("`]`") };
        }
        _ => refuse_indicator(cursor)?,
    }
    let mut text = String::new();
    while let Some(character) = cursor.peek() {
        let blank_before = text.ends_with([' ', '\t']);
        if character == '#' && (blank_before || text.is_empty()) {
            cursor.take_while(|character| character != '\n');
            break;
        }
        if inside && matches!(character, ',' | '}' | '{' | '[' | ']') {
            break;
        }
        if character == ':' && matches!(second(cursor), None | Some(' ' | '\t')) {
            return cursor.refuse("a value; one with `: ` in it needs quotes");
        }
        text.push(character);
        cursor.next();
    }
    let text = text.trim_end().to_owned();
    if text.is_empty() || text == "~" || text == "null" {
        return Err(SyntaxError::new(cursor.line, "a key has no value; write one, or remove it"));
    }
    Ok(text)
}

/// What begins something that is YAML but not read here.
fn refuse_indicator(cursor: &Cursor<'_>) -> Result<(), SyntaxError> {
    let what = match cursor.peek() {
        Some('|' | '>') => "a text over several lines",
        Some('&' | '*') => "an anchor",
        Some('!') => "a tag",
        Some('?') => "a complex key",
        Some('@' | '`' | '%') => "a reserved character",
        _ => return Ok(()),
    };
    Err(SyntaxError::new(
        cursor.line,
        format!("{what}, which configurations do not use; write the value in quotes"),
    ))
}

fn second(cursor: &Cursor<'_>) -> Option<char> {
    let mut ahead = cursor.clone();
    ahead.next();
    ahead.peek()
}

fn blanks(cursor: &mut Cursor<'_>) {
    cursor.take_while(|character| matches!(character, ' ' | '\t' | '\r'));
}

/// Nothing but a comment may follow.
fn end(cursor: &mut Cursor<'_>) -> Result<(), SyntaxError> {
    let blank = cursor.take_while(|character| matches!(character, ' ' | '\t' | '\r'));
    match cursor.peek() {
        None => Ok(()),
        Some('#') if !blank.is_empty() => Ok(()),
        _ => cursor.refuse("the end of the line"),
    }
}
