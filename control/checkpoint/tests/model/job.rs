//! A job of two tasks and its leaders on top of the store in memory, moved by numbers that a test chooses.
//!
//! The source gives rows 0, 1, 2, …; the sink writes each into exactly one file. `Simulation` owns the world, the
//! leaders (old ones may live on as zombies), their attempts and the messages under way. Always checked: no row
//! is visible twice; after a restore by the newest leader exactly the rows before the restored position are
//! visible; and what stands in `rules.rs`.

use super::rules::Rules;
use super::{Rows, Stored, World};
use tidegate_checkpoint::*;
use tidegate_graph::PendingFolder;

pub const JOB: u128 = 9;
pub const ROWS: u64 = 60;

/// What the job and its coordinators are like.
#[derive(Clone, Debug)]
pub struct Setup {
    pub rows: u64,
    /// Rows that the source gives when a checkpoint begins, besides those that the test has it give.
    pub rows_at_cut: u64,
    pub config: CheckpointConfig,
}

impl Default for Setup {
    fn default() -> Self {
        let config = CheckpointConfig {
            interval_ms: Some(100),
            timeout_ms: 5_000,
            tolerable_failures: 2,
            ..CheckpointConfig::default()
        };
        Setup { rows: ROWS, rows_at_cut: 0, config }
    }
}
const SOURCE: Task = Task { vertex: 0, subtask: 0 };
const SINK: Task = Task { vertex: 1, subtask: 0 };
const ROOT: &str = "/out";

/// A running attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    epoch: u64,
    number: u32,
    position: u64,
    /// Rows that there are.
    rows: u64,
    buffer: Vec<u64>,
    counter: u64,
    /// Files whose checkpoint is not known to be complete, with the checkpoint they were cut for.
    uncommitted: Vec<(u64, Committable)>,
    ended: bool,
}

impl Attempt {
    fn dir(&self) -> String {
        format!("{ROOT}/_pending/{}", self.folder())
    }

    fn folder(&self) -> PendingFolder {
        PendingFolder { job: JOB, epoch: self.epoch, attempt: self.number }
    }

    fn emit(&mut self, rows: u64) {
        let end = (self.position + rows).min(self.rows);
        self.buffer.extend(self.position..end);
        self.position = end;
        self.ended |= end == self.rows;
    }

    /// Takes part in a checkpoint: what both tasks answer.
    fn cut(&mut self, world: &mut World, checkpoint: u64) -> Vec<Message> {
        let rows = Rows(std::mem::take(&mut self.buffer));
        if !rows.0.is_empty() {
            let name = format!("part-0-{}.csv", self.counter);
            let file = Committable {
                pending: format!("{}/{name}", self.dir()),
                target: format!("{ROOT}/{name}"),
                len: rows.len(),
                hash: rows.hash(),
            };
            if !world.write(&file.pending, rows) {
                return vec![Message::Decline { epoch: self.epoch, attempt: self.number, checkpoint }];
            }
            self.counter += 1;
            self.uncommitted.push((checkpoint, file));
        }
        let part = |task, number: u64, committables| TaskPart {
            task,
            finished: self.ended,
            alignment_ns: 0,
            bytes: 8,
            operators: vec![OperatorPart {
                operator: 1,
                inline: number.to_le_bytes().to_vec(),
                object: None,
                groups: Vec::new(),
                committables,
                schema: 0,
            }],
        };
        let files = self.uncommitted.iter().map(|(_, file)| file.clone()).collect();
        let ack = |part| Message::Ack { epoch: self.epoch, attempt: self.number, checkpoint, part };
        vec![ack(part(SOURCE, self.position, Vec::new())), ack(part(SINK, self.counter, files))]
    }
}

/// What tasks say.
#[derive(Clone, Debug)]
pub enum Message {
    Ack { epoch: u64, attempt: u32, checkpoint: u64, part: TaskPart },
    Decline { epoch: u64, attempt: u32, checkpoint: u64 },
}

#[derive(Clone, Debug)]
pub enum State {
    Opening(Opening),
    Leading(Box<Coordinator>),
    Stopped,
}

