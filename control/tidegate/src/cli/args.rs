//! The command line, as types. What it means is in the neighbouring files.
//!
//! Always true: everything after `--` belongs to the job and is passed on untouched.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_memory::plan::sizing::Load;
use tidegate_memory::plan::{Process, Profile};

use super::exit::EXIT_CODES;
use super::units;

const EXAMPLES: &str = "\
Examples:
  A job in this process, nothing else running:
    tidegate run wordcount --parallelism 2 -- --input book.txt --output counts

  A cluster on this machine (three terminals):
    tidegate jobmanager --rpc 127.0.0.1:6123 --rest 127.0.0.1:8081 --dir /tmp/tidegate
    tidegate taskmanager --jobmanager 127.0.0.1:6123 --slots 2
    tidegate submit delays --jobmanager http://127.0.0.1:8081 --parallelism 2 --wait -- \\
        --input flights.csv.gz --output delays

  See what runs, stop it:
    tidegate list   --jobmanager http://127.0.0.1:8081
    tidegate status --jobmanager http://127.0.0.1:8081 JOB-ID
    tidegate status --jobmanager http://127.0.0.1:8081 --memory
    tidegate latency --jobmanager http://127.0.0.1:8081 JOB-ID --svg latency.svg
    tidegate cancel --jobmanager http://127.0.0.1:8081 JOB-ID

  How a process would divide its memory, and why; what can be configured:
    tidegate plan --process taskmanager -D taskmanager.memory.process.size=4g --explain
    tidegate config taskmanager.memory.network

  Whether this host gives a process what it needs, and what to change:
    tidegate doctor --slots 4

  See it all work on bundled data: tidegate demo
  Which jobs are in this binary, with their flags: tidegate jobs

Logs go to stderr; TIDEGATE_LOG=debug (or tidegate_taskmanager=trace, ...) shows more.";

/// Streaming jobs in Rust: exactly-once state, records read where the network put them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The roles and the commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be the JobManager: jobs, slots, checkpoints, REST
    Jobmanager(JobManagerArgs),
    /// Be a TaskManager: slots that run the tasks of jobs
    Taskmanager(TaskManagerArgs),
    /// Hand a job of this binary to a JobManager
    Submit(SubmitArgs),
    /// Run a job in this process, with a JobManager and a TaskManager of its own
    Run(RunArgs),
    /// List the jobs a JobManager knows
    List(ClientArgs),
    /// Show one job: state, tasks, checkpoints, last failure; or the memory of every process
    Status(StatusArgs),
    /// Show where the time between the tasks of a job goes: percentiles and their curve
    Latency(LatencyArgs),
    /// Cancel a job
    Cancel(JobArgs),
    /// Run `delays` on bundled data over one JobManager and two TaskManager processes on this machine
    Demo(DemoArgs),
    /// List the jobs in this binary with their flags
    Jobs(JobsArgs),
    /// Show how a process would divide its memory, and why; or why it cannot
    Plan(PlanArgs),
    /// Check whether this host can run a process by its plan, and say what to change
    Doctor(DoctorArgs),
    /// List every key of the configuration with its type, default, meaning, and present value
    Config(ConfigArgs),
}

/// Flags of `jobmanager`.
#[derive(Debug, Args)]
pub struct JobManagerArgs {
    /// Where TaskManagers connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6123")]
    pub rpc: SocketAddr,
    /// Where REST answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub rest: SocketAddr,
    /// Where jobs, checkpoints and leaderships are kept; a restarted JobManager finds its jobs here
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Its configuration, memory above all
    #[command(flatten)]
    pub sources: SourcesArgs,
    /// Process whose end is also this one's; for the demo.
    #[arg(long, hide = true)]
    pub parent: Option<u32>,
}

/// Flags of `taskmanager`.
#[derive(Debug, Args)]
pub struct TaskManagerArgs {
    /// The JobManager's RPC address
    #[arg(long, value_name = "RPC-ADDR", default_value = "127.0.0.1:6123", value_parser = units::host_port)]
    pub jobmanager: String,
    /// Slots: threads that each run one subtask of every operator; 1 unless configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::limits::SLOTS_MAX)))]
    pub slots: Option<u32>,
    /// Where other TaskManagers reach this one; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub data: SocketAddr,
    /// Its configuration, memory above all
    #[command(flatten)]
    pub sources: SourcesArgs,
    /// Buffers of the data plane
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Pin slot N to the N-th core this process may use
    #[arg(long)]
    pub pin: bool,
    /// Its latency log
    #[command(flatten)]
    pub latency_log: LatencyLogArgs,
    /// How long a slot may take to answer a cancel before this process ends, if not as long as it may; for tests.
    #[arg(long, hide = true, value_name = "TIME", value_parser = units::time)]
    pub cancel_max: Option<Duration>,
    /// Process whose end is also this one's; for the demo.
    #[arg(long, hide = true)]
    pub parent: Option<u32>,
}

