//! Epochs and publication in every order: leaders that replace each other while the older ones go on, a store whose
//! answers are late or lost, attempts that fail.
//!
//! Coordinator, opening and committer are the real ones, and nothing is left to chance: at each step it is chosen whose
//! operation the store carries out and what its leader hears, which acknowledgement arrives, whose time passes, and when
//! another leader begins. A state is everybody's state and the store's; each is visited once. A leader that dies at some
//! point is one that is never chosen again, so each of these orders is among them, too.
//!
//! What must hold in each state stands in `model/rules.rs` and `model/job.rs`; and from each state there must be a way to
//! the end of the job, with every row visible once.

mod model;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use model::job::{Answer, End, Message, Setup, Simulation, State};
use tidegate_checkpoint::{CheckpointConfig, Stats, StoreOp};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// More states than any of these models has.
const STATES_MAX: usize = 4_000_000;
/// Longer than all pauses, so that whoever waits that long gives a checkpoint up.
const TIMEOUT_MS: u64 = 1_000_000_000;

/// How much is done, and how much goes wrong.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    leaders: usize,
    rows: u64,
    retained: usize,
    /// Operations that fail, or succeed and are not answered.
    unanswered: u32,
    /// Publications that arrive after they were given up.
    late: u32,
    /// Attempts that fail.
    failures: u32,
    /// Checkpoints that are given up for want of an acknowledgement.
    expiries: u32,
}

const NOTHING_WRONG: Bounds =
    Bounds { leaders: 1, rows: 2, retained: 1, unanswered: 0, late: 0, failures: 0, expiries: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A further leader begins.
    Lead,
    /// The store does what this leader asked for.
    Store(usize, Answer),
    /// Of a publication, the list of outputs is written.
    Half(usize),
    /// A publication that was given up arrives.
    Arrive,
    /// A message of a task arrives everywhere.
    Deliver(usize),
    /// The time comes that this leader waits for.
    Tick(usize),
    /// What runs under this leader fails.
    Fail(usize),
}

/// One state, and what may still go wrong in it.
#[derive(Clone)]
struct Node {
    simulation: Simulation,
    started: usize,
    left: Bounds,
}

impl Node {
    fn new(bounds: Bounds) -> Self {
        let config = CheckpointConfig {
            interval_ms: Some(0),
            timeout_ms: TIMEOUT_MS,
            retained: bounds.retained,
            ..CheckpointConfig::default()
        };
        let setup = Setup { rows: bounds.rows, rows_at_cut: 1, config };
        Node { simulation: Simulation::new(setup), started: 1, left: bounds }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (which, leader) in self.simulation.leaders.iter().enumerate() {
            if let Some((_, op)) = &leader.in_flight {
                actions.push(Action::Store(which, Answer::Done));
                if self.left.unanswered > 0 {
                    actions.push(Action::Store(which, Answer::DoneButLost));
                    actions.push(Action::Store(which, Answer::NotDone));
                }
                if let StoreOp::PutMetadata { outputs, .. } = op {
                    actions.extend(outputs.then_some(Action::Half(which)));
                    actions.extend((self.left.late > 0).then_some(Action::Store(which, Answer::Late)));
                }
            }
            let State::Leading(coordinator) = &leader.state else { continue };
            if let Some(at) = coordinator.deadline() {
                let expires = at.saturating_sub(leader.now_ms) > TIMEOUT_MS / 2;
                actions.extend((!expires || self.left.expiries > 0).then_some(Action::Tick(which)));
            }
            if leader.attempt.is_some() && self.left.failures > 0 {
                actions.push(Action::Fail(which));
            }
        }
        actions.extend((0..self.simulation.messages.len()).map(Action::Deliver));
        actions.extend((!self.simulation.late.is_empty()).then_some(Action::Arrive));
        actions.extend((self.started < self.left.leaders).then_some(Action::Lead));
        actions
    }

