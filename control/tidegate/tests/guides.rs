//! The guides in `deploy/guides` say what the binary says: every command in them is run, and what it prints is what the page
//! shows. `GUIDES=write cargo test -p tidegate --test guides` writes what it prints into the pages.
//!
//! In a page, a block `console` has commands after `$ `, each followed by its output (both streams) and `[exit N]` where
//! that is not 0; a block `yaml NAME`, `json NAME`, `toml NAME` or `sh NAME` is a file that later commands find, and those of
//! the index are found by the commands of every page; what is between `<!-- COMMAND -->` and `<!-- end -->` is the output of
//! the command as Markdown.
//!
//! Always: a number of two or more digits in the text of a page is in one of its blocks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate::stream::error::Fault;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/guides")
}

fn pages() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder()).expect("there are guides");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("text"))).collect()
}

/// What a shell in `folder` prints, without blanks at the ends of lines.
fn run(folder: &Path, command: &str) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().expect("it is in a folder");
    // With all that it started: a role that does not come up must not hold up the test for ever.
    let mut shell = Command::new("timeout");
    shell.args(["120", "/bin/sh", "-c", &format!("exec 2>&1\n{command}")]).current_dir(folder).env_clear();
    shell.env("PATH", format!("{}:/usr/bin:/bin", binaries.display())).stdin(Stdio::null());
    let output = shell.output().expect("there is a shell");
    let mut text = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !output.status.success() {
        text.push_str(&format!("[exit {}]\n", output.status.code().expect("it was not killed")));
    }
    text
}

/// The page with every output as it is now. Its commands find the files of the index as well.
fn rendered(page: &str, index: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for block in index.split("```sh ").skip(1) {
        let (name, text) = block.split_once('\n').expect("a name is on a line");
        let text = text.split("```").next().expect("it ends");
        fs::write(folder.path().join(name), text).expect("written");
    }
    let mut lines = page.lines();
    let mut text = String::new();
    let mut push = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    while let Some(line) = lines.next() {
        push(line);
        if let Some(info) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match info.split_once(' ') {
                _ if info == "console" => {
                    for command in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
                        push(&format!("$ {command}"));
                        push(run(folder.path(), command).trim_end());
                    }
                }
                file => {
                    if let Some((_, name)) = file {
                        fs::write(folder.path().join(name), block.join("\n") + "\n").expect("written");
                    }
                    block.iter().for_each(|line| push(line));
                }
            }
            push("```");
        } else if let Some(command) = line.strip_prefix("<!-- tidegate ") {
            let command = command.strip_suffix(" -->").expect("a comment ends on its line");
            lines.by_ref().take_while(|line| *line != "<!-- end -->").for_each(drop);
            push("");
            push(run(folder.path(), &format!("tidegate {command}")).trim_end());
            push("");
            push("<!-- end -->");
        }
    }
    text
}

#[test]
fn every_command_prints_what_the_page_shows() {
    let index = fs::read_to_string(folder().join("README.md")).expect("an index");
    for (path, page) in pages() {
        let now = rendered(&page, &index);
        if std::env::var_os("GUIDES").is_some_and(|what| what == "write") {
            // At once, as the other tests read it meanwhile.
            let new = path.with_extension("new");
            fs::write(&new, now).and_then(|()| fs::rename(&new, &path)).expect("written");
            continue;
        }
        for (at, (shown, printed)) in page.lines().zip(now.lines()).enumerate() {
            assert_eq!(shown, printed, "{}:{} (GUIDES=write renews it)", path.display(), at + 1);
        }
        assert_eq!(page, now, "{} (GUIDES=write renews it)", path.display());
    }
}

#[test]
fn every_number_comes_from_a_command() {
    for (path, page) in pages() {
        let (mut prose, mut blocks, mut in_block) = (Vec::new(), String::new(), false);
        for line in page.lines() {
            let fence = line.starts_with("```");
            in_block ^= fence || line.starts_with("<!-- ");
            if in_block || fence {
                blocks.push_str(line);
                blocks.push('\n');
            } else {
                // A version is a name.
                prose.push(line.replace("Flink 2.2", "Flink"));
            }
        }
        let words = |text: &str| {
            let words = text.split(|c: char| !c.is_alphanumeric() && !".,".contains(c));
            words.map(|word| word.trim_matches(['.', ',']).to_owned()).collect::<Vec<_>>()
        };
        let known = words(&blocks);
        for word in words(&prose.join("\n")) {
            let number = word.len() > 1 && word.starts_with(|c: char| c.is_ascii_digit());
            assert!(!number || known.contains(&word), "{} has {word}, from no command", path.display());
        }
    }
}

#[test]
fn the_index_names_every_page_and_troubleshooting_every_error() {
    let pages = pages();
    let index = &pages.iter().find(|(path, _)| path.ends_with("README.md")).expect("an index").1;
    for (path, _) in &pages {
        let name = path.file_name().expect("a file").to_string_lossy();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name} is not in README.md");
    }
    let troubles = &pages.iter().find(|(path, _)| path.ends_with("troubleshooting.md")).expect("a page").1;
    for code in 1..=13 {
        assert!(troubles.contains(&format!("\n### E{code}: ")), "E{code}");
    }
    let faults = [
        Fault::User,
        Fault::Panic,
        Fault::FanOut,
        Fault::Output,
        Fault::Data,
        Fault::Source,
        Fault::Input,
        Fault::Sink,
        Fault::Files,
        Fault::State,
        Fault::TooLarge,
        Fault::Memory,
        Fault::Heap,
        Fault::Setup,
        Fault::Exchange,
        Fault::Runtime,
    ];
    for fault in faults {
        assert!(troubles.contains(&format!("`{}`", fault.party())), "{fault:?}");
    }
}
