//! Every figure of the program beside its physical limit, in one run: `make bench`, or `make bench QUICK=1`.
//!
//! Starts servers of its own. The cases of a section run in turns, so that what else the machine does touches all of them
//! alike; medians are printed. `ONLY=queue,http` runs these sections alone.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures, and how far it is, are what it is for"
)]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on panics")]

mod children;
mod client;
mod embedded;
mod flush;
mod http;
mod kafka;
mod latency;
mod measure;
mod plot;
mod programs;
mod queue;
mod report;
mod scaling;
mod start;
mod stream;

use measure::Figure;
use programs::Bench;
use report::{Case, Report};
use std::time::Instant;

type Section = fn(&Bench, &mut Report);
/// One way to do the work of a section, measured once by each call.
type Work<'a> = (Case, Box<dyn FnMut() -> Figure + 'a>);

/// Measures the cases in turns, as often as the run asks for.
fn in_turns(bench: &Bench, report: &mut Report, section: &'static str, mut cases: Vec<Work<'_>>) {
    let mut figures: Vec<Vec<Figure>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=bench.rounds() {
        for ((case, work), figures) in cases.iter_mut().zip(&mut figures) {
            let figure = work();
            eprintln!("{section}, round {round}, {}: {:.0}/s", case.name, figure.per_second());
            figures.push(figure);
        }
    }
    report.add(section, cases.into_iter().map(|(case, _)| case).zip(figures).collect());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((name, arguments)) = arguments.split_first()
        && children::run(name, arguments)
    {
        return;
    }
    let bench = Bench::new();
    let mut report = Report::default();
    let sections: [(&str, Section); 9] = [
        ("queue", queue::measure),
        ("stream", stream::measure),
        ("kafka", kafka::measure),
        ("flush", flush::measure),
        ("http", http::measure),
        ("embedded", embedded::measure),
        ("scaling", scaling::measure),
        ("latency", latency::measure),
        ("start", start::measure),
    ];
    for (name, measure) in sections {
        if bench.wants(name) {
            let start = Instant::now();
            measure(&bench, &mut report);
            eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        }
    }
    println!("{}", report.markdown());
    let folder = report.write();
    println!("\nwritten to {}: bench.json, bench.md, bench.svg", folder.display());
}
