//! Where Flink is, and the job compiled for it. Fetched once by pip, compiled once by the JDK; both stay for the next run.
//!
//! Owns nothing in memory. Always: the jar is that of the source in this binary.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is fetched unless told otherwise.
pub const RELEASE: &str = "2.2.1";
/// The job.
const SOURCE: &str = include_str!("../../flink/Peer.java");

/// A Flink to run.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Flink's release, as its library says.
    pub version: String,
    /// Java's release.
    pub java: String,
    /// Libraries of Flink and the job's jar, as Java wants them.
    pub class_path: String,
}

impl Distribution {
    /// Finds it, and makes what is missing.
    ///
    /// # Errors
    /// There is no JDK or no pip, or one of them failed.
    pub fn find(home: Option<&Path>, release: &str) -> Result<Self, Box<dyn Error>> {
        let home = match home {
            Some(home) => home.to_owned(),
            None => beside_the_build()?,
        };
        let java = output(Command::new("java").arg("-version"), "java, of a JDK 17 or later")?;
        let java = java.lines().next().unwrap_or("unknown").to_owned();
        let lib = home.join("pyflink").join("lib");
        if !lib.is_dir() {
            eprintln!("fetching apache-flink-libraries {release} into {}", home.display());
            let package = format!("apache-flink-libraries=={release}");
            let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"];
            output(Command::new("python3").args(pip).arg(&home).arg(package), "python3 with pip")?;
        }
        let all: Vec<PathBuf> =
            std::fs::read_dir(&lib)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        let name =
            |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let mut jars: Vec<PathBuf> = all
            .into_iter()
            .filter(|path| name(path).starts_with("flink-dist-") || name(path).starts_with("log4j-"))
            .filter(|path| name(path).ends_with(".jar"))
            .collect();
        jars.sort();
        let version =
            jars.iter().map(|path| name(path)).find_map(|name| version(&name)).ok_or_else(|| {
                format!("{} has no flink-dist; empty {} to fetch it again", lib.display(), home.display())
            })?;
        jars.push(jar(&home, &join(&jars)?)?);
        Ok(Self { version, java, class_path: join(&jars)? })
    }
}

/// The folder `flink` in the one that this program was built into, as its profile's folder is.
fn beside_the_build() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("this program is in no folder: say --flink-home")?;
    Ok(target.join("flink"))
}

/// `2.2.1` of `flink-dist-2.2.1.jar`.
fn version(name: &str) -> Option<String> {
    Some(name.strip_prefix("flink-dist-")?.strip_suffix(".jar")?.to_owned())
}

fn join(jars: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let joined = std::env::join_paths(jars)?;
    joined.into_string().map_err(|path| format!("{} is no text", path.display()).into())
}

/// The job's jar; compiled unless there is one of this very source.
fn jar(home: &Path, class_path: &str) -> Result<PathBuf, Box<dyn Error>> {
    let (jar, source) = (home.join("peer.jar"), home.join("Peer.java"));
    if jar.is_file() && std::fs::read_to_string(&source).is_ok_and(|text| text == SOURCE) {
        return Ok(jar);
    }
    eprintln!("compiling the job");
    let classes = tempfile::tempdir()?;
    let fresh = classes.path().join("Peer.java");
    std::fs::write(&fresh, SOURCE)?;
    let out = classes.path().join("out");
    let javac = Command::new("javac")
        .arg("-nowarn")
        .arg("-d")
        .arg(&out)
        .args(["-cp", class_path])
        .arg(&fresh)
        .output();
    finished(javac, "javac, of a JDK 17 or later")?;
    finished(
        Command::new("jar").arg("cf").arg(&jar).arg("-C").arg(&out).arg(".").output(),
        "jar, of a JDK 17 or later",
    )?;
    // The source goes last: a jar without it is made again.
    std::fs::write(source, SOURCE)?;
    Ok(jar)
}

/// What a command printed, on either of its outputs.
fn output(command: &mut Command, what: &str) -> Result<String, Box<dyn Error>> {
    finished(command.output(), what)
}

fn finished(output: std::io::Result<std::process::Output>, what: &str) -> Result<String, Box<dyn Error>> {
    let output = output.map_err(|error| format!("Flink needs {what}: {error}"))?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("Flink needs {what}, which failed:\n{text}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_name_of_the_jar() {
        assert_eq!(version("flink-dist-2.2.1.jar").as_deref(), Some("2.2.1"));
        assert_eq!(version("flink-csv-2.2.1.jar"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = finished(Command::new("/no/such/program").output(), "a program").unwrap_err().to_string();
        assert!(error.contains("Flink needs a program"), "{error}");
        let error = finished(Command::new("false").output(), "luck").unwrap_err().to_string();
        assert!(error.contains("luck, which failed"), "{error}");
    }
}
