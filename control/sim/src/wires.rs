//! Between processes: control streams, the store, and what a process does with what it is told.
//!
//! Streams have a delay each way and end by either end, a reset, or silence; on one of them nothing overtakes. Always: a
//! message is the bytes that the real protocol sends; an operation on the store happens when its time has come, whole,
//! in part or not at all, and only what really happened is in the history.

use tidegate_checkpoint::{OpeningStep, StoreDone, StoreOp};
use tidegate_jobmanager::core::{Action, Input, Level, Submission};
use tidegate_jobmanager::{JobRecord, JobRequest, JobState, Planned};
use tidegate_rpc::{Envelope, Heartbeat, ToJobManager, ToTaskManager};
use tidegate_stream::slot::SlotCommand;
use tidegate_taskmanager::agent;

use crate::cluster::{Cluster, Event, JOB, JOB_ID, MS, Process, args};
use crate::host::look_up;
use crate::leader::{Leader, State, Work, concerned, records, save};
use crate::ledger::OUT;
use crate::store;

/// What comes out of a stream.
pub enum Mail {
    /// It is open.
    Hello,
    Bytes(Vec<u8>),
    End(&'static str),
}

/// A stream between a TaskManager and a JobManager.
pub struct Link {
    pub host: usize,
    pub leader: usize,
    /// What is on its way is lost; nothing more gets through.
    pub cut: bool,
    /// Towards leader and host: when the last one arrives, and how long nothing does.
    pub last_ns: [u64; 2],
    pub stalled_ns: [u64; 2],
}

/// Whom to answer.
const SUBMIT: u64 = 1;
const CANCEL: u64 = 2;

const TO_LEADER: usize = 0;
const TO_HOST: usize = 1;

/// Who asks learns in this time that the other end is silent.
pub const KEEPALIVE_NS: u64 = 2_000 * MS;

impl Cluster {
    fn latency_ns(&mut self) -> u64 {
        let most = self.shape.control_ns;
        self.random.within([10_000, most])
    }

    /// Puts mail on a stream.
    pub fn post(&mut self, id: u64, side: usize, mail: Mail) {
        let latency_ns = self.latency_ns();
        let now_ns = self.net.now_ns();
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        let at_ns = (now_ns + latency_ns).max(link.last_ns[side]).max(link.stalled_ns[side]);
        link.last_ns[side] = at_ns;
        let event = if side == TO_LEADER {
            Event::ToLeader { leader: link.leader, link: id, mail }
        } else {
            Event::ToHost { host: link.host, link: id, mail }
        };
        self.at(at_ns, event);
    }

    /// The TaskManager's end of a stream closes.
    pub fn close_at_host(&mut self, link: u64) {
        self.post(link, TO_LEADER, Mail::End("it ended its connection"));
    }

    /// The JobManager's end of a stream closes.
    pub fn close_at_leader(&mut self, link: u64) {
        self.post(link, TO_HOST, Mail::End("it closed the connection"));
    }