/// One JobManager process.
#[derive(Clone, Debug)]
pub struct Leader {
    pub epoch: u64,
    pub state: State,
    pub in_flight: Option<(u64, StoreOp)>,
    pub attempt: Option<Attempt>,
    /// Its clock.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    DoneButLost,
    NotDone,
    /// A publication is not done now, but at any time from now on.
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All rows are committed.
    Finished,
    /// All rows of the newest checkpoint are.
    Canceled,
    /// Nothing usable was left, and the job said so.
    FailedByName,
}

#[derive(Clone, Debug)]
pub struct Simulation {
    setup: Setup,
    pub world: World,
    pub rules: Rules,
    pub leaders: Vec<Leader>,
    pub messages: Vec<Message>,
    /// Publications that were given up and are still on their way.
    pub late: Vec<StoreOp>,
    pub attempts: u32,
    pub end: Option<End>,
    /// The job is being cancelled; so many rows were in a completed checkpoint when that began.
    cancelled: Option<u64>,
    /// Rows in the newest checkpoint that the tasks were told of.
    pub told: u64,
    pub restores: u32,
    pub completed: u32,
    pub refused: u32,
}

impl Simulation {
    pub fn new(setup: Setup) -> Self {
        let mut simulation = Simulation {
            setup,
            world: World::default(),
            rules: Rules::default(),
            leaders: Vec::new(),
            messages: Vec::new(),
            late: Vec::new(),
            attempts: 0,
            end: None,
            cancelled: None,
            told: 0,
            restores: 0,
            completed: 0,
            refused: 0,
        };
        simulation.start_leader();
        simulation
    }

    /// A new leader; older ones go on.
    pub fn start_leader(&mut self) {
        let mut leader = Leader {
            epoch: 0,
            state: State::Opening(Opening::new(vec![JOB])),
            in_flight: None,
            attempt: None,
            now_ms: 0,
        };
        self.step_opening(&mut leader);
        self.leaders.push(leader);
    }

    /// The process of the newest leader dies in the middle of what it does.
    pub fn crash(&mut self, part: usize) {
        if let Some(leader) = self.leaders.pop()
            && let Some((_, op)) = leader.in_flight
        {
            self.world.execute_partly(op, part);
        }
    }

    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    fn step_opening(&mut self, leader: &mut Leader) {
        let State::Opening(opening) = &mut leader.state else { return };
        match opening.step() {
            OpeningStep::Op(op) => leader.in_flight = Some((0, op)),
            OpeningStep::Wait(_) => self.step_opening(leader),
            OpeningStep::Opened(leadership) => {
                leader.epoch = leadership.epoch;
                let config = self.setup.config.clone();
                let info = JobInfo {
                    job: JOB,
                    name: "job".into(),
                    args: Vec::new(),
                    parallelism: 1,
                    graph_fingerprint: 1,
                    binary_fingerprint: 1,
                    operators: Vec::new(),
                };
                let legal = leadership.legal.get(&JOB).cloned().unwrap_or_default();
                let roots = vec![ROOT.to_owned()];
                let coordinator = Coordinator::new(config, info, leader.epoch, legal, roots);
                leader.state = State::Leading(Box::new(coordinator));
                if self.cancelled.is_some() {
                    let newest = leadership.legal.get(&JOB).and_then(|legal| legal.last());
                    let rows =
                        newest.map_or(0, |newest| self.rows_of(newest.id).expect("what counts is there"));
                    self.cancelled = self.cancelled.max(Some(rows));
                }
                self.restart(leader);
            }
            OpeningStep::Failed(error) => {
                assert!(
                    matches!(error, OpeningError::Deposed { .. } | OpeningError::Store { .. }),
                    "opening failed: {error}"
                );
                leader.state = State::Stopped;
            }
        }
    }

    /// Ends the attempt and asks for the next one's restore point.
    fn restart(&mut self, leader: &mut Leader) {
        leader.attempt = None;
        self.attempts += 1;
        let attempt = self.attempts;
        self.tell(leader, Input::Stop);
        let next = if self.cancelled.is_some() { Input::End { attempt } } else { Input::Restore { attempt } };
        self.tell(leader, next);
    }

    /// Rows before the position of a checkpoint, if it is whole.
    fn rows_of(&self, id: u64) -> Option<u64> {
        let chk = self.world.chks.get(&(id, false)).and_then(|chk| chk.metadata.as_ref());
        let Some(Stored::Metadata(metadata)) = chk else { return None };
        let source = metadata.tasks.iter().find(|part| part.task == SOURCE).unwrap();
        Some(u64::from_le_bytes(source.operators[0].inline[..8].try_into().unwrap()))
    }

