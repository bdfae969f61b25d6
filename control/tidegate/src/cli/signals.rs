//! SIGTERM, SIGHUP and Ctrl-C, as something to wait for.
//!
//! Owner of the state: a small thread that lives as long as the process.
//!
//! Always true: the first signal asks for an end in order, the second one ends the process at once. A terminal
//! that closes may say so more than once and is no second one; under `nohup` it says nothing.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};
use super::out;

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// From an operator or a supervisor.
    Terminate,
    /// The terminal is gone.
    HangUp,
    /// Ctrl-C.
    Interrupt,
}

impl Stop {
    /// For people.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "interrupted",
        }
    }
}

/// The signals of this process from now on.
pub(crate) struct Signals(Receiver<Stop>);

impl Signals {
    /// Takes the signals over from their default actions.
    pub(crate) fn install() -> Result<Self, Failure> {
        let system =
            |error: std::io::Error| Failure::new(Exit::System, format!("cannot handle signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let ignores_hangup = ignores_hangup();
        let (mut terminate, mut hangup, mut interrupt) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::terminate()).map_err(system)?,
                (!ignores_hangup).then(|| signal(SignalKind::hangup())).transpose().map_err(system)?,
                signal(SignalKind::interrupt()).map_err(system)?,
            )
        };
        let (sender, receiver) = sync_channel(1);
        let listen = async move {
            let mut first = true;
            loop {
                let stop = tokio::select! {
                    _ = terminate.recv() => Stop::Terminate,
                    () = gone(&mut hangup) => Stop::HangUp,
                    _ = interrupt.recv() => Stop::Interrupt,
                };
                if !first && stop == Stop::HangUp {
                    continue;
                }
                if !first {
                    out::say("error: told to stop twice; ending at once");
                    std::process::exit(Exit::Interrupted as i32);
                }
                first = false;
                let _ = sender.try_send(stop);
            }
        };
        let builder = std::thread::Builder::new().name("signals".to_owned());
        builder.spawn(move || runtime.block_on(listen)).map_err(system)?;
        Ok(Self(receiver))
    }

    /// Waits for a signal, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) -> Option<Stop> {
        self.0.recv_timeout(at_most).ok()
    }
}

/// The next time that the terminal goes; never if that is ignored.
async fn gone(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process wants it to outlive the terminal, as `nohup` does. Where the system does not say,
/// it does not.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal N is bit N - 1.
    mask.is_some_and(|mask| mask >> (SignalKind::hangup().as_raw_value() - 1) & 1 == 1)
}
