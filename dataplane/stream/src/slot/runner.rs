//! The slot loop: commands, network, one quantum for each task that can use it, again.
//!
//! The runner owns the exchange, the attempts and their tasks. It blocks in `Exchange::wait` only (R1), and only when no
//! task can step. No task is stepped twice before every other runnable one, and completions are reaped after each quantum
//! (R6). Always: an attempt is prepared whole or not at all; its tasks are gone before the exchange is told to let go of it;
//! the control side hears `Closed` once nothing of it is left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use tidegate_arena::Arena;
use tidegate_exchange::endpoint::Greet;
use tidegate_exchange::plant::{Rare, rare};
use tidegate_exchange::{Exchange, LinkFault, Prepared};
use tidegate_ring::{Doorbell, Ring};

use crate::context::Waker;
use crate::error::{TaskError, panic_message};
use crate::files::{FileEvent, Files};
use crate::jobs::Jobs;
use crate::limits::{COMMANDS_PER_TURN, EVENTS_RETRY_NS, EVENTS_WAITING_MAX, SPIN_NS};
use crate::memory::{Budgets, MemoryUse};
use crate::pool::ReaderPool;
use crate::slot::board::{Board, write_tasks};
use crate::slot::config::{Events, SlotConfig, Spin};
use crate::slot::deploy::{Deployer, deploy};
use crate::slot::mailbox::{SlotMailbox, mailbox};
use crate::slot::message::{
    AttemptId, Deployment, Failure, FailureKind, SlotCommand, SlotEvent, SlotMetrics, TaskId,
};
use crate::slot::spin::Spinner;
use crate::task::{Task, TaskCx};

/// How far an attempt is in this slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Being restored, or links are being opened.
    Preparing,
    /// Answered; waits for the start.
    Prepared,
    /// Tasks step.
    Running,
    /// Something failed; nothing steps until the control side cancels it.
    Failed,
    /// Tasks are gone; the exchange lets go.
    Closing,
}

struct Attempt {
    id: AttemptId,
    life: Life,
    tasks: Vec<Task>,
    /// File buffers they may hold.
    buffers: u32,
    /// Memory they may hold.
    budgets: Budgets,
}

/// One slot.
pub struct SlotRunner<R: Ring> {
    exchange: Exchange<R>,
    arena: Arena,
    files: Box<dyn Files>,
    jobs: Jobs,
    pool: ReaderPool,
    bell: Arc<dyn Fn() + Send + Sync>,
    commands: Receiver<SlotCommand>,
    events: Box<dyn Events>,
    outbox: Vec<SlotEvent>,
    config: SlotConfig,
    attempts: Vec<Attempt>,
    shutdown: bool,
    turns: u64,
    waits: u64,
    metrics_at_ns: u64,
    board: Board,
    /// Free segments, as the board says.
    shown_free: u32,
    idle_since_ns: Option<u64>,
    /// It does not sleep before this time, because it spins.
    awake_until_ns: u64,
    spinner: Spinner,
    /// Memory held when it was last looked at.
    memory: MemoryUse,
}

/// Heap that `tasks` hold together.
fn held(tasks: &[Task]) -> u64 {
    tasks.iter().map(|task| task.heap().held()).sum()
}