    /// The job is cancelled, after a crash of every leader if wanted: what completed must become visible.
    pub fn cancel(&mut self, crash: bool) {
        self.cancelled = Some(self.told);
        if !crash {
            for which in 0..self.leaders() {
                self.with_leader(which, |simulation, leader| simulation.restart(leader));
            }
            self.settle(500);
        }
        // Perhaps none of them led; then the next leader goes on cancelling.
        if self.end.is_none() {
            while self.leaders() > 0 {
                self.crash(0);
            }
            self.start_leader();
            self.settle(500);
        }
        assert!(self.end.is_some(), "no end after the job was cancelled");
    }

    /// The store answers everybody, so many times.
    fn settle(&mut self, rounds: u32) {
        for _ in 0..rounds {
            for which in 0..self.leaders() {
                if self.end.is_some() {
                    return;
                }
                self.store(which, Answer::Done);
            }
            self.pass(50);
        }
    }

    fn tell(&mut self, leader: &mut Leader, input: Input) {
        let State::Leading(coordinator) = &mut leader.state else { return };
        let actions = coordinator.handle(input, leader.now_ms);
        for action in actions {
            self.act(leader, action);
        }
    }

    fn act(&mut self, leader: &mut Leader, action: Action) {
        match action {
            Action::Store { op, body } => {
                assert!(leader.in_flight.is_none(), "one operation at a time");
                leader.in_flight = Some((op, body));
            }
            Action::Trigger { attempt, checkpoint } => {
                let running = leader.attempt.as_mut().expect("triggers reach a running attempt");
                assert_eq!(running.number, attempt);
                running.emit(self.setup.rows_at_cut);
                let said = running.cut(&mut self.world, checkpoint);
                self.messages.extend(said);
            }
            Action::Completed { attempt, checkpoint, last } => {
                self.completed += 1;
                let running = leader.attempt.as_mut().expect("the attempt that is told runs");
                assert_eq!(running.number, attempt);
                running.uncommitted.retain(|(cut, _)| *cut > checkpoint);
                self.told = self.told.max(self.rows_of(checkpoint).unwrap_or(0));
                self.rules.completed(&self.world, leader.epoch, attempt, checkpoint);
                if last {
                    leader.attempt = None;
                    self.tell(leader, Input::End { attempt });
                }
            }
            Action::Aborted { .. } | Action::Report(_) | Action::OutputsReady { .. } => {}
            Action::FailAttempt { permanent, reason, .. } => {
                assert!(!permanent, "{reason}");
                self.restart(leader);
            }
            // It was seen through before the end.
            Action::Restored { .. } | Action::RestoreFailed { .. } if self.cancelled.is_some() => {}
            Action::Restored { attempt, point } => self.restored(leader, attempt, point),
            Action::RestoreFailed { permanent: false, .. } => self.restart(leader),
            Action::RestoreFailed { reason, .. } => {
                assert!(reason.contains("can be used") || reason.contains("cannot be used"), "{reason}");
                self.end = Some(End::FailedByName);
                leader.state = State::Stopped;
            }
            Action::Ended { leftover: None } if self.cancelled.is_some() => {
                let rows = self.world.visible();
                assert_eq!(rows, (0..rows.len() as u64).collect::<Vec<_>>());
                assert!(Some(rows.len() as u64) >= self.cancelled, "{rows:?} of {:?}", self.cancelled);
                self.check_nothing_pending(leader.epoch);
                self.end = Some(End::Canceled);
                leader.state = State::Stopped;
            }
            Action::Ended { leftover: None } => {
                assert_eq!(self.world.visible(), (0..self.setup.rows).collect::<Vec<_>>());
                self.check_nothing_pending(leader.epoch);
                self.end = Some(End::Finished);
                leader.state = State::Stopped;
            }
            Action::Ended { .. } => {
                let attempt = self.attempts;
                self.tell(leader, Input::End { attempt });
            }
            Action::Deposed { newest } => {
                assert!(newest > leader.epoch);
                leader.state = State::Stopped;
            }
        }
    }

