//! What a pulse costs when there is ten times as much of something.

use crate::{
    in_turns,
    measure::Figure,
    programs::{App, Bench},
    queue::{Broker, Shape},
    report::{Case, Report},
};

/// What the worker and Redis take for a pulse, in microseconds of CPU.
fn cost(report: &Report, name: &str) -> Option<f64> {
    let row = report.rows().iter().find(|row| row.section == "scaling" && row.name == name)?;
    Some(row.cpu_us.iter().filter(|(process, _)| **process != "broker").map(|(_, each)| each).sum())
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let broker = Broker::start(bench);
    let pulses = bench.size(20_000, 250_000);
    let usual = Shape::USUAL;
    let variants: [(&str, Shape, u32, u32, &str); 9] = [
        ("usual", usual, pulses, 1, "8"),
        ("10x the tenants", Shape { tenants: 10_000, totals: 10_000, ..usual }, pulses, 1, "8"),
        ("10x the products", Shape { totals: 10_000, ..usual }, pulses, 1, "8"),
        ("10x the backlog", usual, 10 * pulses, 1, "8"),
        ("one tenant with 90 %", Shape { hot: 90, ..usual }, pulses, 1, "8"),
        ("1 lane", usual, pulses, 1, "1"),
        ("4 lanes", usual, pulses, 1, "4"),
        ("2 workers", usual, pulses, 2, "8"),
        ("3 workers", usual, pulses, 3, "8"),
    ];
    let cases = variants.map(|(name, shape, pulses, workers, shards)| {
        let broker = &broker;
        let work = move || {
            broker.fill(bench, shape, pulses);
            let more = [("PULSE_SHARDS", shards.to_owned())];
            let (figure, apps, _stores) = broker.workers(bench, pulses, workers, &more);
            apps.into_iter().for_each(App::end);
            figure
        };
        (Case::limit(name), Box::new(work) as Box<dyn FnMut() -> Figure + '_>)
    });
    in_turns(bench, report, "scaling", cases.into());
    let usual = cost(report, "usual").expect("it was measured");
    for (name, ..) in variants.iter().skip(1) {
        let more = cost(report, name).expect("it was measured") / usual;
        report.fact("scaling", &format!("worker and Redis, {name}"), more, "of the usual cost", Some(1.2));
    }
}
