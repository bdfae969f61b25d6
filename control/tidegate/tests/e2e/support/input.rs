//! Inputs: the flights that come with the repository, and text made from a seed.

use std::path::{Path, PathBuf};

use super::random::Random;

/// All 336,776 flights, compressed.
pub fn flights() -> PathBuf {
    repository().join("examples/data/flights.csv.gz")
}

/// The content of [`flights`], decompressed.
pub fn flights_text() -> String {
    let file = std::fs::File::open(flights()).expect("the data is part of the repository");
    std::io::read_to_string(flate2::read::GzDecoder::new(file)).expect("the data is whole")
}

/// The first `rows` flights, uncompressed, in a new file of `folder`.
pub fn some_flights(folder: &Path, rows: usize) -> PathBuf {
    let text = flights_text();
    let end = text.match_indices('\n').nth(rows).map_or(text.len(), |(at, _)| at + 1);
    let path = folder.join("flights.csv");
    std::fs::write(&path, &text[..end]).expect("the folder of the test can be written");
    path
}

/// A text of `lines` lines with everything that makes words hard: mixed case, digits, punctuation, letters outside
/// ASCII, empty lines, `\r`, words of very different frequency, and no line feed at the end.
pub fn text(folder: &Path, random: &mut Random, lines: usize) -> PathBuf {
    const SEPARATORS: [&str; 9] = [" ", " ", " ", ", ", ". ", " - ", "\t", "'", "\u{e9}\u{4e2d}"];
    let mut text = String::new();
    for line in 0..lines {
        for _ in 0..random.below(9) {
            // Squaring makes small numbers, and so their words, frequent.
            let skewed = random.below(1000) * random.below(1000) / 1000;
            let word = format!("word{skewed}");
            match random.below(4) {
                0 => text.push_str(&word.to_uppercase()),
                1 => text.push_str(&skewed.to_string()),
                2 => text.extend(["Mixed", "Case", &word[3..]]),
                _ => text.push_str(&word),
            }
            text.push_str(random.pick::<&str>(&SEPARATORS));
        }
        if random.below(20) == 0 {
            text.push('\r');
        }
        if line + 1 < lines {
            text.push('\n');
        }
    }
    text.push_str("last");
    let path = folder.join("text.txt");
    std::fs::write(&path, text).expect("the folder of the test can be written");
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate is two folders deep")
        .to_path_buf()
}