    /// What older leaders begin after the last look of a newer one nobody cleans up.
    fn check_nothing_pending(&self, epoch: u64) {
        let alone = self.leaders.is_empty();
        let left: Vec<_> = self.world.pending().filter(|(_, of)| alone || *of >= Some(epoch)).collect();
        assert!(left.is_empty(), "nothing pending is left: {left:?}");
    }

    fn restored(&mut self, leader: &mut Leader, number: u32, point: RestorePoint) {
        self.restores += 1;
        self.refused += point.refused.len() as u32;
        let state = |task: Task| {
            let metadata = point.checkpoint.as_ref()?;
            let part = metadata.tasks.iter().find(|part| part.task == task)?;
            Some(u64::from_le_bytes(part.operators[0].inline[..8].try_into().unwrap()))
        };
        let position = state(SOURCE).unwrap_or(0);
        self.rules.restored(&self.world, leader.epoch, point.checkpoint.as_deref());
        let newest = self.world.claims.keys().next_back().copied();
        if newest == Some(leader.epoch) {
            let expected: Vec<u64> = (0..position).collect();
            let id = point.checkpoint.as_ref().map(|metadata| metadata.id);
            assert_eq!(self.world.visible(), expected, "after the restore of {id:?}");
        }
        if point.checkpoint.as_ref().is_some_and(|metadata| metadata.last) {
            return self.tell(leader, Input::End { attempt: number });
        }
        let attempt = Attempt {
            epoch: leader.epoch,
            number,
            position,
            rows: self.setup.rows,
            buffer: Vec::new(),
            counter: state(SINK).unwrap_or(0),
            uncommitted: Vec::new(),
            ended: position == self.setup.rows,
        };
        self.world.make_dir(&attempt.dir());
        leader.attempt = Some(attempt);
        let (tasks, sources) = (vec![SOURCE, SINK], vec![SOURCE]);
        self.tell(leader, Input::Started { attempt: number, tasks, sources });
        self.report_end(leader);
    }

    fn report_end(&mut self, leader: &mut Leader) {
        let attempt = leader.attempt.as_ref().filter(|attempt| attempt.ended).map(|attempt| attempt.number);
        if let Some(attempt) = attempt {
            self.tell(leader, Input::EndOfData { attempt, task: SOURCE });
        }
    }

    /// The store answers a leader.
    pub fn store(&mut self, which: usize, answer: Answer) {
        self.with_leader(which, |simulation, leader| {
            let Some((op, body)) = leader.in_flight.take() else { return };
            let done = match answer {
                Answer::Done => simulation.execute(leader.epoch, body),
                Answer::DoneButLost => {
                    simulation.execute(leader.epoch, body);
                    StoreDone::Failed("the answer was lost".into())
                }
                Answer::NotDone => StoreDone::Failed("the store is down".into()),
                Answer::Late => {
                    if matches!(body, StoreOp::PutMetadata { .. }) {
                        simulation.late.push(body);
                    }
                    StoreDone::Failed("no answer".into())
                }
            };
            match &mut leader.state {
                State::Opening(opening) => {
                    opening.handle(done);
                    simulation.step_opening(leader);
                }
                State::Leading(_) => simulation.tell(leader, Input::Store { op, done }),
                State::Stopped => {}
            }
        });
    }

    /// Of a publication, the first of its two objects is written.
    pub fn half(&mut self, which: usize) {
        self.with_leader(which, |simulation, leader| {
            let Some((_, op)) = &mut leader.in_flight else { return };
            simulation.world.execute_partly(op.clone(), 0);
            if let StoreOp::PutMetadata { outputs, .. } = op {
                *outputs = false;
            }
        });
    }

    fn execute(&mut self, epoch: u64, op: StoreOp) -> StoreDone {
        let before = self.rules.before(&self.world, epoch);
        let done = self.world.execute(op.clone());
        self.rules.stored(&self.world, epoch, &op, &done);
        self.rules.untouched(&self.world, before, &op);
        done
    }

