//! Bytes as a configuration file in each of its syntaxes, as a size, as weights, as arguments.
//!
//! Oracle: entries come in the order of the file; a size has one printed form; what our reader of JSON takes, the one of
//! `serde_json` takes too, with as many values (a differential test: ours refuses more, never less).

use serde_json::Value;
use tidegate_memory::MemorySize;
use tidegate_memory::plan::{Profile, Settings, Syntax, Weights, entries};

/// Any bytes; those that are no text are none of these.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (path, syntax) in [("a.yaml", Syntax::Yaml), ("a.json", Syntax::Json), ("a.toml", Syntax::Toml)] {
        assert_eq!(Syntax::of(path), syntax);
        let lines = text.lines().count().max(1) as u32;
        match entries(text, syntax) {
            Ok(read) => {
                assert!(read.windows(2).all(|pair| pair[0].line <= pair[1].line));
                assert!(read.iter().all(|entry| (1..=lines).contains(&entry.line)));
                if syntax == Syntax::Json {
                    against_serde(text, read.len());
                }
            }
            Err(error) => assert!((1..=lines + 1).contains(&error.line), "{error}"),
        }
        let mut settings = Settings::new();
        if settings.add_file(path, text, syntax).is_ok() {
            let _ = settings.refuse_unknown();
            settings.listing(Profile::Native);
        }
    }
    if let Ok(size) = text.parse::<MemorySize>() {
        assert_eq!(size.to_string().parse(), Ok(size), "a size has one printed form");
        size.human();
    }
    let _ = Weights::read(text);
    let mut settings = Settings::new();
    let _ = settings.add_define(text);
    let _ = settings.add_environment(text.split('\n').filter_map(|line| line.split_once('=')));
}

fn against_serde(text: &str, values: usize) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        // A key that occurs twice is one entry there.
        Ok(Value::Object(map)) => assert!(leaves(&Value::Object(map)) <= values),
        other => panic!("taken here, but {other:?}"),
    }
}

/// Values that are neither maps nor lists; a list is one.
fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(leaves).sum(),
        _ => 1,
    }
}
