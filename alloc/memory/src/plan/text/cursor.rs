//! A place in a text, with its line, and the scalars that all syntaxes share.
//!
//! Owner of the state: whoever reads. Always: the place is at a character, at or before the end.

use super::SyntaxError;

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    pub(super) line: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, line: u32) -> Self {
        Self { rest: text, line }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        self.line += u32::from(character == '\n');
        Some(character)
    }

    /// Steps over `expected` if it comes next.
    pub(super) fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    /// Steps over what `skip` names, and returns it.
    pub(super) fn take_while(&mut self, skip: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|character| !skip(character)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.line += u32::try_from(taken.matches('\n').count()).unwrap_or(u32::MAX);
        self.rest = rest;
        taken
    }

    pub(super) fn refuse<T>(&self, expected: &str) -> Result<T, SyntaxError> {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some('\n') => "the end of the line".to_owned(),
            Some(character) => format!("{character:?}"),
        };
        Err(SyntaxError::new(self.line, format!("expected {expected}, found {found}")))
    }

    /// A text between double quotes, with the escapes of JSON (which YAML and TOML have too). The place is at the quote.
    pub(super) fn double_quoted(&mut self) -> Result<String, SyntaxError> {
        let line = self.line;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped(line)?),
                Some(character) if character >= ' ' => text.push(character),
                // A tab is a control character for JSON; nobody is helped by refusing it.
                Some('\t') => text.push('\t'),
                _ => return Err(SyntaxError::new(line, "a text in double quotes is not closed on its line")),
            }
        }
    }

    /// A text between single quotes, taken as it is; `doubled` tells whether two quotes stand for one.
    pub(super) fn single_quoted(&mut self, doubled: bool) -> Result<String, SyntaxError> {
        let line = self.line;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') if doubled && self.take('\'') => text.push('\''),
                Some('\'') => return Ok(text),
                Some(character) if character != '\n' => text.push(character),
                _ => return Err(SyntaxError::new(line, "a text in single quotes is not closed on its line")),
            }
        }
    }

    fn escaped(&mut self, line: u32) -> Result<char, SyntaxError> {
        let unknown =
            || SyntaxError::new(line, "an escape is none of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
        Ok(match self.next().ok_or_else(unknown)? {
            character @ ('"' | '\\' | '/') => character,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut code = 0;
                for _ in 0..4 {
                    let digit = self.next().and_then(|digit| digit.to_digit(16)).ok_or_else(unknown)?;
                    code = code * 16 + digit;
                }
                // Halves of a pair stand for characters that no configuration needs.
                char::from_u32(code).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        })
    }
}
