//! The control thread: a runtime of its own for the connection to the JobManager, heartbeats, fetches and clocks.
//!
//! Owner of the state: this thread owns the agent and the connection. It runs our code only; the job functions that a plan
//! calls and the reading of state run on blocking threads, so nothing a user writes can make a TaskManager look dead.
//!
//! Always true: the agent sees one input at a time, and its actions are carried out in order before the next one; an
//! answer of an old connection or dial is told apart by its number and ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_exchange::{Endpoint, SlotId};
use tidegate_rpc::client::{Inbound, Outbound};
use tidegate_rpc::{
    Connection, Envelope, Fault, FaultKind, Prepare, SlotPlan, ToJobManager, ToTaskManager, caught,
};
use tidegate_stream::Jobs;
use tidegate_stream::slot::{SlotCommand, SlotMetrics};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::agent::{Action, Agent, End, Fetched, Identity, Input};
use crate::dial::{Complaints, Unconnected, dial};
use crate::fetch::fetch;
use crate::files::{Roots, SlotFiles};
use crate::heartbeat;
use crate::latency::Collector;
use crate::limits::{DRAIN_MAX, SHELL_EVENTS_MAX, TICK};
use crate::memory::{Meter, Reading};
use crate::plan::plan;
use crate::slots::{FromSlot, Joining, SlotHandle, SlotPort};
use crate::strangers::Strangers;

/// What the control thread is given.
pub(crate) struct ControlSpec {
    pub identity: Identity,
    pub jobmanager: String,
    pub jobs: Jobs,
    pub slots: Vec<SlotHandle>,
    pub slot_files: Vec<SlotFiles>,
    pub ports: Vec<SlotPort>,
    pub from_slots: mpsc::Receiver<(u32, FromSlot)>,
    pub endpoint: Endpoint,
    pub strangers: Arc<Strangers>,
    pub roots: Roots,
    pub meter: Meter,
    pub file_buffers: Arc<AtomicU64>,
    pub latencies: Collector,
    pub stop: mpsc::Receiver<String>,
}

/// How the process ends when the agent has no say in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The agent decided.
    #[error(transparent)]
    Agent(#[from] End),
    /// A slot thread panicked: a bug of ours, since user code is caught.
    #[error("slot {slot} died: {panic}")]
    SlotDied {
        /// The slot.
        slot: u32,
        /// The words of the panic.
        panic: String,
    },
    /// A slot takes no commands any more.
    #[error("slot {slot} takes no commands: {reason}")]
    SlotDeaf {
        /// The slot.
        slot: u32,
        /// Why.
        reason: String,
    },
    /// There is no runtime.
    #[error("the system refuses the control runtime: {0}")]
    System(String),
}

/// What the tasks of this runtime say to the loop.
enum ShellEvent {
    Dialed(Result<Connection, Vec<Unconnected>>),
    Message(Box<Envelope<ToTaskManager>>),
    StreamEnded(String),
    Fetched(Input),
}

/// Runs until the TaskManager ends; gives the slot threads back to be joined, unless one of them hangs.
pub(crate) fn run(spec: ControlSpec) -> (Ended, Vec<std::thread::JoinHandle<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control-pool")
        .max_blocking_threads(2 + spec.slots.len())
        .build();
    match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(Control::new(spec).run());
            runtime.shutdown_background(); // A fetch from a hanging disk must not hold up the end.
            result
        }
        Err(error) => (Ended::System(error.to_string()), Vec::new()),
    }
}