    /// A publication that was given up arrives after all. One that outlives its void mark, which goes with the old
    /// checkpoints, is beyond what the rules stand for: a directory as the store has no write of that kind.
    pub fn arrive(&mut self) {
        let Some(StoreOp::PutMetadata { metadata, outputs }) = self.late.pop() else { return };
        let chks = &self.world.chks;
        let passed = chks.keys().next_back().is_some_and(|(newest, _)| *newest > metadata.id);
        if !passed || chks.get(&(metadata.id, false)).is_some_and(|chk| chk.metadata.is_some()) {
            let epoch = metadata.epoch;
            self.execute(epoch, StoreOp::PutMetadata { metadata, outputs });
        }
    }

    pub fn emit(&mut self, which: usize, rows: u64) {
        self.with_leader(which, |simulation, leader| {
            if let Some(attempt) = &mut leader.attempt {
                attempt.emit(rows);
            }
            simulation.report_end(leader);
        });
    }

    pub fn fail(&mut self, which: usize) {
        self.with_leader(which, |simulation, leader| {
            if leader.attempt.is_some() {
                simulation.restart(leader);
            }
        });
    }

    /// One message under way reaches every leader, twice if wanted: only the right one may count it, once.
    pub fn deliver(&mut self, which: usize, twice: bool) {
        if self.messages.is_empty() {
            return;
        }
        let message = self.messages.swap_remove(which % self.messages.len());
        for _ in 0..=usize::from(twice) {
            for which in 0..self.leaders.len() {
                let input = match message.clone() {
                    Message::Ack { epoch, attempt, checkpoint, part } => {
                        Input::Acknowledge { epoch, attempt, checkpoint, part: Box::new(part) }
                    }
                    Message::Decline { epoch, attempt, checkpoint } => {
                        let reason = "its directory is gone".to_owned();
                        Input::Decline { epoch, attempt, checkpoint, task: SINK, reason }
                    }
                };
                self.with_leader(which, |simulation, leader| simulation.tell(leader, input));
            }
        }
    }

    pub fn lose_message(&mut self, which: usize) {
        if !self.messages.is_empty() {
            let which = which % self.messages.len();
            self.messages.swap_remove(which);
        }
    }

    pub fn pass(&mut self, ms: u64) {
        for which in 0..self.leaders.len() {
            self.tick(which, ms);
        }
    }

    /// Time passes for one leader.
    pub fn tick(&mut self, which: usize, ms: u64) {
        self.with_leader(which, |simulation, leader| {
            leader.now_ms += ms;
            simulation.tell(leader, Input::Tick);
        });
    }

    /// The newest published checkpoint is damaged.
    pub fn damage(&mut self, how: usize) {
        self.rules.damaged = true;
        if how % 4 == 3 {
            // What could not be read for a while can be read again.
            return self.world.chks.values_mut().for_each(|chk| chk.object_damaged = false);
        }
        let published = |stored: &Option<Stored>| matches!(stored, Some(Stored::Metadata(_)));
        let mut chks = self.world.chks.iter_mut().rev();
        let Some((_, chk)) = chks.find(|((_, aside), chk)| !aside && published(&chk.metadata)) else {
            return;
        };
        match how % 4 {
            0 => chk.metadata = Some(Stored::Damaged),
            1 => chk.object_damaged = true,
            _ => {
                chk.outputs = None;
                chk.object_damaged = true;
            }
        }
    }

    fn with_leader(&mut self, which: usize, work: impl FnOnce(&mut Self, &mut Leader)) {
        if self.leaders.is_empty() {
            return;
        }
        let which = which % self.leaders.len();
        let mut leader = self.leaders.remove(which);
        work(self, &mut leader);
        self.leaders.insert(which, leader);
        self.check();
    }

    fn check(&self) {
        let rows = self.world.visible();
        assert!(rows.windows(2).all(|pair| pair[0] != pair[1]), "visible twice: {rows:?}");
        let kept = self.rules.damaged || rows.iter().copied().take(self.told as usize).eq(0..self.told);
        assert!(kept, "{} rows were committed, and {rows:?} are visible", self.told);
    }

    /// Everything works from now on: the job must come to its end.
    pub fn heal(&mut self) {
        while self.leaders() > 0 {
            self.crash(0);
        }
        self.start_leader();
        for _ in 0..3_000 {
            if self.end.is_some() {
                return;
            }
            self.store(0, Answer::Done);
            self.deliver(0, false);
            self.emit(0, 7);
            self.pass(50);
        }
        panic!("no end after everything was healed");
    }
}