    pub fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::ToLeader { leader, link, mail } => self.leader_hears(leader, link, mail),
            Event::ToHost { host, link, mail } => self.host_hears(host, link, mail),
            Event::Dial { host, life, dial } => self.dial(host, life, dial),
            Event::Beat { host, life, beat } => {
                self.beat(host, life, beat);
                Ok(())
            }
            Event::HostTick { host, life } => {
                if self.hosts[host].life != life || self.hosts[host].up.is_none() {
                    return Ok(());
                }
                self.after(100 * MS, Event::HostTick { host, life });
                self.tell_host(host, agent::Input::Tick)
            }
            Event::Fetch { host, life, slot, attempt, prepare, plan } => {
                if self.hosts[host].life != life {
                    return Ok(());
                }
                let result = look_up(&self.jobs, &self.disk, &prepare, &plan);
                self.tell_host(host, agent::Input::Fetched { slot, attempt, result })
            }
            Event::Opening { leader } => self.open(leader),
            Event::Work { leader } => self.work(leader),
            Event::Late(op) => {
                let done = store::execute(&self.disk, &op);
                self.say(|| format!("store, late: {} → {}", words(&op), answer(&done)));
                Ok(())
            }
            Event::Cut(link) => {
                self.cut(link);
                Ok(())
            }
            Event::Boot(host) => self.boot(host),
            Event::StartLeader => {
                if !self.leaders.iter().any(|leader| !leader.is_gone()) {
                    self.start_leader();
                }
                Ok(())
            }
            Event::Client => self.submit(),
            Event::Cancel => self.cancel(),
            Event::Resume(process) => self.resume(process),
            Event::Room => {
                self.say(|| "there is room on the disk".to_owned());
                self.disk.set_full(false);
                Ok(())
            }
            Event::Healthy => {
                self.flaky = 0;
                Ok(())
            }
            Event::Retire => self.retire(),
        }
    }

    /// A stream breaks: both ends hear of it, what was on its way is lost.
    pub fn cut(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        link.cut = true;
        let (host, leader) = (link.host, link.leader);
        let [soon, later] = [(); 2].map(|()| self.latency_ns());
        self.after(soon, Event::ToHost { host, link: id, mail: Mail::End("connection reset") });
        self.after(later, Event::ToLeader { leader, link: id, mail: Mail::End("connection reset") });
    }

    // ---- TaskManagers ----

    /// The agent is told something, and what it wants is done.
    pub fn tell_host(&mut self, index: usize, input: agent::Input) -> Result<(), String> {
        let now_ns = self.net.now_ns();
        let Some(host) = &mut self.hosts[index].up else { return Ok(()) };
        let now_ms = host.now_ms(now_ns);
        host.agent.handle(now_ms, input);
        self.act_host(index)
    }

    fn host_hears(&mut self, index: usize, link: u64, mail: Mail) -> Result<(), String> {
        let place = &mut self.hosts[index];
        let Some(host) = place.up.as_mut().filter(|host| host.link == Some(link)) else { return Ok(()) };
        match mail {
            Mail::Hello => self.tell_host(index, agent::Input::Connected),
            Mail::End(reason) => {
                host.link = None;
                host.dials += 1;
                self.close_at_host(link);
                self.tell_host(index, agent::Input::Disconnected(reason.to_owned()))
            }
            Mail::Bytes(bytes) => {
                let envelope =
                    Envelope::<ToTaskManager>::decode(&bytes).map_err(|error| error.to_string())?;
                let (epoch, seen) = (envelope.epoch, place.epoch_seen);
                if let ToTaskManager::Registered(registered) = &envelope.body
                    && registered.epoch >= seen
                {
                    place.epoch_seen = registered.epoch;
                }
                let now_ms = host.now_ms(self.net.now_ns());
                host.agent.handle(now_ms, agent::Input::Message(Box::new(envelope)));
                let mut actions = Vec::new();
                actions.extend(std::iter::from_fn(|| host.agent.poll_action()));
                self.note(0x70, epoch);
                let effect = |action: &agent::Action| {
                    matches!(action, agent::Action::Command(..) | agent::Action::Fetch { .. })
                };
                if epoch < seen && actions.iter().any(effect) {
                    return Err(format!(
                        "host {}: a command of epoch {epoch} takes effect after one of epoch {seen}",
                        index + 1
                    ));
                }
                actions.into_iter().try_for_each(|action| self.perform(index, action))
            }
        }
    }

    /// Does what the agent wants.
    pub fn act_host(&mut self, index: usize) -> Result<(), String> {
        while let Some(action) = self.hosts[index].up.as_mut().and_then(|host| host.agent.poll_action()) {
            self.perform(index, action)?;
        }
        Ok(())
    }

    fn perform(&mut self, index: usize, action: agent::Action) -> Result<(), String> {
        let life = self.hosts[index].life;
        let Some(host) = &mut self.hosts[index].up else { return Ok(()) };
        match action {
            agent::Action::Dial { after_ms } => {
                host.dials += 1;
                let dial = host.dials;
                self.after(after_ms * MS + 1, Event::Dial { host: index, life, dial });
            }
            agent::Action::Send(envelope) => {
                if let Some(link) = host.link {
                    self.send_to_leader(index, link, &envelope)?;
                }
            }
            agent::Action::HangUp => {
                host.dials += 1;
                if let Some(link) = host.link.take() {
                    self.close_at_host(link);
                }
            }
            agent::Action::Join(cluster) => {
                assert_eq!(cluster, crate::cluster::CLUSTER, "there is one cluster");
            }
            agent::Action::Command(slot, command) => {
                let words = matches!(command, SlotCommand::Cancel(_) | SlotCommand::Prepare(_));
                let taken = host.slots[slot as usize].mailbox.send(command.clone());
                taken.map_err(|error| format!("host {} slot {slot}: {error}", index + 1))?;
                if words {
                    let word = if matches!(command, SlotCommand::Cancel(_)) { "cancel" } else { "prepare" };
                    self.say(|| format!("host {} slot {slot}: {word}", index + 1));
                }
            }
            agent::Action::Enter { attempt, store, checkpoints } => {
                host.roots.enter(attempt.job, attempt.attempt, store, checkpoints);
            }
            agent::Action::Leave(attempt) => host.roots.remove(attempt.job, attempt.attempt),
            agent::Action::Fetch { slot, attempt, prepare, plan, .. } => {
                let most = self.shape.store_ns;
                let ns = self.random.within([10_000, most]);
                self.after(ns, Event::Fetch { host: index, life, slot, attempt, prepare, plan });
            }
            agent::Action::Heartbeats { interval_ms } => {
                host.beats += 1;
                host.beat_ns = interval_ms * MS;
                let beat = host.beats;
                if interval_ms > 0 {
                    self.after(0, Event::Beat { host: index, life, beat });
                }
            }
            agent::Action::End(agent::End::Drained) => {
                self.say(|| format!("host {}: its TaskManager has left", index + 1));
                self.stop_host(index);
            }
            agent::Action::End(end) => return Err(format!("host {}: {end}", index + 1)),
        }
        Ok(())
    }

    fn send_to_leader(
        &mut self,
        index: usize,
        link: u64,
        envelope: &Envelope<ToJobManager>,
    ) -> Result<(), String> {
        if let ToJobManager::Failed { fault, .. } = &envelope.body {
            self.say(|| format!("host {}: attempt failed: {fault}", index + 1));
        }
        let bytes = envelope.encode().map_err(|error| error.to_string())?;
        self.post(link, TO_LEADER, Mail::Bytes(bytes));
        Ok(())
    }

    fn beat(&mut self, index: usize, life: u64, beat: u64) {
        let place = &mut self.hosts[index];
        let current = place.up.as_mut().filter(|host| place.life == life && host.beats == beat);
        let Some(host) = current else { return };
        let beat_ns = host.beat_ns;
        let heartbeat = ToJobManager::Heartbeat(Box::<Heartbeat>::default());
        let envelope = Envelope::new(host.agent.epoch(), heartbeat);
        if let (Some(link), Ok(bytes)) = (host.link, envelope.encode()) {
            self.post(link, TO_LEADER, Mail::Bytes(bytes));
        }
        self.after(beat_ns, Event::Beat { host: index, life, beat });
    }

    fn dial(&mut self, index: usize, life: u64, dial: u64) -> Result<(), String> {
        let current = self.hosts[index].up.as_ref().is_some_and(|host| host.dials == dial);
        if self.hosts[index].life != life || !current {
            return Ok(());
        }
        // The address leads to the newest that serves; sometimes still to an older one.
        let serving: Vec<usize> = (0..self.leaders.len()).filter(|at| self.leaders[*at].leads()).collect();
        let leader = match serving.as_slice() {
            [] => return self.tell_host(index, agent::Input::Disconnected("connection refused".to_owned())),
            [.., older, _] if self.calm_ns.is_none() && self.random.chance(16_384) => *older,
            [.., newest] => *newest,
        };
        let id = self.links.len() as u64 + 1;
        let link = Link { host: index, leader, cut: false, last_ns: [0; 2], stalled_ns: [0; 2] };
        self.links.insert(id, link);
        if let Some(host) = &mut self.hosts[index].up {
            host.link = Some(id);
        }
        self.post(id, TO_LEADER, Mail::Hello);
        self.post(id, TO_HOST, Mail::Hello);
        if self.paused.contains_key(&Process::Leader(leader)) {
            self.after(KEEPALIVE_NS, Event::Cut(id));
        }
        Ok(())
    }

    // ---- JobManagers ----

    /// A JobManager starts; older ones go on.
    pub fn start_leader(&mut self) {
        // Nobody's wall clock is right.
        let base_ms = 1_700_000_000_000 + self.random.below(7_200_000);
        let leader = self.leaders.len();
        self.leaders.push(Leader::start(base_ms));
        self.say(|| format!("JobManager {leader} starts"));
        self.after(MS, Event::Opening { leader });
    }

    fn open(&mut self, index: usize) -> Result<(), String> {
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

    fn leader_hears(&mut self, index: usize, link: u64, mail: Mail) -> Result<(), String> {
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

    fn work(&mut self, index: usize) -> Result<(), String> {
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
        let damaged = |record: &JobRecord| self.history.rotten && record.state == JobState::Failed;
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

    fn cancel(&mut self) -> Result<(), String> {
        if self.cancelled {
            return Ok(());
        }
        self.after(50 * MS, Event::Cancel);
        let Some(leader) = self.serving().filter(|_| self.submitted) else { return Ok(()) };
        self.tell_leader(leader, Input::Cancel { ticket: CANCEL, job: JOB_ID })
    }

    fn submit(&mut self) -> Result<(), String> {
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