    fn act(&mut self, action: Action) {
        let simulation = &mut self.simulation;
        match action {
            Action::Lead => {
                simulation.start_leader();
                self.started += 1;
            }
            Action::Store(which, answer) => {
                match answer {
                    Answer::Done => {}
                    Answer::DoneButLost | Answer::NotDone => self.left.unanswered -= 1,
                    Answer::Late => self.left.late -= 1,
                }
                simulation.store(which, answer);
            }
            Action::Half(which) => simulation.half(which),
            Action::Arrive => simulation.arrive(),
            Action::Deliver(which) => simulation.deliver(which, false),
            Action::Tick(which) => {
                let leader = &simulation.leaders[which];
                let State::Leading(coordinator) = &leader.state else { panic!("it leads") };
                let at = coordinator.deadline().expect("it waits for it");
                let wait_ms = at.saturating_sub(leader.now_ms);
                self.left.expiries -= u32::from(wait_ms > TIMEOUT_MS / 2);
                simulation.tick(which, wait_ms);
            }
            Action::Fail(which) => {
                self.left.failures -= 1;
                simulation.fail(which);
            }
        }
        assert_ne!(simulation.end, Some(End::FailedByName), "nothing was damaged");
        // What is counted for people makes no difference.
        for leader in &mut simulation.leaders {
            if let State::Leading(coordinator) = &mut leader.state {
                coordinator.resume_stats(Stats::default());
            }
        }
    }

    fn fingerprint(&self, text: &mut String) -> u64 {
        let Simulation { world, rules, leaders, messages, late, attempts, end, told, .. } = &self.simulation;
        // In whatever order they are on the way.
        let on_the_way = messages.iter().map(|message: &Message| xxh3_64(format!("{message:?}").as_bytes()));
        let on_the_way = on_the_way.fold(0u64, u64::wrapping_add);
        text.clear();
        let state = (world, rules, leaders, on_the_way, late, attempts, end, told, self.started, self.left);
        write!(text, "{state:?}").expect("a string takes all");
        let mut hash = Xxh3::new();
        hash.update(text.as_bytes());
        hash.digest()
    }
}

/// Visits every state; gives how many there are, or the way to one that should not be.
fn explore(bounds: Bounds) -> Result<usize, String> {
    let mut known: HashMap<u64, u32> = HashMap::new();
    // How each was reached first, and all ways to it.
    let mut origin: Vec<(u32, Option<Action>)> = Vec::new();
    let mut moves: Vec<(u32, u32)> = Vec::new();
    let mut ends: Vec<u32> = Vec::new();
    let mut text = String::new();
    let start = Node::new(bounds);
    known.insert(start.fingerprint(&mut text), 0);
    origin.push((0, None));
    let mut todo = vec![(start, 0u32)];
    while let Some((node, from)) = todo.pop() {
        if node.simulation.end.is_some() {
            ends.push(from);
        }
        for action in node.actions() {
            let mut next = node.clone();
            catch_unwind(AssertUnwindSafe(|| next.act(action)))
                .map_err(|_| format!("{action:?} after {:?}", way(&origin, from)))?;
            let number = origin.len() as u32;
            let to = *known.entry(next.fingerprint(&mut text)).or_insert(number);
            moves.push((from, to));
            if to == number {
                assert!(origin.len() < STATES_MAX, "there are more than {STATES_MAX} states");
                origin.push((from, Some(action)));
                todo.push((next, to));
            }
        }
    }
    match astray(origin.len(), moves, ends) {
        None => Ok(origin.len()),
        Some(lost) => Err(format!("no way leads to the end after {:?}", way(&origin, lost))),
    }
}

fn way(origin: &[(u32, Option<Action>)], mut to: u32) -> Vec<Action> {
    let mut way = Vec::new();
    while let (from, Some(action)) = origin[to as usize] {
        way.push(action);
        to = from;
    }
    way.reverse();
    way
}

