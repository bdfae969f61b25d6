//! Other systems at the same work: the part of the page that `benches/peers` writes, if its file is given. Owns no state.

use std::error::Error;
use std::path::Path;

use serde::Deserialize;

/// What stands in front of the tables.
const INTRODUCTION: &str = "\
The same records, keys and sums, between the same two cores and over loopback, by the program in `benches/peers`. In a round each
system runs once, one after the other, and ratios are Tidegate's by the other's of the same round. Processor time is that of the
two processes that move the records, of Tidegate with its warm-up, of the others without. What was tried to make each fast is in
`benches/peers/README.md`.
";
/// What stands there when there is no file.
const HOW: &str = "\
Not in this report. The program in `benches/peers` runs them beside Tidegate, and leaves a file for this one:

```
cargo build --release -p tidegate-benches
cargo run --release --manifest-path benches/peers/Cargo.toml -- compare --out target/peers.json
target/release/tidegate-benches report --peers target/peers.json
```
";

/// What is read of the file of `compare --out`.
#[derive(Debug, Deserialize)]
struct Peers {
    pairs: u32,
    seconds: u32,
    page: String,
}

/// The part of the page, with the file or without.
///
/// # Errors
/// The file cannot be read, or is another one.
pub fn page(file: Option<&Path>) -> Result<String, Box<dyn Error>> {
    let Some(path) = file else { return Ok(format!("## Other systems\n\n{HOW}\n")) };
    let wrong = |error: &dyn std::fmt::Display| {
        format!("{} is not what `compare --out` of benches/peers leaves: {error}", path.display())
    };
    let text = std::fs::read(path).map_err(|error| wrong(&error))?;
    let Peers { pairs, seconds, page } = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    Ok(format!(
        "## Other systems\n\n{INTRODUCTION}Medians of {pairs} rounds of about {seconds} s.\n\n{page}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        let left = serde_json::json!({ "pairs": 3, "seconds": 5, "moved": [], "page": "### Pairs\n" });
        std::fs::write(&path, left.to_string()).unwrap();
        let page = page(Some(&path)).unwrap();
        assert!(page.contains("3 rounds of about 5 s.\n\n### Pairs"), "{page}");
    }

    #[test]
    fn without_a_file_the_page_says_how_to_make_it() {
        assert!(page(None).unwrap().contains("compare --out"));
        let error = page(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("compare --out"), "{error}");
    }
}