struct Control {
    agent: Agent,
    jobmanager: Arc<str>,
    jobs: Jobs,
    taskmanager: u64,
    slots: Vec<SlotHandle>,
    /// What slots get when they are opened; empty from then on.
    slot_files: Vec<SlotFiles>,
    ports: Vec<SlotPort>,
    opened: bool,
    from_slots: mpsc::Receiver<(u32, FromSlot)>,
    endpoint: Endpoint,
    strangers: Arc<Strangers>,
    roots: Roots,
    meter: Meter,
    file_buffers: Arc<AtomicU64>,
    latencies: Collector,
    stop: mpsc::Receiver<String>,
    started: Instant,
    outbound: Option<Outbound>,
    reader: Option<JoinHandle<()>>,
    /// Number of the present connection or dial; events of earlier ones are ignored.
    generation: u64,
    events: mpsc::Sender<(u64, ShellEvent)>,
    inbox: mpsc::Receiver<(u64, ShellEvent)>,
    complaints: Complaints,
    heartbeat: Option<tokio::time::Interval>,
    heartbeats: u64,
    /// What each slot said of its own accord.
    counted: Vec<SlotMetrics>,
    ended: Option<Ended>,
}

impl Control {
    fn new(spec: ControlSpec) -> Self {
        let (events, inbox) = mpsc::channel(SHELL_EVENTS_MAX);
        Self {
            counted: vec![SlotMetrics::default(); spec.slots.len()],
            taskmanager: spec.identity.taskmanager,
            agent: Agent::new(spec.identity),
            jobmanager: spec.jobmanager.into(),
            jobs: spec.jobs,
            slots: spec.slots,
            slot_files: spec.slot_files,
            ports: spec.ports,
            opened: false,
            from_slots: spec.from_slots,
            endpoint: spec.endpoint,
            strangers: spec.strangers,
            roots: spec.roots,
            meter: spec.meter,
            file_buffers: spec.file_buffers,
            latencies: spec.latencies,
            stop: spec.stop,
            started: Instant::now(),
            outbound: None,
            reader: None,
            generation: 0,
            events,
            inbox,
            complaints: Complaints::default(),
            heartbeat: None,
            heartbeats: 0,
            ended: None,
        }
    }

