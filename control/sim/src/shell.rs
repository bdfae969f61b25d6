//! What JobManagers and the person with the job do: opening, the core's wishes, the store.
//!
//! Always: an operation on the store happens when its time has come, whole, in part or not at all, and only what really
//! happened is in the history.

use tidegate_checkpoint::{OpeningStep, StoreDone, StoreOp};
use tidegate_jobmanager::core::{Action, Input, Level, Submission};
use tidegate_jobmanager::{JobRecord, JobRequest, JobState, Planned};
use tidegate_rpc::{Envelope, ToJobManager, ToTaskManager};

use crate::cluster::{Cluster, Event, JOB, JOB_ID, MS, Process, args};
use crate::leader::{Leader, State, Work, concerned, records, save};
use crate::ledger::OUT;
use crate::store;
use crate::wires::{Mail, TO_HOST};

/// Whom to answer.
const SUBMIT: u64 = 1;
const CANCEL: u64 = 2;

/// Who dies while it writes a record makes fewer calls than this before.
const SAVE_CALLS_MAX: u64 = 8;

impl Cluster {
    /// A JobManager starts; older ones go on.
    pub fn start_leader(&mut self) {
        // Nobody's wall clock is right.
        let base_ms = 1_700_000_000_000 + self.random.below(7_200_000);
        let leader = self.leaders.len();
        self.leaders.push(Leader::start(base_ms));
        self.say(|| format!("JobManager {leader} starts"));
        self.after(MS, Event::Opening { leader });
    }

    pub fn open(&mut self, index: usize) -> Result<(), String> {
        let State::Opening(opening) = &mut self.leaders[index].state else { return Ok(()) };
        match opening.step() {
            OpeningStep::Wait(ms) => self.after(ms * MS, Event::Opening { leader: index }),
            OpeningStep::Op(op) => {
                if op == StoreOp::ReadEpochs {
                    opening.know(concerned(&self.disk));
                }
                let done = self.carry_out(0, &op)?;
                if let State::Opening(opening) = &mut self.leaders[index].state {
                    opening.handle(done);
                }
                let ns = self.store_ns();
                self.after(ns, Event::Opening { leader: index });
            }
            OpeningStep::Failed(error) => {
                self.say(|| format!("JobManager {index}: {error}"));
                self.bury_leader(index);
            }
            OpeningStep::Opened(leadership) => {
                let (now_ns, restart) = (self.net.now_ns(), self.restart);
                let (disk, jobs) = (self.disk.clone(), self.jobs.clone());
                let actions = self.leaders[index].lead(&disk, &jobs, &leadership, restart, now_ns);
                self.say(|| {
                    format!("JobManager {index} leads epoch {}: {:?}", leadership.epoch, leadership.legal)
                });
                self.act_leader(index, actions)?;
            }
        }
        Ok(())
    }

    fn store_ns(&mut self) -> u64 {
        let most = self.shape.store_ns;
        self.random.within([10_000, most])
    }

    pub fn leader_hears(&mut self, index: usize, link: u64, mail: Mail) -> Result<(), String> {
        let leader = &mut self.leaders[index];
        if !leader.leads() {
            return Ok(());
        }
        match mail {
            Mail::Hello => {
                leader.links.insert(link);
                self.tell_leader(index, Input::Connected { conn: link, peer: None })
            }
            _ if !leader.links.contains(&link) => Ok(()),
            Mail::Bytes(bytes) => {
                let message = Envelope::<ToJobManager>::decode(&bytes).map_err(|error| error.to_string())?;
                self.note(0x17, bytes.len() as u64);
                self.tell_leader(index, Input::Message { conn: link, message: Box::new(message) })
            }
            Mail::End(reason) => {
                leader.links.remove(&link);
                self.close_at_leader(link);
                self.tell_leader(index, Input::Disconnected { conn: link, reason: reason.to_owned() })
            }
        }
    }

    /// The core is told something, and what it wants is done.
    pub fn tell_leader(&mut self, index: usize, input: Input) -> Result<(), String> {
        let now_ns = self.net.now_ns();
        let leader = &mut self.leaders[index];
        let now_ms = leader.now_ms(now_ns);
        let State::Leading(core) = &mut leader.state else { return Ok(()) };
        let actions = core.handle(input, now_ms);
        self.act_leader(index, actions)
    }

