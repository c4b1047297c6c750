//! Servers that are away for a while, and a Redis that is full.

use crate::system::{App, System, totals_of, wait_until};
use std::{thread::sleep, time::Duration};

const AWAY: Duration = Duration::from_secs(8);
const EVERY_TWO_SECONDS: [(&str, &str); 1] = [("FLUSH_SCHEDULE", "*/2 * * * * *")];

struct Running {
    system: System,
    worker: App,
    cron: App,
}

impl Running {
    fn start() -> Self {
        let system = System::start();
        let worker = system.spawn("worker", &["--worker"], &[]);
        let cron = system.spawn("cron", &["--cron"], &EVERY_TWO_SECONDS);
        Self { system, worker, cron }
    }

    fn populate(&self, seed: &str) {
        let expected = self.system.path(&format!("{seed}.csv"));
        let load =
            ["populate", "--to", "rabbitmq", "--total-messages", "5000", "--seed", seed, "--count-out"];
        self.system.run(&[&load[..], &[expected.to_str().unwrap()]].concat());
    }

    /// Nothing was refused, both still run, and the ledger holds both loads.
    fn finish(mut self, dependency_logs: &[(&str, &str)]) {
        let pulses = |seed: &str| {
            totals_of(&self.system.path(&format!("{seed}.csv")))
                .values()
                .map(|(_, pulses)| pulses)
                .sum::<u64>()
        };
        let expected = pulses("1") + pulses("2");
        let counted = || self.system.ledger().values().map(|(_, pulses)| pulses).sum::<u64>();
        wait_until("everything is in the ledger", Duration::from_mins(1), || counted() == expected);
        assert_eq!(self.system.depth("pulses.dead"), 0);
        for (name, dependency) in dependency_logs {
            let log = if *name == "worker" { self.worker.log() } else { self.cron.log() };
            let told = |what: &str| {
                log.lines().filter(|line| line.contains(what) && line.contains(dependency)).count()
            };
            assert_eq!(told("dependency is away"), 1, "{name} tells of {dependency} once: {log}");
            assert_eq!(told("dependency is back"), 1, "{name} tells of its return once: {log}");
        }
        for app in [&mut self.worker, &mut self.cron] {
            app.process.signal("TERM");
            assert_eq!(app.exit_code(), Some(0), "{}", app.log());
        }
    }
}

#[test]
fn a_redis_that_is_away_is_waited_for() {
    let mut running = Running::start();
    running.populate("1");
    running.system.redis.kill();
    running.populate("2");
    sleep(AWAY);
    running.system.redis.restart();
    running.finish(&[("worker", "redis"), ("cron", "redis")]);
}

#[test]
fn a_postgresql_that_is_away_stops_the_cron_and_not_the_worker() {
    let mut running = Running::start();
    running.populate("1");
    wait_until("the first load is taken", Duration::from_secs(30), || running.system.depth("pulses") == 0);
    running.system.postgres.kill();
    running.populate("2");
    wait_until("the second load is counted", Duration::from_secs(30), || running.system.depth("pulses") == 0);
    sleep(AWAY);
    running.system.postgres.restart();
    running.finish(&[("cron", "ledger")]);
}

#[test]
fn a_rabbitmq_that_is_away_is_waited_for() {
    let mut running = Running::start();
    running.populate("1");
    wait_until("the first load is taken", Duration::from_secs(30), || running.system.depth("pulses") == 0);
    // A quorum queue whose node is killed within about a second of its declaration is unusable for good on RabbitMQ 3.10.
    sleep(Duration::from_secs(2));
    running.system.rabbitmq.kill();
    sleep(AWAY);
    running.system.rabbitmq.restart();
    running.populate("2");
    running.finish(&[("worker", "rabbitmq")]);
}

#[test]
fn a_redis_at_its_memory_limit_is_waited_for_and_can_still_be_flushed() {
    let running = Running::start();
    running.populate("1");
    wait_until("the first load is taken", Duration::from_secs(30), || running.system.depth("pulses") == 0);
    running.system.redis.config_set("maxmemory", "1mb");
    running.populate("2");
    wait_until("the worker is held", Duration::from_secs(20), || running.worker.log().contains("is away"));
    sleep(AWAY);
    assert_eq!(running.system.depth("pulses.dead"), 0);
    running.system.redis.config_set("maxmemory", "0");
    running.finish(&[("worker", "redis")]);
}
