//! `doctor`: is this a host that a process can run on by its plan, and if not, what to change? The same checks are made
//! when a role starts.
//!
//! | file | what |
//! |---|---|
//! | `readings.rs` | what the host says |
//! | `memory.rs`, `host.rs` | the verdict on each of it |
//! | `check.rs` | a verdict, for people and programs |
//!
//! Owner of the state: nobody; a host is read, judged and forgotten. Nothing is allocated for the process meanwhile but a
//! small ring, which is dropped at once.
//!
//! Always: verdicts depend on the readings, the plan and the wishes alone; exit code 0 means that none is an error.

mod check;
mod host;
mod memory;
mod readings;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::json;
use tidegate_memory::plan::{Plan, Request, resolve};
use tidegate_ring::Registration;
use tidegate_taskmanager::{Driver, Transport};

use self::check::{Check, Level};
use self::readings::{Asked, Readings};
use super::args::{self, DoctorArgs};
use super::config::{Host, Refused, finish, value};
use super::exit::{Exit, Failure};
use super::out;
use super::plan::settings_for;

/// What a TaskManager is told of its network that decides what it needs of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// What is to drive it.
    pub driver: Driver,
    /// Whether segments have to be registered.
    pub registration: Registration,
    /// What is to be between the TaskManagers of one host.
    pub transport: Transport,
}

/// What a process needs.
struct Needs<'a> {
    plan: &'a Plan,
    wishes: Wishes,
}

/// Checks the host when a role starts, before it allocates anything: gives the warnings, a line each, and refuses on errors.
///
/// What becomes of io_uring and registration is left to the network, which says so when it has happened.
///
/// # Errors
/// [`Exit::Refused`], with the arithmetic where memory is short.
pub fn at_start(plan: &Plan, wishes: Wishes) -> Result<Vec<String>, Failure> {
    let host = Readings::below(Path::new("/"), Asked::kernel());
    let checks = judge(&host, &Needs { plan, wishes });
    match refusal(&checks) {
        Some(failure) => Err(failure),
        None => Ok(to_be_said(&checks).map(Check::line).collect()),
    }
}

/// The warnings that nobody else says.
fn to_be_said(checks: &[Check]) -> impl Iterator<Item = &Check> {
    let ladder = [host::IO_URING, host::SHARED_MEMORY, memory::LOCKED];
    checks.iter().filter(move |check| check.level == Level::Warning && !ladder.contains(&check.name))
}

/// Why a role does not start.
fn refusal(checks: &[Check]) -> Option<Failure> {
    let mut errors = checks.iter().filter(|check| check.level == Level::Error);
    let first = errors.next()?;
    let mut failure = Failure::new(Exit::Refused, first.line());
    failure.details.extend(first.arithmetic());
    for check in errors {
        failure.details.push(check.line());
        failure.details.extend(check.arithmetic());
    }
    Some(failure)
}

/// Every check, the ones that can refuse first.
fn judge(host: &Readings, needs: &Needs<'_>) -> Vec<Check> {
    let process = needs.plan.process();
    let (slots, links) = match needs.plan {
        Plan::TaskManager(plan) => (plan.shape.slots, plan.shape.links),
        Plan::JobManager(_) => (0, 0),
    };
    let mut checks = vec![memory::cgroup(host, needs), memory::machine(host, needs)];
    if let Plan::TaskManager(plan) = needs.plan {
        checks.push(host::kernel(host));
        checks.push(host::io_uring(host, needs));
        checks.push(host::shared_memory(host, needs));
        checks.push(memory::locked(host, needs, slots, links, plan.network.bytes));
        checks.push(memory::huge_pages(host, needs, plan.network.bytes));
        checks.push(host::cores(host, slots));
        checks.push(host::cgroup_cpu(host, slots));
        checks.push(host::congestion(host));
    }
    checks.push(host::threads(host, process, slots));
    checks.push(host::descriptors(host, process, slots, links));
    checks.push(memory::overcommit(host, needs));
    checks.push(memory::swap(host));
    checks.push(host::clock(host));
    checks
}

/// `doctor`.
pub(super) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let plan = match plan(args, &Host::probe()) {
        Ok(plan) => plan,
        Err(refused) => return finish(args.json, Err(refused)),
    };
    let host = Readings::below(Path::new("/"), Asked::kernel());
    let wishes = Wishes {
        driver: args.driver.into(),
        registration: args.register.into(),
        transport: args.transport.into(),
    };
    let checks = judge(&host, &Needs { plan: &plan, wishes });
    out::answer(answer(args.json, &plan, &checks).trim_end())?;
    let errors = checks.iter().filter(|check| check.level == Level::Error);
    let errors: Vec<&str> = errors.map(|check| check.name).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let line = format!("a {} would not start on this host: {}", plan.process().title(), errors.join(", "));
    Err(Failure::new(Exit::Refused, line))
}

/// The plan of these settings, as `plan` makes it.
fn plan(args: &DoctorArgs, host: &Host) -> Result<Plan, Refused> {
    let settings = settings_for(args.process, args.slots, &args.settings, host)?;
    let mut request = Request::new(args.process, args.settings.profile, &settings);
    request.host_bytes = host.memory;
    Ok(resolve(&request)?)
}

fn answer(as_json: bool, plan: &Plan, checks: &[Check]) -> String {
    if !as_json {
        return check::table(checks);
    }
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    let object = json!({
        "process": value(&plan.process()),
        "profile": value(&plan.profile()),
        "totalProcessMemory": plan.total_process(),
        "level": value(&worst),
        "checks": value(&checks),
    });
    object.to_string()
}

impl From<args::Driver> for Driver {
    fn from(driver: args::Driver) -> Self {
        match driver {
            args::Driver::Auto => Self::Auto,
            args::Driver::IoUring => Self::IoUring,
            args::Driver::Epoll => Self::Epoll,
        }
    }
}

impl From<args::Transport> for Transport {
    fn from(transport: args::Transport) -> Self {
        match transport {
            args::Transport::Auto => Self::Auto,
            args::Transport::Tcp => Self::Tcp,
            args::Transport::Shm => Self::Shm,
        }
    }
}

impl From<args::Register> for Registration {
    fn from(register: args::Register) -> Self {
        match register {
            args::Register::Auto => Self::Auto,
            args::Register::Required => Self::Required,
            args::Register::Never => Self::Never,
        }
    }
}
