//! `SPEC.md` and the code hold each other: every clause is cited by a test, and every citation names a clause.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The numbers behind each `W-` in a text.
fn citations(text: &str) -> BTreeSet<u32> {
    let behind = |(at, _): (usize, &str)| {
        let digits: String = text[at + 2..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    text.match_indices("W-").filter_map(behind).collect()
}

/// The clauses that `SPEC.md` opens, in order: `**W-12 Title.** …`.
fn clauses() -> Vec<u32> {
    let opened = |line: &str| line.strip_prefix("**W-")?.split(' ').next()?.parse().ok();
    include_str!("../SPEC.md").lines().filter_map(opened).collect()
}

/// Citations by file, of all Rust sources below a folder of this crate.
fn cited_below(folder: &str) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

#[test]
fn clauses_are_numbered_from_one_without_gaps() {
    let clauses = clauses();
    assert!(clauses.len() > 40);
    assert!(clauses.iter().copied().eq(1..=clauses.len() as u32), "{clauses:?}");
}

/// A doc comment on a test names the clauses that it tests: `/// W-4, W-5: …` right above `#[test]`.
#[test]
fn every_clause_is_cited_by_a_test() {
    let mut cited = BTreeSet::new();
    let mut texts = cited_below("src");
    texts.extend(cited_below("tests"));
    for text in texts.values() {
        let mut comment = String::new();
        for line in text.lines().map(str::trim) {
            match line {
                _ if line.starts_with("///") => comment.push_str(line),
                "#[test]" => cited.extend(citations(&comment)),
                _ if line.starts_with("#[") => {}
                _ => comment.clear(),
            }
        }
    }
    let missing: Vec<u32> = clauses().into_iter().filter(|clause| !cited.contains(clause)).collect();
    assert_eq!(missing, [], "clauses of SPEC.md that no test cites");
}

#[test]
fn every_citation_names_a_clause() {
    let clauses: BTreeSet<u32> = clauses().into_iter().collect();
    let mut texts = cited_below("src");
    texts.extend(cited_below("tests"));
    texts.insert("SPEC.md".into(), include_str!("../SPEC.md").into());
    for (path, text) in texts {
        let unknown: Vec<_> = citations(&text).difference(&clauses).copied().collect();
        assert_eq!(unknown, [], "{path} cites clauses that do not exist");
    }
}
