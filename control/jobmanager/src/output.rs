//! Looking at output directories before a job may write there. Blocking.
//!
//! Stateless. Always: nothing is left behind; what is refused is named, with what to do about it.

use crate::limits::OUTPUT_SCAN_MAX;
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tidegate_checkpoint::layout;
use tidegate_graph::{PENDING, is_plain_path};
use tidegate_rpc::JobId;

/// Beginning of the names of committed files.
const PART: &str = "part-";

/// Whether `job` may write to an output directory: its path means the same everywhere, files can be made below it, and
/// nobody else's files lie there.
pub(crate) fn check(root: &str, job: JobId) -> Result<(), String> {
    check_path(root)?;
    check_writable(root)?;
    check_unused(Path::new(root), job)
}

/// The directory without symbolic links, as far as it exists: two names for one directory are equal then.
pub(crate) fn resolved(root: &str) -> String {
    let path = Path::new(root);
    let whole = path.ancestors().find_map(|at| {
        let below = path.strip_prefix(at).expect("invariant: it is an ancestor");
        Some(at.canonicalize().ok()?.join(below))
    });
    // A name that is not text can't be sent to anybody; the one that was given will do.
    let whole = whole.and_then(|whole| whole.into_os_string().into_string().ok());
    whole.map_or_else(|| root.to_owned(), |whole| whole.trim_end_matches('/').to_owned())
}

fn check_path(root: &str) -> Result<(), String> {
    if !root.starts_with('/') {
        let here = std::env::current_dir().map_or_else(|e| e.to_string(), |here| here.display().to_string());
        return Err(format!(
            "output directory {root} is relative, and each process of a cluster has a working directory of its own \
             (this JobManager's is {here}); give an absolute path, or declare the job's flag as a DIR, so that \
             `submit` makes it absolute"
        ));
    }
    if !is_plain_path(root) {
        return Err(format!(
            "output directory {root:?} is no plain path; give one below / without empty, `.` and `..` components"
        ));
    }
    Ok(())
}

/// Whether files can be made below it: it, or the nearest directory above it that exists, is tried.
fn check_writable(root: &str) -> Result<(), String> {
    let refuse = |at: &Path, e: std::io::Error| {
        format!(
            "output directory {root} cannot be written ({}: {e}); choose another or change its owner",
            at.display()
        )
    };
    for at in Path::new(root).ancestors() {
        match fs::metadata(at) {
            Ok(_) => return probe(at).map_err(|e| refuse(at, e)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(refuse(at, e)),
        }
        if fs::symlink_metadata(at).is_ok() {
            let nowhere = std::io::Error::new(ErrorKind::NotFound, "a symbolic link to what is not there");
            return Err(refuse(at, nowhere));
        }
    }
    Ok(())
}

fn probe(at: &Path) -> std::io::Result<()> {
    let probe = at.join(format!(".tidegate-probe-{:032x}", crate::directory::random_u128()?));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    match fs::remove_file(&probe) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()), // Somebody cleans up here.
        removed => removed,
    }
}

/// Committed files of an earlier job would be mixed up with this one's, and an uncommitted one means that somebody else
/// writes here, or died doing so.
fn check_unused(root: &Path, job: JobId) -> Result<(), String> {
    let refuse = |at: &Path, what: &str| {
        format!(
            "output directory {} is in use: {} {what}; choose another directory, or empty this one if nobody needs it",
            root.display(),
            at.display()
        )
    };
    let unreadable = |at: &Path, e: std::io::Error| format!("output directory {}: {e}", at.display());
    let pending = root.join(PENDING);
    for name in list(&pending).map_err(|e| unreadable(&pending, e))? {
        let owner = name.file_name().and_then(|name| layout::owner(name.to_str()?));
        if owner.is_none_or(|owner| owner.job != job.0) {
            return Err(refuse(&name, "belongs to another job"));
        }
    }
    let mut dirs = VecDeque::from([root.to_path_buf()]);
    let mut seen = 0;
    while let Some(dir) = dirs.pop_front() {
        for path in list(&dir).map_err(|e| unreadable(&dir, e))? {
            let named =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PART.as_bytes()));
            if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                if path != pending {
                    dirs.push_back(path);
                }
            } else if named {
                return Err(refuse(&path, "was written by an earlier job"));
            }
            seen += 1;
            if seen == OUTPUT_SCAN_MAX {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What lies in a directory; nothing if there is none.
fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let entries = entries.take(OUTPUT_SCAN_MAX);
    entries.map(|entry| entry.map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_graph::PendingFolder;

    const JOB: JobId = JobId(7);

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn an_output_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        check(text(&dir.path().join("not/there/yet")), JOB).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        let file = dir.path().join("in-the-way");
        fs::write(&file, "").unwrap();
        let dangling = dir.path().join("dangling-in-the-way");
        std::os::unix::fs::symlink("/nonexistent/folder", &dangling).unwrap();
        for path in [file.join("output"), file, dangling.join("output"), dangling] {
            let error = check(text(&path), JOB).unwrap_err();
            assert!(error.contains("in-the-way"), "{error}");
        }
    }

    #[test]
    fn a_path_that_does_not_mean_the_same_everywhere_is_refused() {
        let here = std::env::current_dir().unwrap();
        let error = check("relative/path", JOB).unwrap_err();
        assert!(error.contains("relative/path is relative") && error.contains(text(&here)), "{error}");
        for root in ["/", "//out", "/a/../out", "/out/.", "/out/", "/o\0ut"] {
            let error = check(root, JOB).unwrap_err();
            assert!(error.contains("no plain path"), "{root}: {error}");
        }
    }

    #[test]
    fn a_directory_in_use_is_refused_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("out");
        let pending = |job| root.join(PENDING).join(PendingFolder { job, epoch: 1, attempt: 1 }.to_string());
        fs::create_dir_all(pending(JOB.0)).unwrap();
        fs::write(root.join("readme"), "").unwrap();
        fs::create_dir(root.join("part-of-it")).unwrap();
        check(text(&root), JOB).unwrap();
        fs::create_dir(pending(8)).unwrap();
        let error = check(text(&root), JOB).unwrap_err();
        assert!(error.contains("00000008-e1-a1 belongs to another job"), "{error}");
        fs::remove_dir(pending(8)).unwrap();
        let part = root.join("routes/part-0-1.csv");
        fs::create_dir(root.join("routes")).unwrap();
        fs::write(&part, "").unwrap();
        let error = check(text(&root), JOB).unwrap_err();
        assert!(error.contains(text(&part)) && error.contains("choose another"), "{error}");
    }

    #[test]
    fn many_submissions_at_once_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..50).try_for_each(|_| check(text(dir.path()), JOB))))
                .collect();
            for one in tries {
                one.join().unwrap().unwrap();
            }
        });
    }

    #[test]
    fn two_names_of_one_directory_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for (name, expected) in [(&link, &real), (&link.join("a/b"), &real.join("a/b")), (&real, &real)] {
            assert_eq!(resolved(text(name)), text(expected));
        }
    }
}
