//! Configuration files as a list of keys and values: the maps of YAML, JSON and TOML, flattened to dotted keys. Text in,
//! entries with their line out; no file is opened here.
//!
//! Read is what configurations use: nested maps and scalars. What a full YAML or TOML reader would take besides (anchors,
//! tags, block scalars, several documents, arrays of tables) is refused with its line rather than half understood.
//!
//! Always: entries are in the order of the file, a line is that of the key; recursion ends at a named depth. Whether a key
//! occurs twice is not looked at here.

mod cursor;
mod json;
mod toml;
mod yaml;

use crate::limits::{FILE_BYTES_MAX, FILE_DEPTH_MAX, SETTINGS_MAX};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `key: value` lines and nested maps.
    Yaml,
    /// One object, as in `appsettings.json`; comments and a trailing comma are errors.
    Json,
    /// Tables and `key = value` lines.
    Toml,
}

impl Syntax {
    /// By the end of a file's name; YAML unless it says otherwise.
    pub fn of(path: &str) -> Self {
        match path.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
            Some("json") => Self::Json,
            Some("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Dotted.
    pub key: String,
    /// The scalar as it was written, without quotes.
    pub value: String,
    /// From 1.
    pub line: u32,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {reason}")]
pub struct SyntaxError {
    /// From 1.
    pub line: u32,
    /// What was found and what to write instead.
    pub reason: String,
}

impl SyntaxError {
    fn new(line: u32, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// Reads a file's text.
///
/// # Errors
/// The first thing that cannot be understood.
pub fn entries(text: &str, syntax: Syntax) -> Result<Vec<Entry>, SyntaxError> {
    if text.len() > FILE_BYTES_MAX {
        let reason = format!("the file has {} bytes, expected at most {FILE_BYTES_MAX}", text.len());
        return Err(SyntaxError::new(1, reason));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match syntax {
        Syntax::Yaml => yaml::read(text),
        Syntax::Json => json::read(text),
        Syntax::Toml => toml::read(text),
    }
}

/// Entries as they are found.
#[derive(Default)]
struct Found(Vec<Entry>);

impl Found {
    fn push(&mut self, key: String, value: String, line: u32) -> Result<(), SyntaxError> {
        if self.0.len() >= SETTINGS_MAX {
            return Err(SyntaxError::new(
                line,
                format!("more than {SETTINGS_MAX} values; is that the right file?"),
            ));
        }
        self.0.push(Entry { key, value, line });
        Ok(())
    }
}

fn too_deep(line: u32) -> SyntaxError {
    SyntaxError::new(line, format!("maps are nested more than {FILE_DEPTH_MAX} deep"))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, syntax: Syntax) -> Vec<(String, String, u32)> {
        let entries = entries(text, syntax).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        entries.into_iter().map(|entry| (entry.key, entry.value, entry.line)).collect()
    }

    fn refused(text: &str, syntax: Syntax) -> u32 {
        entries(text, syntax).expect_err(text).line
    }

    fn expected(list: &[(&str, &str, u32)]) -> Vec<(String, String, u32)> {
        list.iter().map(|(key, value, line)| ((*key).to_owned(), (*value).to_owned(), *line)).collect()
    }

    #[test]
    fn yaml_flat_and_nested() {
        let text = "---\n# the plan\ntaskmanager.memory.process.size: 4 gb # whole\n\ntaskmanager:\n  memory:\n    \
                    network: {min: 64m, max: \"1g\"}\n    managed.fraction: 0.3\n  numberOfTaskSlots: '2'\n\
                    \"jobmanager.memory.process.size\":   1600m\nurl: a:b#c\n";
        let wanted = [
            ("taskmanager.memory.process.size", "4 gb", 3),
            ("taskmanager.memory.network.min", "64m", 7),
            ("taskmanager.memory.network.max", "1g", 7),
            ("taskmanager.memory.managed.fraction", "0.3", 8),
            ("taskmanager.numberOfTaskSlots", "2", 9),
            ("jobmanager.memory.process.size", "1600m", 10),
            ("url", "a:b#c", 11),
        ];
        assert_eq!(read(text, Syntax::Yaml), expected(&wanted));
        assert_eq!(
            read("a: 'it''s'\nb: \"x\\ty\"\r\n", Syntax::Yaml),
            expected(&[("a", "it's", 1), ("b", "x\ty", 2)])
        );
        assert_eq!(read("", Syntax::Yaml), []);
        assert_eq!(read("list: [a, b]\n", Syntax::Yaml), expected(&[("list", "[a, b]", 1)]));
        assert_eq!(
            read("a:\n  - x\n  - y\nb: 1", Syntax::Yaml),
            expected(&[("a", "[x, y]", 1), ("b", "1", 4)])
        );
    }

    #[test]
    fn yaml_refused_with_its_line() {
        assert_eq!(refused("a: 1\n\tb: 2\n", Syntax::Yaml), 2, "tab");
        assert_eq!(refused("a: 1\n  b: 2\n", Syntax::Yaml), 2, "a map inside a scalar");
        assert_eq!(refused("a:\n    b: 1\n  c: 2\n", Syntax::Yaml), 3, "indentation of no level");
        assert_eq!(refused("a 1\n", Syntax::Yaml), 1, "no colon");
        assert_eq!(refused("a: |\n  x\n", Syntax::Yaml), 1, "block scalar");
        assert_eq!(refused("a: &x 1\n", Syntax::Yaml), 1, "anchor");
        assert_eq!(refused("a: *x\n", Syntax::Yaml), 1, "reference");
        assert_eq!(refused("a: 1\n---\nb: 2\n", Syntax::Yaml), 2, "second document");
        assert_eq!(refused("a: \"x\n", Syntax::Yaml), 1, "open quote");
        assert_eq!(refused("a: x: y\n", Syntax::Yaml), 1, "a map in a line");
        assert_eq!(refused("a:\nb: 1\n", Syntax::Yaml), 1, "no value");
        assert_eq!(refused("b: 1\na:\n", Syntax::Yaml), 2, "no value at the end");
        assert_eq!(refused("a: {b: 1\n", Syntax::Yaml), 1, "open brace");
        let deep: String = (0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(refused(&deep, Syntax::Yaml), 33);
    }

    #[test]
    fn json_objects() {
        let text = "{\n \"taskmanager\": {\"memory\": {\n  \"process.size\": \"4g\"}},\n \"taskmanager:numberOfTaskSlots\": 2,\n \
                    \"f\": 0.25, \"b\": true, \"u\": \"\\u00e9\\n\", \"l\": [1, \"x\"]}\n";
        let wanted = [
            ("taskmanager.memory.process.size", "4g", 3),
            ("taskmanager.numberOfTaskSlots", "2", 4),
            ("f", "0.25", 5),
            ("b", "true", 5),
            ("u", "é\n", 5),
            ("l", "[1, x]", 5),
        ];
        assert_eq!(read(text, Syntax::Json), expected(&wanted));
        for (text, line) in [
            ("", 1),
            ("[]", 1),
            ("{\"a\": 1,\n}", 2),
            ("{\"a\": nul}", 1),
            ("{\"a\": 1}\n{}", 2),
            ("{\"a\":\n 1 \"b\": 2}", 2),
            ("{\"a\": null}", 1),
            ("{\"a\": \"\\x\"}", 1),
            ("{\"a\": \"\n\"}", 1),
            ("{\"a\": -inf}", 1),
            ("{\"a\": -nan}", 1),
            ("{\"a\": 01}", 1),
            ("{\"a\": 1.}", 1),
            ("{\"a\": [1, .5]}", 1),
        ] {
            assert_eq!(refused(text, Syntax::Json), line, "{text}");
        }
        let deep = "{\"a\":".repeat(40);
        assert_eq!(refused(&deep, Syntax::Json), 1);
        assert_eq!(refused(&format!("{{\"a\":{}", "[".repeat(5000)), Syntax::Json), 1);
    }

    #[test]
    fn toml_tables() {
        let text = "# plan\njobmanager.memory.process.size = \"1600m\"\n[taskmanager]\nnumberOfTaskSlots = 2 # two\n\
                    [taskmanager.memory]\n\"process.size\" = '4g'\nnetwork = { fraction = 0.2, min = \"64m\" }\n";
        let wanted = [
            ("jobmanager.memory.process.size", "1600m", 2),
            ("taskmanager.numberOfTaskSlots", "2", 4),
            ("taskmanager.memory.process.size", "4g", 6),
            ("taskmanager.memory.network.fraction", "0.2", 7),
            ("taskmanager.memory.network.min", "64m", 7),
        ];
        assert_eq!(read(text, Syntax::Toml), expected(&wanted));
        for (text, line) in [
            ("a = 4g", 1),
            ("a", 1),
            ("\n[a", 2),
            ("[[a]]", 1),
            ("a = \"x", 1),
            ("a = \"\"\"x\"\"\"", 1),
            ("a = 1 2", 1),
            ("= 1", 1),
            ("[a]\n[a]", 2),
        ] {
            assert_eq!(refused(text, Syntax::Toml), line, "{text}");
        }
    }

    #[test]
    fn syntax_by_name() {
        assert_eq!(Syntax::of("/etc/appsettings.JSON"), Syntax::Json);
        assert_eq!(Syntax::of("tidegate.toml"), Syntax::Toml);
        assert_eq!(Syntax::of("config.yaml"), Syntax::Yaml);
        assert_eq!(Syntax::of("conf"), Syntax::Yaml);
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in "[-a-c:#=.,'\"{}\\[\\]\\\\|&* \t\n\r0-9é]{0,80}") {
            for syntax in [Syntax::Yaml, Syntax::Json, Syntax::Toml] {
                if let Ok(entries) = entries(&text, syntax) {
                    prop_assert!(entries.windows(2).all(|pair| pair[0].line <= pair[1].line));
                }
            }
        }
    }
}
