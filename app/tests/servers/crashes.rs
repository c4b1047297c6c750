//! Everything is killed, again and again, while pulses come in; the books must be those of a quiet day.

use crate::system::{App, System, assert_equal, totals_of, wait_until};
use std::{thread::sleep, time::Duration};

/// `PULSE_TEST_MESSAGES=1000000` makes it the long version.
fn messages() -> String {
    std::env::var("PULSE_TEST_MESSAGES").unwrap_or_else(|_| "100000".into())
}

fn worker(system: &System, name: &str) -> App {
    system.spawn(name, &["--worker"], &[])
}

fn cron(system: &System) -> App {
    system.spawn("cron", &["--cron"], &[("FLUSH_SCHEDULE", "*/2 * * * * *")])
}

#[test]
fn ten_killed_workers_five_killed_crons_and_each_server_killed_once_leave_the_books_exact() {
    let mut system = System::start();
    let expected = system.path("expected.csv");
    let load = ["populate", "--to", "rabbitmq", "--total-messages", &messages(), "--duplicates", "5"];
    system.run(&[&load[..], &["--count-out", expected.to_str().unwrap(), "--hours", "3"]].concat());

    let mut workers = [worker(&system, "left"), worker(&system, "right")];
    let mut crons = cron(&system);
    for round in 0..10 {
        sleep(Duration::from_millis(300 + 170 * (round % 4)));
        let (side, name) = if round % 2 == 0 { (0, "left") } else { (1, "right") };
        workers[side].process.kill();
        workers[side] = worker(&system, name);
        if round % 2 == 1 {
            crons.process.kill();
            crons = cron(&system);
        }
        match round {
            2 => {
                system.redis.kill();
                system.redis.restart();
            }
            5 => {
                system.postgres.kill();
                system.postgres.restart();
            }
            8 => {
                system.rabbitmq.kill();
                system.rabbitmq.restart();
            }
            _ => {}
        }
    }
    let expected = totals_of(&expected);
    let pulses: u64 = expected.values().map(|(_, pulses)| pulses).sum();
    let counted = || system.ledger().values().map(|(_, pulses)| *pulses).sum::<u64>();
    wait_until("everything is in the ledger", Duration::from_mins(5), || counted() >= pulses);
    for app in workers.iter_mut().chain([&mut crons]) {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    assert_equal(&system.drain(), &expected);
    assert_eq!(system.depth("pulses.dead"), 0);
}

#[test]
fn two_crons_at_once_bill_everything_once() {
    let system = System::start();
    let expected = system.path("expected.csv");
    let mut worker = worker(&system, "worker");
    let mut crons =
        ["first", "second"].map(|name| system.spawn(name, &["--cron"], &[("FLUSH_SCHEDULE", "* * * * * *")]));
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "100000", "--hours", "2", "--count-out"];
    system.run(&[&load[..], &[expected.to_str().unwrap()]].concat());
    wait_until("everything is taken", Duration::from_mins(1), || system.depth("pulses") == 0);
    for app in crons.iter_mut().chain([&mut worker]) {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    assert_equal(&system.drain(), &totals_of(&expected));
}
