//! What a reader of an output folder may rely on, checked while a job writes it.
//!
//! Only files named `part-*` outside of folders that begin with `_` or `.` are committed. Such a file is whole from
//! the moment it can be seen, never changes, never goes away; all rows of all of them together are a part of what
//! the oracle says, each row at most as often as there.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The rows that must come out: per folder below the output (`""` for the output itself) a header, and how often
/// each row comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected(pub BTreeMap<String, Table>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub header: String,
    pub rows: HashMap<String, u64>,
}

impl Table {
    pub fn new(header: &str) -> Self {
        Self { header: header.to_owned(), rows: HashMap::new() }
    }

    pub fn add(&mut self, row: String) {
        *self.rows.entry(row).or_insert(0) += 1;
    }

    pub fn len(&self) -> u64 {
        self.rows.values().sum()
    }
}

/// What was seen of an output so far.
pub struct Reader {
    output: PathBuf,
    expected: Expected,
    /// Committed files with their content, which is never to change.
    seen: BTreeMap<PathBuf, String>,
    /// How often each row has come.
    rows: BTreeMap<String, HashMap<String, u64>>,
}

impl Reader {
    pub fn new(output: &Path, expected: Expected) -> Self {
        Self { output: output.to_path_buf(), expected, seen: BTreeMap::new(), rows: BTreeMap::new() }
    }

    /// Reads what is new; an error names the file and what is wrong with it.
    pub fn look(&mut self) -> Result<(), String> {
        let files = committed(&self.output);
        if let Some(gone) = self.seen.keys().find(|path| !files.contains(path)) {
            return Err(format!("{} was committed and is gone", gone.display()));
        }
        for path in files {
            if !self.seen.contains_key(&path) {
                let content = read(&path)?;
                self.take(&path, &content)?;
                self.seen.insert(path, content);
            }
        }
        Ok(())
    }

    /// How many rows have been seen.
    fn row_count(&self) -> u64 {
        self.rows.values().flat_map(HashMap::values).sum()
    }

    fn take(&mut self, path: &Path, content: &str) -> Result<(), String> {
        let name = path.display();
        let folder = path.parent().and_then(|folder| folder.strip_prefix(&self.output).ok());
        let folder = folder.map_or(String::new(), |folder| folder.to_string_lossy().into_owned());
        let table =
            self.expected.0.get(&folder).ok_or(format!("{name}: no output belongs into `{folder}`"))?;
        let rows = content
            .strip_suffix('\n')
            .ok_or(format!("{name}: is not whole, it does not end with a line feed: {content:?}"))?;
        let mut rows = rows.split('\n');
        let header = rows.next().unwrap_or_default();
        if header != table.header {
            return Err(format!("{name}: begins with {header:?}, not with {:?}", table.header));
        }
        let counts = self.rows.entry(folder).or_default();
        for row in rows {
            let count = counts.entry(row.to_owned()).or_insert(0);
            *count += 1;
            let expected = table.rows.get(row).copied().unwrap_or(0);
            if *count > expected {
                return Err(format!("{name}: row {row:?} came {count} times, expected {expected}"));
            }
        }
        Ok(())
    }