    async fn run(mut self) -> (Ended, Vec<std::thread::JoinHandle<()>>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.act();
        while self.ended.is_none() {
            tokio::select! {
                biased;
                Some(reason) = self.stop.recv() => self.input(Input::Stop(reason)),
                Some((slot, event)) = self.from_slots.recv() => self.slot_says(slot, event),
                Some((generation, event)) = self.inbox.recv() => self.shell_says(generation, event),
                () = next_beat(&mut self.heartbeat) => self.beat(),
                _ = tick.tick() => self.input(Input::Tick),
            }
        }
        let ended = self.ended.take().expect("invariant: the loop ends with an end");
        self.close(ended).await
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn input(&mut self, input: Input) {
        let now_ms = self.now_ms();
        self.agent.handle(now_ms, input);
        self.act();
    }

    fn slot_says(&mut self, slot: u32, event: FromSlot) {
        match event {
            FromSlot::Event(event) => self.input(Input::Slot(slot, event)),
            FromSlot::Counted(metrics) => {
                self.counted[slot as usize] = *metrics;
                if self.heartbeat.is_some() {
                    self.beat(); // Registered; before that there is nobody to tell.
                }
            }
            FromSlot::Ended(panic) => {
                let panic = panic.unwrap_or_else(|| "its thread ended by itself".to_owned());
                self.end(Ended::SlotDied { slot, panic });
            }
        }
    }

    fn shell_says(&mut self, generation: u64, event: ShellEvent) {
        if let ShellEvent::Fetched(input) = event {
            return self.input(input);
        }
        if generation != self.generation {
            return;
        }
        match event {
            ShellEvent::Dialed(Ok(connection)) => {
                self.complaints.clear();
                let (outbound, inbound) = connection.split();
                self.outbound = Some(outbound);
                self.reader = Some(tokio::spawn(read(generation, inbound, self.events.clone())));
                self.input(Input::Connected);
            }
            ShellEvent::Dialed(Err(reasons)) => {
                self.complaints.log(&reasons);
                let reason = reasons.last().map_or_else(String::new, ToString::to_string);
                self.lost(reason);
            }
            ShellEvent::Message(envelope) => self.input(Input::Message(envelope)),
            ShellEvent::StreamEnded(reason) => self.lost(reason),
            ShellEvent::Fetched(_) => unreachable!("handled above"),
        }
    }

    /// The connection, or the try to have one, is over.
    fn lost(&mut self, reason: String) {
        self.hang_up();
        self.input(Input::Disconnected(reason));
    }

    fn hang_up(&mut self) {
        self.generation += 1;
        self.outbound = None;
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }

    // ---- actions ----

    fn act(&mut self) {
        while self.ended.is_none()
            && let Some(action) = self.agent.poll_action()
        {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial { after_ms } => self.dial(after_ms),
            Action::Send(envelope) => self.send(*envelope),
            Action::HangUp => self.hang_up(),
            Action::Join(cluster) => {
                let files = std::mem::take(&mut self.slot_files);
                for (index, (slot, files)) in (0..).zip(self.slots.iter().zip(files)) {
                    let me = SlotId { taskmanager: self.taskmanager, slot: index };
                    slot.open(Joining { me, cluster: cluster.0, files }, &self.endpoint);
                }
                self.opened = true;
            }
            Action::Command(slot, command) => {
                if let Err(error) = self.ports[slot as usize].send(command) {
                    self.end(Ended::SlotDeaf { slot, reason: error.to_string() });
                }
            }
            Action::Enter { attempt, store, checkpoints } => {
                self.roots.enter(attempt.job, attempt.attempt, store, checkpoints);
            }
            Action::Leave(attempt) => self.roots.remove(attempt.job, attempt.attempt),
            Action::Fetch { slot, attempt, store, prepare, plan } => {
                let (jobs, events) = (self.jobs.clone(), self.events.clone());
                tokio::spawn(async move {
                    let result = caught(look_up(jobs, *prepare, *plan, store)).await;
                    let result =
                        result.unwrap_or_else(|cause| Err(Fault { kind: FaultKind::Resources, cause }));
                    let input = Input::Fetched { slot, attempt, result };
                    let _ = events.send((0, ShellEvent::Fetched(input))).await;
                });
            }
            Action::Heartbeats { interval_ms: 0 } => self.heartbeat = None,
            Action::Heartbeats { interval_ms } => {
                let mut interval = tokio::time::interval(Duration::from_millis(interval_ms));
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.heartbeat = Some(interval);
                self.latencies.report_all();
            }
            Action::End(end) => self.end(Ended::Agent(end)),
        }
    }

    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }

    fn dial(&mut self, after_ms: u64) {
        self.generation += 1;
        let (generation, events) = (self.generation, self.events.clone());
        let address = Arc::clone(&self.jobmanager);
        self.reader = Some(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let _ = events.send((generation, ShellEvent::Dialed(dial(&address).await))).await;
        }));
    }

    fn send(&mut self, envelope: Envelope<ToJobManager>) {
        let Some(outbound) = &self.outbound else { return };
        if let Err(error) = outbound.try_send(envelope) {
            // Full: the JobManager has not read for thousands of messages. Closed: it is gone. Nothing is kept for
            // later: when the stream ends, both sides begin anew.
            let reason = format!("a message could not be sent: {error}");
            let (generation, events) = (self.generation, self.events.clone());
            self.outbound = None;
            tokio::spawn(async move {
                let _ = events.send((generation, ShellEvent::StreamEnded(reason))).await;
            });
        }
    }

    fn beat(&mut self) {
        self.heartbeats += 1;
        let reports: Vec<_> = self.slots.iter().map(|slot| slot.report.read()).collect();
        let boards = self.slots.iter().map(|slot| slot.board.read());
        // The newer word of each slot; what it counted never goes back.
        let metrics = boards.zip(&mut self.counted);
        let metrics: Vec<_> = metrics
            .map(|(board, counted)| {
                if counted.turns > board.turns {
                    return counted.clone();
                }
                counted.tasks.clear(); // With what they hold of tasks that are gone.
                board
            })
            .collect();
        self.latencies.collect(&metrics);
        let memory = self.meter.read(&Reading {
            slots: &metrics,
            file_buffers: self.file_buffers.load(Ordering::Relaxed),
            links: reports.iter().map(|report| u64::from(report.connections)).sum(),
        });
        let beat = heartbeat::make(self.heartbeats, &metrics, &reports, self.strangers.count(), memory);
        self.send(Envelope::new(self.agent.epoch(), ToJobManager::Heartbeat(Box::new(beat))));
        for report in self.latencies.reports() {
            self.send(Envelope::new(self.agent.epoch(), ToJobManager::Latencies(Box::new(report))));
        }
    }

    // ---- the end ----

    /// Lets the slots go and hands their threads over. A slot that hangs or died is not waited for.
    async fn close(mut self, ended: Ended) -> (Ended, Vec<std::thread::JoinHandle<()>>) {
        let in_order = matches!(ended, Ended::Agent(End::Drained | End::Refused(_)));
        if in_order && self.opened {
            let told =
                self.ports.iter().map(|port| port.send(SlotCommand::Shutdown)).filter(Result::is_ok).count();
            let gone = self.wait_for_slots(told);
            if tokio::time::timeout(DRAIN_MAX, gone).await.is_err() {
                tracing::warn!("not every slot has left within {DRAIN_MAX:?}");
                self.latencies.finish();
                return (ended, Vec::new());
            }
        }
        self.latencies.finish();
        if self.outbound.take().is_some() {
            // Ours ends first; the JobManager reads to that end, our goodbye included, and ends its own.
            let _ = tokio::time::timeout(GOODBYE_MAX, self.wait_for_hang_up()).await;
        }
        let threads =
            if in_order { self.slots.drain(..).map(SlotHandle::into_thread).collect() } else { Vec::new() };
        (ended, threads)
    }

    async fn wait_for_hang_up(&mut self) {
        while let Some((generation, event)) = self.inbox.recv().await {
            if generation == self.generation && matches!(event, ShellEvent::StreamEnded(_)) {
                return;
            }
        }
    }

    async fn wait_for_slots(&mut self, mut running: usize) {
        while running > 0 {
            match self.from_slots.recv().await {
                Some((_, FromSlot::Ended(_))) => running -= 1,
                Some((_, FromSlot::Event(_) | FromSlot::Counted(_))) => {}
                None => return,
            }
        }
    }
}

/// How long the last messages may take to leave.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

async fn next_beat(heartbeat: &mut Option<tokio::time::Interval>) {
    match heartbeat {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn read(generation: u64, mut inbound: Inbound, events: mpsc::Sender<(u64, ShellEvent)>) {
    loop {
        let event = match inbound.message().await {
            Ok(Some(envelope)) => ShellEvent::Message(Box::new(envelope)),
            Ok(None) => ShellEvent::StreamEnded("it closed the connection".to_owned()),
            Err(status) => ShellEvent::StreamEnded(status.message().to_owned()),
        };
        let last = matches!(event, ShellEvent::StreamEnded(_));
        if events.send((generation, event)).await.is_err() || last {
            return;
        }
    }
}

/// Plans the job and reads back the state of one slot's tasks.
async fn look_up(
    jobs: Jobs,
    prepare: Prepare,
    slot: SlotPlan,
    store: std::path::PathBuf,
) -> Result<Fetched, Fault> {
    let permanent = |cause: String| Fault { kind: FaultKind::Permanent, cause };
    let (name, args, parallelism) = (prepare.job_name, prepare.args, prepare.parallelism);
    let planned = tokio::task::spawn_blocking(move || {
        plan(&jobs, &name, &args, parallelism)
            .map_err(|error| format!("job `{name}` cannot be built here: {error}"))
    });
    let plan =
        planned.await.map_err(|_| permanent("the job function panicked".to_owned()))?.map_err(permanent)?;
    let restores = match prepare.restored {
        None => slot.tasks.iter().map(|_| None).collect(),
        Some(checkpoint) => fetch(&store, checkpoint, &slot).await?,
    };
    Ok(Fetched { graph: plan.graph, outputs: plan.outputs, restores })
}