/// How the data plane holds and moves segments.
#[derive(Debug, Clone, Args)]
pub struct NetworkArgs {
    /// Network segments of each slot, instead of the plan's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    pub segments: Option<u32>,
    /// Size of a segment: a power of two from 4k to 1m; 32k unless configured
    #[arg(long, value_name = "SIZE", value_parser = units::segment_size)]
    pub segment_size: Option<u32>,
    /// Largest record, up to 16m; above a segment it takes a region of that size for each edge of a slot
    #[arg(long, value_name = "SIZE", value_parser = units::record_size)]
    pub max_record_size: Option<u32>,
    /// What drives the network
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// How payloads are sent; with epoll always as plain
    #[arg(long, value_enum, default_value_t = Send::Auto)]
    pub send: Send,
    /// How long a partly filled segment waits for more before it leaves for another TaskManager, such as 100ms, at most
    /// 10s; without it, it leaves as soon as its connection is idle
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub flush: Option<Duration>,
    /// Whether segments are registered with the kernel
    #[arg(long, value_enum, default_value_t = Register::Auto)]
    pub register: Register,
    /// Microseconds for which an idle slot looks for work before it sleeps, 0 is never; saves wake-ups, costs that much
    /// processor time; without it, up to 50 where that has paid lately
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub spin: Option<u32>,
    /// What is between TaskManagers of one host and user
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    pub transport: Transport,
}

/// `--transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Shared memory where both can and want to, else TCP
    Auto,
    /// TCP, as with all others
    Tcp,
    /// Shared memory, or refuse to start; still TCP with a peer that cannot
    Shm,
}

/// `--driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring, or epoll where the kernel or the container forbids it
    Auto,
    /// io_uring, or refuse to start
    #[value(name = "io_uring")]
    IoUring,
    /// epoll
    Epoll,
}

/// `--send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Send {
    /// The fastest mode that measures well on the path
    Auto,
    /// Gathered writes from registered segments
    Fixed,
    /// sendmsg
    Plain,
    /// Zero copy
    Zc,
}

/// `--register`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Register {
    /// Register if locked memory allows it
    Auto,
    /// Refuse to start unregistered
    Required,
    /// Never register
    Never,
}

/// What `submit` and `run` say about a job.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// Name of a job in this binary (`tidegate jobs` lists them)
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Subtasks of every operator that does not say otherwise
    #[arg(long, short, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=i64::from(tidegate_graph::MAX_PARALLELISM_MAX)))]
    pub parallelism: Option<u32>,
    /// Time between checkpoints, such as 500ms or 1min; without it a job takes one, at its end
    #[arg(long, value_name = "TIME", value_parser = units::interval)]
    pub checkpoint_interval: Option<Duration>,
    /// Flags of the job
    #[arg(last = true, value_name = "JOB-FLAGS")]
    pub flags: Vec<String>,
}

/// Flags of `submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The JobManager and how the answer is printed
    #[command(flatten)]
    pub client: ClientArgs,
    /// Wait for the end; exits 0 only when the job is FINISHED. A JobManager that restarts is waited for
    #[arg(long)]
    pub wait: bool,
    /// The job
    #[command(flatten)]
    pub launch: LaunchArgs,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The job
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// Configuration of its TaskManager, memory above all
    #[command(flatten)]
    pub sources: SourcesArgs,
    /// Buffers of the data plane
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Its latency log
    #[command(flatten)]
    pub latency_log: LatencyLogArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where latencies are logged.
#[derive(Debug, Clone, Args)]
pub struct LatencyLogArgs {
    /// Write the latencies of every edge here, as an interval log that the tools of HdrHistogram read
    #[arg(long, value_name = "FILE")]
    pub latency_log: Option<PathBuf>,
    /// Length of its intervals, from 1s to 1h
    #[arg(long, value_name = "TIME", value_parser = units::time, default_value = "1s", requires = "latency_log")]
    pub latency_log_interval: Duration,
}

