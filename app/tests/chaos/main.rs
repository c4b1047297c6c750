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
mod arena;
mod books;
mod disk;
mod plan;
mod proxy;
mod publisher;
mod round;
mod tally;
#[path = "../servers/totals_table.rs"]
mod totals_table;

use arena::Arena;
use clap::Parser;
use rand::RngExt;
use round::{Report, Rules};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tally::Tally;

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
    /// What everything is drawn from; a new one without it
    #[arg(long)]
    seed: Option<u64>,
    /// How long a round does harm
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Names of tests, as `cargo test` hands them on; they choose nothing here
    #[arg(hide = true)]
    names: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("seed {seed}");
    let mut arena = Arena::start();
    if arena.disk.is_none() {
        println!("NOT DONE: a full disk of PostgreSQL, because a small disk can only be mounted by root");
    }
    let rules = Rules { length: arguments.length, settings: Vec::new(), audit: has_audit() };
    let (mut tally, start) = (Tally::default(), Instant::now());
    let (mut rounds, mut failed) = (0, Vec::new());
    let enough = |rounds: u32, tally: &Tally| match arguments.rounds {
        Some(wanted) => rounds >= wanted,
        None => tally.kills() >= arguments.kills,
    };
    println!("round   kills  others  published  counted  dead letters  copies  sent again  seconds  books");
    while !enough(rounds, &tally) {
        let number = arguments.first + rounds;
        let before = (tally.kills(), tally.others());
        let name = format!("r{number}");
        let report = round::play(&mut arena, seed_of(seed, number), &name, &rules, &mut tally);
        print(number, before, &tally, &report);
        if !report.verdict.broken.is_empty() {
            failed.push(number);
            break;
        }
        rounds += 1;
    }
    println!("\n{rounds} rounds in {:.0} s, seed {seed}", start.elapsed().as_secs_f64());
    tally.print();
    if failed.is_empty() {
        bound(tally.kills());
        ExitCode::SUCCESS
    } else {
        println!(
            "BROKEN: play it again with SEED={seed} FIRST={} ROUNDS=1; logs are in {}",
            failed[0],
            arena.folder.keep().display()
        );
        ExitCode::FAILURE
    }
}

/// Rounds are independent of each other, so that each can be played alone.
fn seed_of(seed: u64, round: u32) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(round))
}

fn print(number: u32, before: (u64, u64), tally: &Tally, report: &Report) {
    let verdict = &report.verdict;
    let (different, all) = verdict.letters;
    println!(
        "{number:>5}{:>8}{:>8}{:>11}{:>9}{different:>14}{:>8}{:>12}{:>9.1}  {}",
        tally.kills() - before.0,
        tally.others() - before.1,
        report.published,
        verdict.counted,
        all - different,
        report.sent_again,
        report.took.as_secs_f64(),
        if verdict.broken.is_empty() { "hold" } else { "BROKEN" }
    );
    for broken in &verdict.broken {
        println!("      {broken}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bound of two digits")]
fn bound(kills: u64) {
    println!(
        "0 of {kills} kills put the books out: with 95 % confidence a kill does so with a probability below {:.2} %",
        300.0 / kills as f64
    );
}

fn has_audit() -> bool {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_app")).args(["audit", "--help"]).output();
    help.is_ok_and(|output| output.status.success())
}