    /// After the end of the job: every row is there, every file is as it was, nothing is pending.
    pub fn finish(mut self) -> Result<Summary, String> {
        self.look()?;
        for (path, content) in &self.seen {
            if read(path)? != *content {
                return Err(format!("{} changed after it was committed", path.display()));
            }
        }
        for (folder, table) in &self.expected.0 {
            let found: u64 = self.rows.get(folder).map_or(0, |rows| rows.values().sum());
            if found != table.len() {
                let missing = table.rows.iter().find(|(row, count)| {
                    self.rows.get(folder).and_then(|rows| rows.get(*row)) != Some(*count)
                });
                return Err(format!(
                    "`{folder}` has {found} rows of {}, such as {missing:?} is missing",
                    table.len()
                ));
            }
        }
        let pending = pending(&self.output);
        if !pending.is_empty() {
            return Err(format!("left pending: {pending:?}"));
        }
        Ok(Summary { files: self.seen.len(), rows: self.expected.0.values().map(Table::len).sum() })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub files: usize,
    pub rows: u64,
}

/// Checks the output of a job that has ended.
pub fn check(output: &Path, expected: Expected) -> Summary {
    Reader::new(output, expected).finish().unwrap_or_else(|complaint| panic!("{complaint}"))
}

/// A thread that reads an output all the while it is written.
pub struct Watch {
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Reader, String>>>,
}

impl Watch {
    pub fn start(output: &Path, expected: Expected) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader::new(output, expected);
        let rows = Arc::new(AtomicU64::new(0));
        let (told, tell) = (Arc::clone(&stop), Arc::clone(&rows));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                reader.look()?;
                tell.store(reader.row_count(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(15));
            }
            Ok(reader)
        });
        Self { stop, rows, thread: Some(thread) }
    }

    /// How many rows have been seen by now.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Panics when the reader has found something wrong by now.
    pub fn check(&mut self) {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join();
        }
    }

    /// After the end of the job: the last look.
    pub fn finish(mut self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        self.join().finish().unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    fn join(&mut self) -> Reader {
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("the reader does not panic").unwrap_or_else(|complaint| panic!("{complaint}"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The committed files of an output.
pub fn committed(output: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(output, &mut files, &|name| !name.starts_with(['_', '.']));
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")));
    files.sort();
    files
}

/// Every file of an output that is not a committed one.
pub fn pending(output: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(output, &mut files, &|_| true);
    let committed = committed(output);
    files.retain(|path| !committed.contains(path));
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>, enter: &dyn Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !enter(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), files, enter);
        } else {
            files.push(entry.path());
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The reader is what the other tests stand on, so it is tested itself: each thing it must find is there once.
mod tests {
    use super::*;

    fn expected() -> Expected {
        let mut table = Table::new("word,count");
        ["a,1", "b,2", "b,2"].into_iter().for_each(|row| table.add(row.to_owned()));
        Expected([(String::new(), table)].into())
    }

    fn complaint(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("it can be made");
            std::fs::write(path, content).expect("it can be written");
        }
        Reader::new(folder.path(), expected()).finish().map_or_else(|complaint| complaint, |_| "fine".into())
    }

    const ALL: &str = "word,count\na,1\nb,2\nb,2\n";

    #[test]
    fn the_reader_finds_what_it_must() {
        let one = "part-0-0.csv";
        assert_eq!(complaint(&[(one, ALL)]), "fine");
        assert_eq!(
            complaint(&[(one, "word,count\na,1\n"), ("part-1-0.csv", "word,count\nb,2\nb,2\n")]),
            "fine"
        );
        assert!(complaint(&[(one, "word,count\na,1\nb,")]).contains("not whole"));
        assert!(complaint(&[(one, "a,1\n")]).contains("begins with"));
        assert!(complaint(&[(one, ALL), ("part-1-0.csv", "word,count\na,1\n")]).contains("came 2 times"));
        assert!(complaint(&[(one, "word,count\nc,1\n")]).contains("expected 0"));
        assert!(complaint(&[(one, "word,count\na,1\nb,2\n")]).contains("2 rows of 3"));
        assert!(complaint(&[(one, ALL), ("_pending/e1-a1/part-1-0.csv", "")]).contains("left pending"));
        assert!(complaint(&[("other/part-0-0.csv", ALL)]).contains("no output belongs"));
    }

    #[test]
    fn the_reader_sees_files_go_and_change() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("part-0-0.csv");
        std::fs::write(&path, ALL).expect("it can be written");
        let mut reader = Reader::new(folder.path(), expected());
        reader.look().expect("all is well");
        std::fs::remove_file(&path).expect("it can be removed");
        assert!(reader.look().unwrap_err().contains("is gone"));
        std::fs::write(&path, "word,count\nb,2\nb,2\na,1\n").expect("it can be written");
        assert!(reader.finish().unwrap_err().contains("changed"));
    }
}