impl LatencyLogArgs {
    /// As a TaskManager takes it.
    pub(crate) fn wanted(&self) -> Option<(PathBuf, Duration)> {
        self.latency_log.clone().map(|path| (path, self.latency_log_interval))
    }
}

/// Flags of commands that talk to a JobManager.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The JobManager's REST address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub jobmanager: String,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The JobManager and how the answer is printed
    #[command(flatten)]
    pub client: ClientArgs,
    /// The job, as `submit` and `list` print it; needed only when there are several
    #[arg(value_name = "JOB-ID")]
    pub job: Option<String>,
    /// Show what every process holds of its memory plan instead, and who holds segments
    #[arg(long, conflicts_with = "job")]
    pub memory: bool,
}

/// Flags of `latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// The JobManager and how the answer is printed
    #[command(flatten)]
    pub client: ClientArgs,
    /// The job, as `submit` and `list` print it; needed only when there are several
    #[arg(value_name = "JOB-ID")]
    pub job: Option<String>,
    /// Draw the curve into this file, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Flags of `cancel`.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The JobManager and how the answer is printed
    #[command(flatten)]
    pub client: ClientArgs,
    /// The job, as `submit` and `list` print it; needed only when there are several
    #[arg(value_name = "JOB-ID")]
    pub job: Option<String>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the output and the logs of the processes go; a new temporary directory without it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What drives the network of its TaskManagers
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// How they send payloads; with epoll always as plain
    #[arg(long, value_enum, default_value_t = Send::Auto)]
    pub send: Send,
    /// What is between them
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    pub transport: Transport,
    /// Input lines per second, to watch it work
    #[arg(long, value_name = "R")]
    pub rate: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl DemoArgs {
    /// What its TaskManagers are told of it.
    pub(crate) fn engine(&self) -> [String; 3] {
        fn word(value: &impl ValueEnum) -> String {
            let value = value.to_possible_value().expect("invariant: no value of these flags is skipped");
            value.get_name().to_owned()
        }
        let Self { driver, send, transport, .. } = self;
        [
            format!("--driver={}", word(driver)),
            format!("--send={}", word(send)),
            format!("--transport={}", word(transport)),
        ]
    }
}

/// Flags of `jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Where the configuration of `plan`, `config` and `doctor` comes from, and what model it is for.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// By which model: native, or flink for Flink 2.2's to the byte
    #[arg(long, value_name = "PROFILE", default_value_t)]
    pub profile: Profile,
    /// The configuration
    #[command(flatten)]
    pub sources: SourcesArgs,
}

/// Where a configuration comes from, besides the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct SourcesArgs {
    /// A configuration file: YAML, or JSON or TOML by the end of its name
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A value; wins over the environment, which wins over the file
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<String>,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Whose memory: taskmanager or jobmanager
    #[arg(long, value_name = "PROCESS")]
    pub process: Process,
    /// The configuration
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Slots of a TaskManager; wins over taskmanager.numberOfTaskSlots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// Name the rule that made each number and where its inputs came from
    #[arg(long)]
    pub explain: bool,
    /// Propose a tighter plan from the peaks of a run: those of the processes at a JobManager's REST address (http://...),
    /// under their plan, or JSON with bytes by component, under this one
    #[arg(long, value_name = "URL|PEAKS.json")]
    pub fit: Option<String>,
    /// Size a JobManager for a load: jobs, subtasks (of each job), stateful-operators, key-groups, retained-checkpoints,
    /// taskmanagers; as in jobs=100,subtasks=40
    #[arg(long, value_name = "NAME=N,...", conflicts_with = "fit")]
    pub load: Option<Load>,
    /// Print JSON for programs, a refusal too
    #[arg(long)]
    pub json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// For which process: taskmanager or jobmanager
    #[arg(long, value_name = "PROCESS", default_value_t = Process::TaskManager)]
    pub process: Process,
    /// The configuration
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Slots of a TaskManager; wins over taskmanager.numberOfTaskSlots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// What is to drive the network
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// Whether segments are to be registered with the kernel
    #[arg(long, value_enum, default_value_t = Register::Auto)]
    pub register: Register,
    /// What is to be between TaskManagers of one host and user
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    pub transport: Transport,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Flags of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Only keys that contain this
    #[arg(value_name = "PART")]
    pub part: Option<String>,
    /// The configuration
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
    /// Print the reference of all keys as Markdown, without values
    #[arg(long, conflicts_with_all = ["json", "part", "config", "define"])]
    pub markdown: bool,
}