    fn act_leader(&mut self, index: usize, actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Send { conn, message } => self.send_to_host(index, conn, *message)?,
                Action::Close { conn } => {
                    self.leaders[index].links.remove(&conn);
                    self.close_at_leader(conn);
                }
                Action::Store { op, body, .. } => self.queue_work(index, Work::Store { op, body }),
                Action::Save { save, record, .. } => self.queue_work(index, Work::Save { save, record }),
                Action::Answer { ticket: CANCEL, answer } => {
                    self.say(|| format!("JobManager {index} is to cancel the job: {answer:?}"));
                    // It is not there yet, or it is over.
                    self.cancelled |= answer.is_ok() || self.submitted;
                }
                Action::Answer { answer, .. } => {
                    if answer.is_ok() {
                        self.say(|| format!("JobManager {index} takes the job"));
                        self.submitted = true;
                    }
                }
                Action::Over { .. } => {}
                Action::Deposed { newest } => return self.deposed(index, newest),
                Action::Log(level, text) => {
                    let warn = if level == Level::Info { "" } else { "! " };
                    self.say(|| format!("JobManager {index}: {warn}{text}"));
                }
            }
        }
        let now_ns = self.net.now_ns();
        let leader = &mut self.leaders[index];
        let now_ms = leader.now_ms(now_ns);
        if let State::Leading(core) = &leader.state {
            let wait_ms = core.deadline(now_ms).saturating_sub(now_ms);
            leader.tick_ns = now_ns + (wait_ms * MS).max(MS / 10);
        }
        Ok(())
    }

    fn send_to_host(&mut self, index: usize, link: u64, message: ToTaskManager) -> Result<(), String> {
        let epoch = self.leaders[index].epoch;
        self.history.told(&self.disk, &self.reference, epoch, &message)?;
        if !matches!(message, ToTaskManager::Prepare(_) | ToTaskManager::Registered(_)) {
            self.say(|| format!("JobManager {index} says {message:?}"));
        }
        if let ToTaskManager::Cancel { attempt, .. } = message
            && !self.over
        {
            let now_ns = self.net.now_ns();
            self.stopped.entry(attempt).or_insert(now_ns);
        }
        let bytes = Envelope::new(epoch, message).encode().map_err(|error| error.to_string())?;
        if self.leaders[index].links.contains(&link) {
            self.post(link, TO_HOST, Mail::Bytes(bytes));
        }
        Ok(())
    }

    /// A newer leader exists: it says goodbye, what its store has begun ends, and it is gone.
    fn deposed(&mut self, index: usize, newest: u64) -> Result<(), String> {
        self.say(|| format!("JobManager {index} is deposed by epoch {newest}"));
        let links: Vec<u64> = self.leaders[index].links.iter().copied().collect();
        links.into_iter().for_each(|link| self.close_at_leader(link));
        self.bury_leader(index);
        Ok(())
    }

    /// It is gone; somebody starts another one.
    pub fn bury_leader(&mut self, index: usize) {
        let leader = &mut self.leaders[index];
        leader.state = State::Gone;
        leader.links.clear();
        leader.workers.clear();
        self.paused.remove(&Process::Leader(index));
        let ns = self.random.within([10, 1_000]) * MS;
        self.after(ns, Event::StartLeader);
    }

    // ---- the store ----

    fn queue_work(&mut self, index: usize, work: Work) {
        let queue = self.leaders[index].workers.entry(JOB_ID).or_default();
        queue.push_back(work);
        if queue.len() == 1 {
            let ns = self.store_ns();
            self.after(ns, Event::Work { leader: index });
        }
    }

    pub fn work(&mut self, index: usize) -> Result<(), String> {
        let leader = &mut self.leaders[index];
        let (job, epoch) = (JOB_ID, leader.epoch);
        let queue = leader.workers.entry(job).or_default();
        let Some(work) = queue.pop_front() else { return Ok(()) };
        if !queue.is_empty() {
            let ns = self.store_ns();
            self.after(ns, Event::Work { leader: index });
        }
        let input = match work {
            Work::Store { op, body } => Input::Store { job, op, done: self.carry_out(epoch, &body)? },
            Work::Save { save, record } => Input::Saved { job, save, result: self.save(&record) },
        };
        self.tell_leader(index, input)
    }

    fn save(&mut self, record: &JobRecord) -> Result<(), String> {
        let flaky = self.random.chance(self.flaky);
        let result =
            if flaky && self.random.chance(32_768) { Ok(()) } else { save(&self.disk, JOB_ID, record) };
        let found = records(&self.disk);
        let before = self.over;
        let clean = found.iter().any(|(_, record)| record.state.is_over() && record.cleaned);
        // A job whose every checkpoint is damaged says so, and keeps what may still be of use to somebody.
        let says = |record: &JobRecord| record.exceptions.iter().any(|said| said.name == "LeftoverOutput");
        let damaged =
            |record: &JobRecord| self.history.rotten && (record.state == JobState::Failed || says(record));
        self.over = clean || found.iter().any(|(_, record)| damaged(record));
        let alone = self.leaders.iter().filter(|leader| !leader.is_gone()).count() == 1;
        if clean && !before && alone {
            let left = self.disk.below(OUT).into_iter().find(|path| path.contains(tidegate_graph::PENDING));
            assert_eq!(left, None, "nothing pending is left of a job that is over and clean");
        }
        self.say(|| format!("record: {} attempt {}: {result:?}", record.state, record.attempt));
        if flaky { Err("the disk did not answer".to_owned()) } else { result }
    }

    /// Carries an operation out, more or less.
    fn carry_out(&mut self, epoch: u64, op: &StoreOp) -> Result<StoreDone, String> {
        if !self.random.chance(self.flaky) {
            let done = store::execute(&self.disk, op);
            self.say(|| format!("store, epoch {epoch}: {} → {}", words(op), answer(&done)));
            self.history.stored(&self.disk, epoch, op, &done)?;
            return Ok(done);
        }
        let choice = self.random.next();
        self.say(|| format!("store, epoch {epoch}: {} fails, kind {}", words(op), choice % 4));
        match choice % 4 {
            0 | 1 => {
                let done = store::execute(&self.disk, op);
                self.history.stored(&self.disk, epoch, op, &done)?;
            }
            2 => store::execute_partly(&self.disk, op, choice >> 8),
            _ if matches!(op, StoreOp::PutMetadata { .. }) => {
                let ns = self.random.within([1, 3_000]) * MS;
                self.after(ns, Event::Late(Box::new(op.clone())));
            }
            _ => {}
        }
        Ok(StoreDone::Failed("the store did not answer".into()))
    }

    /// Carries out an operation that its process has long given up.
    pub fn carry_out_late(&mut self, op: &StoreOp) {
        let done = store::execute(&self.disk, op);
        self.say(|| format!("store, late: {} → {}", words(op), answer(&done)));
    }

    /// What a process had under way when it died: done, half done, not done.
    pub fn leave_work_behind(&mut self, index: usize) -> Result<(), String> {
        let queues = std::mem::take(&mut self.leaders[index].workers);
        let epoch = self.leaders[index].epoch;
        for work in queues.into_values().filter_map(|mut queue| queue.pop_front()) {
            match (work, self.random.below(3)) {
                (Work::Store { body, .. }, 0) => {
                    let done = store::execute(&self.disk, &body);
                    self.history.stored(&self.disk, epoch, &body, &done)?;
                }
                (Work::Store { body, .. }, 1) => {
                    let part = self.random.next();
                    store::execute_partly(&self.disk, &body, part);
                }
                (Work::Save { record, .. }, 0) => {
                    let _ = save(&self.disk, JOB_ID, &record);
                }
                (Work::Save { record, .. }, 1) => {
                    let calls = self.random.below(SAVE_CALLS_MAX);
                    let _ = self.disk.dying(calls, || save(&self.disk, JOB_ID, &record));
                }
                _ => {}
            }
        }
        Ok(())
    }

    // ---- the person with the job ----

    /// The newest JobManager that answers.
    fn serving(&self) -> Option<usize> {
        let serves =
            |at: &usize| self.leaders[*at].leads() && !self.paused.contains_key(&Process::Leader(*at));
        (0..self.leaders.len()).rfind(serves)
    }

    pub fn cancel(&mut self) -> Result<(), String> {
        if self.cancelled {
            return Ok(());
        }
        self.after(50 * MS, Event::Cancel);
        let Some(leader) = self.serving().filter(|_| self.submitted) else { return Ok(()) };
        self.tell_leader(leader, Input::Cancel { ticket: CANCEL, job: JOB_ID })
    }

    pub fn submit(&mut self) -> Result<(), String> {
        if self.submitted {
            return Ok(());
        }
        self.after(50 * MS, Event::Client);
        let Some(leader) = self.serving() else { return Ok(()) };
        let shape = self.shape;
        let built =
            self.jobs.build(JOB, &args(&shape), shape.parallelism).map_err(|error| error.to_string())?;
        let request = JobRequest {
            job: JOB.to_owned(),
            args: args(&shape),
            parallelism: shape.parallelism,
            checkpoint_interval_ms: Some(shape.interval_ms),
            min_pause_ms: 0,
            checkpoint_timeout_ms: shape.timeout_ms,
            tolerable_failures: 3,
            retained: shape.retained,
        };
        let planned = Planned { graph: built.graph, outputs: built.outputs };
        let submission = Submission { id: JOB_ID, request, planned, objection: None };
        self.tell_leader(leader, Input::Submit { ticket: SUBMIT, submission: Box::new(submission) })
    }
}

fn words(op: &StoreOp) -> String {
    match op {
        StoreOp::PutMetadata { metadata, outputs } => {
            format!("publish {} of attempt {} (outputs: {outputs})", metadata.id, metadata.attempt)
        }
        StoreOp::Sink(tidegate_checkpoint::SinkOp::Rename { files }) => {
            format!("rename {} files", files.len())
        }
        op => {
            let mut text = format!("{op:?}");
            text.truncate(text.char_indices().nth(160).map_or(text.len(), |(at, _)| at));
            text
        }
    }
}

fn answer(done: &StoreDone) -> String {
    match done {
        StoreDone::Metadata(metadata) => format!("metadata {}", metadata.id),
        done => {
            let mut text = format!("{done:?}");
            text.truncate(text.char_indices().nth(160).map_or(text.len(), |(at, _)| at));
            text
        }
    }
}
