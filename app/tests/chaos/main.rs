//! Kills everything, again and again, and checks the books after each round.
//!
//! Every round is drawn from the seed and its number, has stores of its own, and can be played again alone. What the
//! program is expected to come to is computed here, read by `psql` and plain commands, and shares no code with it.
//! `docs/chaos.md` says how to run it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a harness that cannot go on panics, and it reports"
)]

mod action;
mod archived;
mod arena;
mod books;
mod disk;
mod embedded;
mod logs;
mod place;
mod plan;
mod points;
mod proxy;
mod publisher;
mod round;
mod tally;
#[path = "../servers/totals_table.rs"]
mod totals_table;

use arena::Arena;
use clap::Parser;
use place::Place;
use points::Coverage;
use rand::RngExt;
use round::{Report, Rules};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tally::Tally;

/// Seeds that every run without one plays, before one that is new.
const SEEDS: [u64; 2] = [1, 2];
/// From so many kills on, every crash point must have killed.
const COVERED_FROM: u64 = 800;
/// Within so many rounds a broken rule must be caught.
const MUTATION_ROUNDS: u32 = 50;
const MUTATIONS: [&str; 7] = [
    "ack-first",
    "no-dedupe",
    "rename",
    "delete-before-commit",
    "no-generation-check",
    "dead-letter-unconfirmed",
    "drop-pulse",
];

#[derive(Parser)]
struct Arguments {
    /// How many rounds; without it, as many as it takes for the kills
    #[arg(long)]
    rounds: Option<u32>,
    /// The first round
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// At least so many kills, where no number of rounds is given
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// What everything is drawn from; without it some that are always the same, and a new one
    #[arg(long)]
    seed: Option<u64>,
    /// How long a round does harm
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Breaks each rule of counting in turn, until it is caught
    #[arg(long)]
    mutations: bool,
    /// Taken and not heeded, for `cargo test`
    #[arg(long, hide = true)]
    nocapture: bool,
    /// Names of tests, as `cargo test` hands them on; they choose nothing here
    #[arg(hide = true)]
    names: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let new = rand::rng().random_range(100..1_000_000);
    let mut arena = Arena::start();
    if arena.disk.is_none() {
        println!("NOT DONE: a full disk of PostgreSQL, because a small disk can only be mounted by root");
    }
    let held = if arguments.mutations {
        catch_all(&mut arena, &arguments, arguments.seed.unwrap_or(new))
    } else {
        let seeds = arguments.seed.map_or_else(|| [&SEEDS[..], &[new]].concat(), |seed| vec![seed]);
        run(&mut arena, &arguments, &seeds)
    };
    if held {
        return ExitCode::SUCCESS;
    }
    println!("logs are in {}", arena.folder.keep().display());
    ExitCode::FAILURE
}

/// Plays rounds until one is broken or it is enough; whether the books held.
fn run(arena: &mut Arena, arguments: &Arguments, seeds: &[u64]) -> bool {
    let rules = rules(arena, arguments, None);
    let (mut tally, start, mut total) = (Tally::default(), Instant::now(), 0);
    let share = arguments.kills.div_ceil(u64::try_from(seeds.len()).unwrap());
    for seed in seeds {
        println!("seed {seed}\n{}", Report::HEADER);
        let (before, mut rounds) = (tally.kills(), 0);
        while arguments.rounds.map_or(tally.kills() < before + share, |wanted| rounds < wanted) {
            let number = arguments.first + rounds;
            let before = (tally.kills(), tally.others());
            let report = if Place::of((*seed, number)) == Place::File {
                embedded::play(arena.folder.path(), (*seed, number), &rules, &mut tally)
            } else {
                round::play(arena, (*seed, number), &rules, &mut tally)
            };
            report.print(number, (tally.kills() - before.0, tally.others() - before.1));
            if !report.verdict.broken.is_empty() {
                println!("BROKEN: make chaos SEED={seed} FIRST={number} ROUNDS=1 plays it again");
                return false;
            }
            rounds += 1;
        }
        total += rounds;
    }
    println!("\n{total} rounds in {:.0} s", start.elapsed().as_secs_f64());
    tally.print();
    let coverage = Coverage::read(&rules.crash_log);
    coverage.print();
    tally.print_bound();
    let missing = coverage.missing();
    if tally.kills() >= COVERED_FROM && !missing.is_empty() {
        println!("NOT COVERED: {}", missing.join(", "));
        return false;
    }
    true
}

/// Plays rounds with each rule broken until the books are; whether all were caught.
fn catch_all(arena: &mut Arena, arguments: &Arguments, seed: u64) -> bool {
    println!("seed {seed}");
    let mut all = true;
    for mutation in MUTATIONS {
        let rules = rules(arena, arguments, Some(mutation));
        let mut tally = Tally::default();
        let caught = (0..MUTATION_ROUNDS).find_map(|number| {
            let report = round::play(arena, (seed, number), &rules, &mut tally);
            telling(&report.verdict.broken).map(|why| (number + 1, why))
        });
        all &= caught.is_some();
        match caught {
            Some((round, why)) => {
                println!("{mutation:<26} caught in round {round}, after {} kills: {why}", tally.kills());
            }
            None => println!("{mutation:<26} NOT CAUGHT in {MUTATION_ROUNDS} rounds"),
        }
    }
    all
}

/// Of what is broken the line that says most: wrong books before a program that noticed and gave up.
fn telling(broken: &[String]) -> Option<String> {
    let books = broken.iter().find(|line| !line.contains("ended"));
    let line = books.or(broken.first())?.lines().last().unwrap_or_default();
    Some(line.to_owned())
}

fn rules(arena: &Arena, arguments: &Arguments, mutation: Option<&'static str>) -> Rules {
    let crash_log = arena.folder.path().join("crash-points");
    Rules { length: arguments.length, mutation, crash_log, audit: has_audit() }
}

fn has_audit() -> bool {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_app")).args(["audit", "--help"]).output();
    help.is_ok_and(|output| output.status.success())
}
