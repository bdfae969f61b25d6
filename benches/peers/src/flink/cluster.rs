//! The processes of one run of Flink: a JobManager that runs one job and then ends, and two TaskManagers.
//!
//! Owns them: they end with it, by their ids, and if this process is killed the kernel ends them. Always: ports are free ones of
//! the loopback, found just before.

use std::error::Error;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{Distribution, Netty, Tuning};
use crate::process::Process;

/// First argument that makes this binary become another program that ends with its parent.
pub const ROLE: &str = "program";

/// Packages of Java's that Flink reaches into.
const OPENED: [&str; 9] = [
    "java.base/java.lang",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
];

/// Everything is said on stderr, which goes to the process's log.
const LOGGING: &str = "\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1}: %m%n%xEx
";

/// Flags of the role.
#[derive(Debug, Args)]
pub struct BecomeArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program, pinned as it was started.
///
/// # Errors
/// It cannot.
pub fn become_program(args: &BecomeArgs) -> Result<(), Box<dyn Error>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    println!("ready");
    let Some((program, words)) = args.command.split_first() else { return Err("there is no program".into()) };
    Err(format!("can't become {program}: {}", Command::new(program).args(words).exec()).into())
}

/// A cluster that can run one job.
pub struct Cluster<'a> {
    distribution: &'a Distribution,
    tuning: &'a Tuning,
    cores: [usize; 2],
    dir: tempfile::TempDir,
}

impl<'a> Cluster<'a> {
    /// Writes its configuration.
    ///
    /// # Errors
    /// It cannot be written, or there are no ports.
    pub fn prepare(
        distribution: &'a Distribution,
        tuning: &'a Tuning,
        cores: [usize; 2],
    ) -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [rpc, rest] = [listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()];
        std::fs::write(dir.path().join("config.yaml"), configuration(tuning, [rpc, rest], dir.path()))?;
        std::fs::write(dir.path().join("log4j.properties"), LOGGING)?;
        Ok(Self { distribution, tuning, cores, dir })
    }

    /// Where the job leaves what it found.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a job to its end; all processes have ended after it.
    ///
    /// # Errors
    /// It failed or took too long; the logs are in the message.
    pub fn run(&self, job: &[String], time_out: Duration) -> Result<(), Box<dyn Error>> {
        let mut words =
            self.java(512, "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint");
        words.extend(["--job-classname".to_owned(), "Peer".to_owned()]);
        words.extend_from_slice(job);
        words.extend(["--buffer-timeout".to_owned(), self.tuning.buffer_timeout.to_string()]);
        words.extend(["--dir".to_owned(), self.dir().display().to_string()]);
        let mut jobmanager = Process::start(ROLE, &words, None, &self.dir().join("jobmanager.log"))?;
        let mut workers = Vec::new();
        for (number, core) in self.cores.into_iter().enumerate() {
            let words =
                self.java(self.tuning.heap, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner");
            let log = self.dir().join(format!("taskmanager-{number}.log"));
            workers.push(Process::start(ROLE, &words, (!self.tuning.unpinned).then_some(core), &log)?);
        }
        jobmanager.wait(time_out).map_err(|error| {
            let logs = (0..self.cores.len()).map(|number| {
                std::fs::read_to_string(self.dir().join(format!("taskmanager-{number}.log")))
                    .unwrap_or_default()
            });
            let logs: Vec<String> = logs.collect();
            format!("Flink's JobManager: {error}\nits TaskManagers:\n{}", logs.join("\n"))
        })?;
        Ok(())
    }

    /// The command of one of its processes, up to its configuration.
    fn java(&self, heap: u32, main: &str) -> Vec<String> {
        let dir = self.dir().display();
        let mut words = vec!["java".to_owned()];
        words.extend(OPENED.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        words.extend([
            format!("-Xms{heap}m"),
            format!("-Xmx{heap}m"),
            "-XX:MaxDirectMemorySize=512m".to_owned(),
            self.tuning.gc.flag().to_owned(),
            format!("-Dlog4j.configurationFile={dir}/log4j.properties"),
            "-cp".to_owned(),
            self.distribution.class_path.clone(),
            main.to_owned(),
            "--configDir".to_owned(),
            dir.to_string(),
        ]);
        words
    }
}

fn configuration(tuning: &Tuning, [rpc, rest]: [u16; 2], dir: &Path) -> String {
    let netty = match tuning.netty {
        Netty::Nio => "nio",
        Netty::Epoll => "epoll",
    };
    format!(
        "\
jobmanager.rpc.address: 127.0.0.1
jobmanager.bind-host: 127.0.0.1
jobmanager.rpc.port: {rpc}
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
rest.bind-port: {rest}
restart-strategy.type: none
slot.request.timeout: 60000
pekko.startup-timeout: 60 s
pekko.ask.timeout: 60 s
cluster.registration.error-delay: 200
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.jvm-metaspace.size: 128m
taskmanager.memory.jvm-overhead.min: 128m
taskmanager.memory.jvm-overhead.max: 128m
taskmanager.memory.task.heap.size: {heap}m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.managed.size: 0m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.segment-size: {segment}kb
taskmanager.network.memory.buffers-per-channel: {exclusive}
taskmanager.network.memory.floating-buffers-per-gate: {floating}
taskmanager.network.netty.transport: {netty}
io.tmp.dirs: {dir}
",
        heap = tuning.heap / 2,
        segment = tuning.segment,
        exclusive = tuning.exclusive_buffers,
        floating = tuning.floating_buffers,
        dir = dir.display(),
    )
}
