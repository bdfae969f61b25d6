//! Coordinator, epochs and committer together, against crashes, zombies, lost answers and damage, in orders
//! that proptest chooses. The rules that are checked stand in `model/job.rs`.

mod model;

use model::job::{Answer, End, ROWS, Setup, Simulation};
use proptest::prelude::*;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Old leaders live on beside new ones.
    Zombies,
    /// Published checkpoints are damaged.
    Damage,
}

fn step(simulation: &mut Simulation, mode: Mode, action: u8, choice: usize) {
    match action {
        0..=119 => simulation.store(choice, Answer::Done),
        120..=124 => simulation.store(choice, Answer::DoneButLost),
        125..=127 => simulation.store(choice, Answer::NotDone),
        128..=129 => simulation.store(choice, Answer::Late),
        130..=159 => simulation.emit(choice, 1 + choice as u64 % 5),
        160..=204 => simulation.deliver(choice, choice.is_multiple_of(7)),
        205..=207 => simulation.lose_message(choice),
        208..=239 => simulation.pass(40 + choice as u64 % 100),
        240..=242 => simulation.fail(choice),
        243..=247 => {
            simulation.crash(choice);
            if simulation.leaders() == 0 {
                simulation.start_leader();
            }
        }
        248 if choice.is_multiple_of(2) => simulation.pass(6_000),
        248 => simulation.arrive(),
        _ if mode == Mode::Zombies && simulation.leaders() < 4 => simulation.start_leader(),
        254.. if mode == Mode::Damage => simulation.damage(choice),
        _ => {}
    }
}

fn run(mode: Mode, steps: &[(u8, u16)]) -> Simulation {
    let mut simulation = Simulation::new(Setup::default());
    for (action, choice) in steps {
        if simulation.end.is_some() {
            break;
        }
        step(&mut simulation, mode, *action, usize::from(*choice));
    }
    if simulation.end.is_none() {
        simulation.heal();
    }
    simulation
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_committed_exactly_once_whatever_crashes(
        steps in proptest::collection::vec((any::<u8>(), any::<u16>()), 0..600)
    ) {
        let simulation = run(Mode::Zombies, &steps);
        prop_assert_eq!(simulation.end, Some(End::Finished));
        prop_assert_eq!(simulation.world.visible(), (0..ROWS).collect::<Vec<_>>());
    }

    #[test]
    fn a_cancel_at_any_moment_keeps_every_row_of_a_completed_checkpoint(
        steps in proptest::collection::vec((any::<u8>(), any::<u16>()), 0..400),
        crash in any::<bool>(),
    ) {
        let mut simulation = Simulation::new(Setup::default());
        for (action, choice) in steps {
            if simulation.end.is_some() {
                return Ok(());
            }
            step(&mut simulation, Mode::Zombies, action, usize::from(choice));
        }
        simulation.cancel(crash);
    }

    #[test]
    fn damaged_checkpoints_are_passed_over_and_their_output_is_taken_back(
        steps in proptest::collection::vec((any::<u8>(), any::<u16>()), 0..600)
    ) {
        let simulation = run(Mode::Damage, &steps);
        if simulation.end == Some(End::Finished) {
            prop_assert_eq!(simulation.world.visible(), (0..ROWS).collect::<Vec<_>>());
        }
    }
}

/// The random runs reach what they are meant to reach.
#[test]
fn the_runs_do_something() {
    let mut seed = 12345u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let (mut completed, mut restores, mut refused, mut finished) = (0, 0, 0, 0);
    for mode in [Mode::Zombies, Mode::Damage] {
        for _ in 0..100 {
            let steps: Vec<(u8, u16)> = (0..500).map(|_| (next() as u8, next() as u16)).collect();
            let simulation = run(mode, &steps);
            completed += simulation.completed;
            restores += simulation.restores;
            refused += simulation.refused;
            finished += u32::from(simulation.end == Some(End::Finished));
        }
    }
    println!("{completed} completed, {restores} restores, {refused} refused, {finished} finished");
    assert!(completed > 400 && restores > 400 && refused > 15 && finished > 120);
}