impl<R: Ring> SlotRunner<R>
where
    R::Socket: Greet,
{
    /// A slot without attempts, and the way into it. Made on the thread it will run on.
    pub fn new(
        exchange: Exchange<R>,
        files: Box<dyn Files>,
        jobs: Jobs,
        pool: ReaderPool,
        events: Box<dyn Events>,
        config: SlotConfig,
    ) -> (Self, SlotMailbox) {
        let doorbell = exchange.doorbell();
        let bell: Arc<dyn Fn() + Send + Sync> = Arc::new(move || doorbell.ring());
        let (sender, commands) = mailbox(Arc::clone(&bell));
        let runner = SlotRunner {
            arena: exchange.ports.arena().clone(),
            metrics_at_ns: exchange.now_ns().saturating_add(config.metrics_interval_ns),
            exchange,
            files,
            jobs,
            pool,
            bell,
            commands,
            events,
            outbox: Vec::new(),
            config,
            attempts: Vec::new(),
            shutdown: false,
            turns: 0,
            waits: 0,
            board: Board::default(),
            shown_free: 0,
            idle_since_ns: None,
            awake_until_ns: 0,
            spinner: Spinner::default(),
            memory: MemoryUse::default(),
        };
        (runner, sender)
    }

    /// Runs until it is told to shut down, or nobody can tell it anything any more, and everything is given back.
    pub fn run(&mut self) {
        while !self.done() {
            if !self.turn() {
                self.wait();
            }
        }
    }

    /// Whether `run` would return.
    pub fn done(&self) -> bool {
        self.shutdown && self.attempts.is_empty() && self.outbox.is_empty()
    }

    /// One turn: commands, network, one quantum for each task that can use it. False if there was no command and no
    /// task could step: then it is time to `wait`.
    pub fn turn(&mut self) -> bool {
        self.deliver();
        let congested = self.outbox.len() >= EVENTS_WAITING_MAX;
        let mut busy = !congested && self.take_commands();
        // What it moved shows in which tasks are runnable; what it could not finish wakes it from its wait.
        self.exchange.turn();
        self.take_faults();
        if !congested {
            busy |= self.prepare_further();
            busy |= self.step_tasks();
            self.retire_finished();
        }
        self.sweep_closed();
        self.report();
        busy |= self.deliver();
        self.turns += u64::from(busy);
        if busy {
            self.idle_since_ns = None;
            let awake_ns = match self.config.spin {
                Spin::For(spin_ns) => spin_ns,
                Spin::WhereItPays if self.spinner.worked() => SPIN_NS,
                Spin::WhereItPays => 0,
            };
            self.awake_until_ns = self.exchange.ports.now_ns().saturating_add(awake_ns);
        }
        busy
    }

    /// Sleeps until there may be something to do. Returns at once while the slot spins: there was work a moment ago, or a
    /// task's time comes in a moment.
    pub fn wait(&mut self) {
        let now = self.exchange.now_ns();
        let awake_ns = self.running().filter_map(Task::awake_ns).min();
        if now < self.awake_until_ns {
            self.spinner.looks();
            if self.config.spin == Spin::WhereItPays {
                // Others of its processor go now, and don't stop it in the middle of some work. Who asks for a time has a
                // processor of their own.
                thread::yield_now();
            }
            return;
        }
        if awake_ns.is_some_and(|at| at <= now) {
            return self.spinner.waits();
        }
        self.watch_stall(now);
        let retry = (!self.outbox.is_empty()).then(|| now + EVENTS_RETRY_NS);
        let metrics = self.has_news().then_some(self.metrics_at_ns);
        let until = self.next_timer_ns().into_iter().chain(retry).chain(metrics).min();
        let spin_ns = if let Spin::For(spin_ns) = self.config.spin { spin_ns } else { 0 };
        let until = until.map(|at| at.saturating_sub(spin_ns)).into_iter().chain(awake_ns).min();
        if spin_ns > 0 && until.is_some_and(|at| at <= now) {
            return;
        }
        self.waits += 1;
        self.spinner.sleeps();
        self.exchange.wait(until.map(|at| Duration::from_nanos(at.saturating_sub(now))));
    }

    /// What every unfinished task waits for: the wait-for graph of this slot, a line per task.
    pub fn wait_graph(&self) -> String {
        let tasks = self.attempts.iter().flat_map(|attempt| &attempt.tasks).filter(|task| !task.ended());
        let lines: Vec<String> = tasks.map(|task| task.describe(&self.exchange.ports)).collect();
        lines.join("\n")
    }

    /// The earliest time a task waits for, nanoseconds of the ring's clock.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.running().filter_map(Task::until_ns).min()
    }

    /// The tasks that step. The time of one that does not may be long past: waiting for it would be no wait.
    fn running(&self) -> impl Iterator<Item = &Task> {
        let running = self.attempts.iter().filter(|attempt| attempt.life == Life::Running);
        running.flat_map(|attempt| &attempt.tasks)
    }

    /// The exchange, for its report.
    pub fn exchange(&self) -> &Exchange<R> {
        &self.exchange
    }

    // ---- telling and being told ----

    /// Hands on what the slot has to tell, in order, as far as there is room. True if there was, and it stopped for nothing.
    fn deliver(&mut self) -> bool {
        let mut held = false;
        let mut waiting = std::mem::take(&mut self.outbox).into_iter();
        for event in waiting.by_ref() {
            held = rare(Rare::EventsHeld);
            if held {
                self.outbox.push(event);
                break;
            }
            if let Err(back) = self.events.send(event) {
                self.outbox.push(back);
                break;
            }
        }
        self.outbox.extend(waiting);
        held
    }

    fn take_commands(&mut self) -> bool {
        for taken in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) if rare(Rare::OneCommand) => {
                    self.command(command);
                    return true;
                }
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => return taken > 0,
                Err(TryRecvError::Disconnected) => {
                    self.shut_down();
                    return taken > 0;
                }
            }
        }
        true
    }

    fn command(&mut self, command: SlotCommand) {
        match command {
            SlotCommand::Prepare(deployment) => self.prepare(*deployment),
            SlotCommand::Start(id) => self.start(id),
            SlotCommand::Trigger { attempt, checkpoint } => {
                self.tasks(attempt).for_each(|task| task.trigger(checkpoint));
            }
            SlotCommand::CheckpointComplete { attempt, checkpoint, last } => {
                self.complete(attempt, checkpoint, last)
            }
            SlotCommand::CheckpointAborted { attempt, checkpoint } => self.aborted(attempt, checkpoint),
            SlotCommand::Cancel(id) => self.cancel(id),
            SlotCommand::FileEvent(event) => self.file_event(&event),
            SlotCommand::Shutdown => self.shut_down(),
        }
    }

    fn tasks(&mut self, id: AttemptId) -> impl Iterator<Item = &mut Task> {
        let attempts = self.attempts.iter_mut().filter(move |attempt| attempt.id == id);
        attempts.flat_map(|attempt| &mut attempt.tasks).filter(|task| !task.ended())
    }

    fn start(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == id) else { return };
        if attempt.life == Life::Prepared {
            attempt.life = Life::Running;
            attempt.tasks.iter_mut().for_each(|task| task.start(&mut self.outbox));
            // The board gets a line per task now, so that later reports only write numbers.
            self.publish();
        }
    }

    fn complete(&mut self, id: AttemptId, checkpoint: u64, last: bool) {
        let failed: Vec<_> = self
            .tasks(id)
            .filter_map(|task| task.complete(checkpoint, last).err().map(|error| (task.id(), error)))
            .collect();
        self.fail_tasks(id, failed);
    }

    fn aborted(&mut self, id: AttemptId, checkpoint: u64) {
        let mut failed = Vec::new();
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.id == id) {
            for task in attempt.tasks.iter_mut().filter(|task| !task.ended()) {
                if let Err(error) = task.aborted(checkpoint, &mut *self.files) {
                    failed.push((task.id(), error));
                }
            }
        }
        self.fail_tasks(id, failed);
    }

    fn file_event(&mut self, event: &FileEvent) {
        let mut failed = Vec::new();
        for attempt in &mut self.attempts {
            for task in &mut attempt.tasks {
                if let Err(error) = task.file_event(event) {
                    failed.push((attempt.id, task.id(), error));
                }
            }
        }
        for (id, task, error) in failed {
            self.fail_tasks(id, vec![(task, error)]);
        }
    }

    fn shut_down(&mut self) {
        self.shutdown = true;
        let ids: Vec<_> = self.attempts.iter().map(|attempt| attempt.id).collect();
        ids.into_iter().for_each(|id| self.cancel(id));
    }

    // ---- attempts ----

    fn prepare(&mut self, deployment: Deployment) {
        let id = deployment.id();
        if self.attempts.iter().any(|attempt| attempt.id == id) {
            let result = Err(Failure::resources(format!("attempt {} is in this slot already", id.attempt)));
            self.outbox.push(SlotEvent::Prepared { attempt: id, result });
            return;
        }
        let budgets = Budgets::new(&deployment.memory);
        let buffers_held = self.attempts.iter().map(|attempt| attempt.buffers).sum();
        let mut deployer = Deployer {
            buffers_held,
            exchange: &mut self.exchange,
            files: &mut *self.files,
            jobs: &self.jobs,
            pool: &self.pool,
            waker: &|| Waker::new(Arc::clone(&self.bell)),
            events: &mut self.outbox,
            budgets: &budgets,
            latencies: self.config.latencies,
        };
        // A job function is user code: it may panic, and the slot must not.
        let mut tasks = Vec::with_capacity(deployment.tasks.len());
        let deployed = catch_unwind(AssertUnwindSafe(|| deploy(deployment, &mut deployer, &mut tasks)));
        match deployed.unwrap_or_else(|panic| {
            let message = panic_message(&*panic);
            Err(Failure::setup(format!("the job function panicked: {message}")))
        }) {
            Ok(buffers) => self.attempts.push(Attempt { id, life: Life::Preparing, tasks, buffers, budgets }),
            Err(cause) => {
                for mut task in tasks {
                    task.cancel(&mut *self.files, &mut self.outbox);
                }
                self.exchange.cancel(id.job, id.attempt);
                self.attempts.push(Attempt {
                    id,
                    life: Life::Closing,
                    tasks: Vec::new(),
                    buffers: 0,
                    budgets,
                });
                self.outbox.push(SlotEvent::Prepared { attempt: id, result: Err(cause) });
            }
        }
    }

    /// Restores a step further; answers once state is back and links are open.
    fn prepare_further(&mut self) -> bool {
        let mut busy = false;
        let mut refused = Vec::new();
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.life == Life::Preparing) {
            let mut restoring = false;
            let mut refusal = None;
            for task in attempt.tasks.iter_mut().filter(|task| task.restoring()) {
                restoring = true;
                if let Err(error) = task.restore() {
                    refusal = Some(error.into());
                    break;
                }
            }
            busy |= restoring;
            if let Some(cause) = refusal {
                refused.push((attempt.id, cause));
                continue;
            }
            if restoring {
                continue;
            }
            match self.exchange.prepared(attempt.id.job, attempt.id.attempt) {
                Prepared::Pending | Prepared::Failed => {}
                Prepared::Ready => {
                    attempt.life = Life::Prepared;
                    self.outbox.push(SlotEvent::Prepared { attempt: attempt.id, result: Ok(()) });
                    busy = true;
                }
            }
        }
        for (id, cause) in refused {
            self.outbox.push(SlotEvent::Prepared { attempt: id, result: Err(cause) });
            self.cancel(id);
        }
        busy
    }

    fn take_faults(&mut self) {
        while let Some(fault) = self.exchange.take_fault() {
            self.link_fault(&fault);
        }
    }

    fn link_fault(&mut self, fault: &LinkFault) {
        let id = AttemptId { job: fault.job, attempt: fault.attempt };
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == id) else { return };
        match attempt.life {
            Life::Preparing => {
                self.outbox.push(SlotEvent::Prepared { attempt: id, result: Err(fault.into()) });
                self.cancel(id);
            }
            Life::Prepared | Life::Running => {
                attempt.life = Life::Failed;
                let (cause, kind) = (fault.to_string(), FailureKind::Link);
                self.outbox.push(SlotEvent::Failed { attempt: id, task: None, cause, kind });
            }
            Life::Failed | Life::Closing => {}
        }
    }

    fn fail_tasks(&mut self, id: AttemptId, failed: Vec<(TaskId, TaskError)>) {
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == id) else { return };
        if attempt.life == Life::Preparing
            && let Some((_, error)) = failed.first()
        {
            self.outbox.push(SlotEvent::Prepared { attempt: id, result: Err(error.clone().into()) });
            return self.cancel(id);
        }
        for (task_id, error) in failed {
            let task = attempt.tasks.iter_mut().find(|task| task.id() == task_id && !task.ended());
            if let Some(task) = task {
                task.fail(&mut *self.files, &mut self.outbox);
                let (cause, kind) = (error.to_string(), FailureKind::Task(error.fault()));
                self.outbox.push(SlotEvent::Failed { attempt: id, task: Some(task_id), cause, kind });
                attempt.life = Life::Failed;
            }
        }
    }

    /// Drops the attempt's tasks. For one that is not here there is nothing to do but to say so.
    fn cancel(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == id) else {
            let segments_free = self.exchange.ports.segments_free();
            self.outbox.push(SlotEvent::Closed { attempt: id, segments_free });
            return;
        };
        for mut task in attempt.tasks.drain(..) {
            task.cancel(&mut *self.files, &mut self.outbox);
        }
        (attempt.life, attempt.buffers) = (Life::Closing, 0);
        self.exchange.cancel(id.job, id.attempt);
    }

    /// Attempts whose tasks have all finished end gracefully.
    fn retire_finished(&mut self) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.life == Life::Running) {
            if attempt.tasks.iter().all(Task::finished) {
                attempt.tasks.clear();
                (attempt.life, attempt.buffers) = (Life::Closing, 0);
                self.exchange.retire(attempt.id.job, attempt.id.attempt);
            }
        }
    }

    fn sweep_closed(&mut self) {
        let before = self.attempts.len();
        let quiet = self.files.open_files() == 0;
        let (exchange, outbox) = (&mut self.exchange, &mut self.outbox);
        self.attempts.retain(|attempt| {
            let AttemptId { job, attempt: number } = attempt.id;
            let closed = attempt.life == Life::Closing && quiet && exchange.closed(job, number);
            if closed {
                let segments_free = exchange.ports.segments_free();
                outbox.push(SlotEvent::Closed { attempt: attempt.id, segments_free });
            }
            !closed
        });
        if self.attempts.len() < before {
            self.publish();
        }
    }

    // ---- stepping ----

    fn step_tasks(&mut self) -> bool {
        let mut busy = false;
        for attempt in 0..self.attempts.len() {
            for task in 0..self.attempts[attempt].tasks.len() {
                if self.attempts[attempt].life == Life::Running {
                    busy |= self.step_task(attempt, task);
                    if busy && rare(Rare::OneStep) {
                        return true;
                    }
                }
            }
        }
        busy
    }

    fn step_task(&mut self, attempt: usize, task: usize) -> bool {
        let Attempt { id, tasks, budgets, .. } = &mut self.attempts[attempt];
        let id = *id;
        let now_ns = self.exchange.ports.now_ns();
        if !tasks[task].runnable(&mut self.exchange.ports, now_ns) {
            if rare(Rare::WokenForNothing) {
                tasks[task].wake_for_nothing();
            }
            return false;
        }
        if let Some(budget) = budgets.task_heap() {
            let others = held(tasks) - tasks[task].heap().held();
            tasks[task].heap_mut().allow(budget.saturating_sub(others));
        }
        let (task, place) = (&mut tasks[task], task);
        let result = task.step(&mut TaskCx {
            ports: &mut self.exchange.ports,
            arena: &self.arena,
            files: &mut *self.files,
            now_ns,
            quantum_records: if rare(Rare::OneRecord) { 1 } else { self.config.quantum_records },
            quantum_bytes: self.config.quantum_bytes,
            events: &mut self.outbox,
        });
        task.stepped(now_ns, self.exchange.now_ns(), &self.exchange.ports);
        let over = task.heap_mut().stepped();
        let mut failed = result.err().map(|error| (task.id(), error));
        self.exchange.turn();
        if over && failed.is_none() {
            failed = self.over_heap(attempt, place);
        }
        if let Some(failed) = failed {
            self.fail_tasks(id, vec![failed]);
        }
        true
    }

    /// The tasks of an attempt are over their heap since the step of the one at `place`: fails the one that holds most.
    #[cold]
    fn over_heap(&mut self, attempt: usize, place: usize) -> Option<(TaskId, TaskError)> {
        let Attempt { tasks, budgets, .. } = &self.attempts[attempt];
        let budget = budgets.task_heap()?;
        let all = held(tasks);
        // What is free again by now was held by the one that stepped.
        let most = tasks.iter().filter(|task| !task.ended()).max_by_key(|task| task.heap().held());
        let worst = if all > budget { most? } else { &tasks[place] };
        let error = worst.heap().exceeded(budget, all - worst.heap().held());
        Some((worst.id(), error.at(worst.name())))
    }

    // ---- reports ----

    fn report(&mut self) {
        let now = self.exchange.ports.now_ns();
        if now < self.metrics_at_ns || !self.has_news() {
            return;
        }
        self.metrics_at_ns = now.saturating_add(self.config.metrics_interval_ns);
        self.publish();
    }

    /// True if the numbers may change: after the last attempt, until neighbours that cancel theirs later have given back what
    /// they hold of this slot's segments, of which nobody wakes it.
    fn has_news(&self) -> bool {
        !self.attempts.is_empty() || self.shown_free < self.exchange.ports.segments()
    }

    /// Shows this slot's numbers on `board` from now on.
    pub fn show_on(&mut self, board: Board) {
        self.board = board;
        self.publish();
    }

    fn publish(&mut self) {
        let memory = self.memory();
        let (attempts, ports) = (&self.attempts, &mut self.exchange.ports);
        ports.offer_latencies();
        self.shown_free = ports.segments_free();
        let (turns, waits, free) = (self.turns, self.waits, self.shown_free);
        self.board.write(|metrics| {
            write_tasks(attempts.iter().flat_map(|attempt| &attempt.tasks), ports, &mut metrics.tasks);
            (metrics.turns, metrics.waits) = (turns, waits);
            (metrics.segments_free, metrics.segments) = (free, ports.segments());
            metrics.exchange = ports.counters();
            metrics.memory = memory;
        });
    }

    /// What the slot counted so far.
    pub fn metrics(&mut self) -> SlotMetrics {
        let ports = &self.exchange.ports;
        let tasks = self.attempts.iter().flat_map(|attempt| &attempt.tasks);
        let tasks = tasks.map(|task| task.metrics(ports)).collect();
        SlotMetrics {
            tasks,
            turns: self.turns,
            waits: self.waits,
            segments_free: self.exchange.ports.segments_free(),
            segments: self.exchange.ports.segments(),
            exchange: self.exchange.ports.counters(),
            memory: self.memory(),
        }
    }

    /// What tasks hold, and the most there was; totals are those of the newest attempt.
    fn memory(&mut self) -> MemoryUse {
        let mut now = self.attempts.last().map_or(self.memory, |attempt| attempt.budgets.read());
        for part in [&mut now.task_heap, &mut now.task_off_heap, &mut now.state, &mut now.operators] {
            part.used = 0;
        }
        for attempt in &self.attempts {
            let seen = attempt.budgets.read();
            now.task_heap.used += held(&attempt.tasks);
            now.task_heap.peak += attempt.tasks.iter().map(|task| task.heap().peak()).max().unwrap_or(0);
            now.task_off_heap.used += seen.task_off_heap.used;
            now.state.used += seen.state.used;
            now.operators.used += seen.operators.used;
        }
        now.keep_peaks(&self.memory);
        self.memory = now;
        now
    }

    /// R7, as far as one slot can see: tasks that wait for nothing but each other, for long, are shown.
    fn watch_stall(&mut self, now_ns: u64) {
        let mut running = self.attempts.iter().filter(|attempt| attempt.life == Life::Running).peekable();
        let stuck = running.peek().is_some()
            && running.flat_map(|attempt| &attempt.tasks).all(|task| !task.waits_outside());
        if !stuck {
            self.idle_since_ns = None;
            return;
        }
        let since = *self.idle_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) >= self.config.stall_report_ns {
            self.idle_since_ns = Some(now_ns);
            self.outbox.push(SlotEvent::Stalled { wait_graph: self.wait_graph() });
        }
    }
}