/// A state from which no end can be reached.
fn astray(states: usize, mut moves: Vec<(u32, u32)>, mut todo: Vec<u32>) -> Option<u32> {
    moves.sort_unstable_by_key(|(_, to)| *to);
    let mut home = vec![false; states];
    while let Some(to) = todo.pop() {
        if !std::mem::replace(&mut home[to as usize], true) {
            let first = moves.partition_point(|(_, other)| *other < to);
            todo.extend(moves[first..].iter().take_while(|(_, other)| *other == to).map(|(from, _)| *from));
        }
    }
    home.iter().position(|home| !home).map(|state| state as u32)
}

fn sound(bounds: Bounds, at_least: usize) {
    let states = explore(bounds).unwrap_or_else(|error| panic!("{bounds:?}: {error}"));
    println!("{states} states");
    assert!(states > at_least, "{states} states are not all there are");
}

const ALONE: Bounds = Bounds { unanswered: 2, failures: 1, expiries: 1, ..NOTHING_WRONG };
const ALONE_LATE: Bounds = Bounds { late: 1, failures: 1, expiries: 1, ..NOTHING_WRONG };
const TWO: Bounds = Bounds { leaders: 2, ..NOTHING_WRONG };
const TWO_LOST: Bounds = Bounds { unanswered: 1, ..TWO };
const TWO_LATE: Bounds = Bounds { late: 1, ..TWO };
const TWO_FAILED: Bounds = Bounds { failures: 1, ..TWO };
const TWO_KEPT: Bounds = Bounds { retained: 2, rows: 3, ..TWO };

#[test]
#[ignore = "seconds when optimised, minutes when not; `cargo xtask test --only model` runs it"]
fn one_leader_and_all_that_goes_wrong() {
    sound(ALONE, 100_000);
    sound(ALONE_LATE, 30_000);
}

#[test]
fn two_leaders() {
    sound(TWO, 10_000);
}

#[test]
#[ignore = "seconds when optimised, minutes when not; `cargo xtask test --only model` runs it"]
fn two_leaders_and_an_answer_that_is_lost() {
    sound(TWO_LOST, 300_000);
}

#[test]
#[ignore = "seconds when optimised, minutes when not; `cargo xtask test --only model` runs it"]
fn two_leaders_and_a_publication_that_is_late() {
    sound(TWO_LATE, 300_000);
}

#[test]
#[ignore = "seconds when optimised, minutes when not; `cargo xtask test --only model` runs it"]
fn two_leaders_and_an_attempt_that_fails() {
    sound(TWO_FAILED, 300_000);
}

#[test]
#[ignore = "seconds when optimised, minutes when not; `cargo xtask test --only model` runs it"]
fn two_leaders_and_more_checkpoints() {
    sound(TWO_KEPT, 40_000);
}

/// Rules that are dropped on purpose are missed here. Alone in its process: what is planted is planted for all.
#[cfg(feature = "plant")]
#[test]
#[ignore = "plants bugs; `cargo xtask test --only model` runs it by itself"]
fn planted_bugs_are_found() {
    use tidegate_plant::{Plant, plant};

    let bugs = [
        (Plant::CommitUnpublished, ALONE),
        (Plant::TakeAnyAcknowledgement, ALONE),
        (Plant::CommitUnconfirmed, TWO),
        (Plant::IgnoreSettled, TWO),
        (Plant::CompleteTooEarly, NOTHING_WRONG),
        (Plant::DeleteReferenced, TWO),
        (Plant::CommitOnce, ALONE),
        (Plant::SkipFence, TWO),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let found = bugs.map(|(bug, bounds)| {
        plant(Some(bug));
        let found = explore(bounds).is_err();
        plant(None);
        (bug, found)
    });
    let _ = std::panic::take_hook();
    assert!(found.iter().all(|(_, found)| *found), "{found:?}");
}
