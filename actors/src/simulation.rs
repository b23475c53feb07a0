//! A simulation of the seat protocol: the real `decide`, `apply` and batch plan, against an in-memory log that judges
//! by the rules of `append` and an in-memory gate that may lie.
//!
//! Everything that is chance in production is a step of a seeded schedule: which message arrives next, twice, late or
//! never; which replica crashes, freezes or has a wrong clock; when the log is away; what the gate forgets. After each
//! step the promises are checked (`check.rs`); at the end all faults heal, and whoever is left must get a seat.
//!
//! A schedule is known by its seed. `SIMULATION_SCHEDULES` and `SIMULATION_SEED` say how many are run, and from where.

#![expect(clippy::panic, reason = "a test stops where something is wrong")]

mod check;
mod client;
mod gate;
mod referee;
mod replica;
mod rules;
mod tally;
mod world;

use std::time::Instant;

use rules::Rules;
use tally::Tally;
use world::World;

/// Schedules that a test runs unless told otherwise: some seconds of an unoptimised build.
const SCHEDULES: u64 = 1_500;

/// Schedules within which a broken rule must show.
const PATIENCE: u64 = 30_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The first broken promise under some rules, within so many schedules.
fn find(rules: Rules, schedules: u64) -> Option<(u64, String)> {
    (0..schedules).find_map(|seed| World::run(seed, rules).err().map(|broken| (seed, broken)))
}

#[test]
fn no_schedule_breaks_a_promise() {
    let (first, schedules) = (setting("SIMULATION_SEED", 0), setting("SIMULATION_SCHEDULES", SCHEDULES));
    let begun = Instant::now();
    let mut tally = Tally::default();
    for seed in first..first + schedules {
        match World::run(seed, Rules::ALL) {
            Ok(of_one) => tally.add(&of_one),
            Err(broken) => panic!("SIMULATION_SEED={seed} SIMULATION_SCHEDULES=1: {broken}"),
        }
    }
    let speed = schedules as f64 / begun.elapsed().as_secs_f64();
    println!("{schedules} schedules from seed {first}, {speed:.0} a second: {tally:?}");
    // A run in which nothing went wrong has shown nothing.
    tally.require_everything();
}

#[test]
fn a_schedule_is_known_by_its_seed() {
    for seed in 0..50 {
        assert_eq!(World::run(seed, Rules::ALL), World::run(seed, Rules::ALL), "seed {seed}");
    }
}

#[test]
fn each_rule_is_needed() {
    for (name, rules) in Rules::each_broken() {
        let found = find(rules, PATIENCE);
        let Some((seed, broken)) = found else {
            panic!("without {name}, {PATIENCE} schedules broke no promise");
        };
        println!("without {name}: schedule {seed}: {broken}");
    }
}
