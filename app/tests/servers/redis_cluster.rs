//! A Redis Cluster whose masters are killed and hand their slots over while pulses come in.

use crate::system::{App, System, Totals, assert_equal, totals_of, wait_until};
use infrastructure::test_servers::redis_cluster::RedisCluster;
use std::{path::PathBuf, time::Duration};

const LIMIT: Duration = Duration::from_mins(3);
const SHARDS: u16 = 8;

/// Of each portion of load: `PULSE_TEST_MESSAGES=50000` makes it the long version.
fn messages() -> String {
    std::env::var("PULSE_TEST_MESSAGES").unwrap_or_else(|_| "5000".into())
}

/// Load of which each portion comes in while something happens to the servers.
#[derive(Default)]
struct Load {
    portions: Vec<(App, PathBuf)>,
}

impl Load {
    /// Starts a portion and returns when some of it are counted.
    fn send(&mut self, system: &System, cluster: &RedisCluster) {
        let name = format!("portion-{}", self.portions.len());
        let expected = system.path(&format!("{name}.csv"));
        // A day of its own, so that no two portions share a total.
        let day = format!("2026-01-{:02}", self.portions.len() + 1);
        let load = ["populate", "--to", "rabbitmq", "--total-messages", &messages(), "--duplicates", "5"];
        let totals = ["--start", &day, "--hours", "3", "--count-out", expected.to_str().unwrap()];
        let arguments = [&load[..], &totals[..]].concat();
        let before = counted(cluster);
        self.portions.push((system.spawn(&name, &arguments, &[]), expected));
        wait_until("some are counted", LIMIT, || counted(cluster) > before + 100);
    }

    /// Waits until all is published, and says what must come out.
    fn finish(self) -> Totals {
        let mut totals = Totals::new();
        for (mut publisher, expected) in self.portions {
            assert_eq!(publisher.exit_code(), Some(0), "{}", publisher.log());
            totals.extend(totals_of(&expected));
        }
        totals
    }
}

fn meta(shard: u16) -> String {
    format!("pulse:{{{shard}}}:meta")
}

fn counted(cluster: &RedisCluster) -> u64 {
    let of = |shard| -> u64 {
        let server = &cluster.masters[cluster.owner_of(&meta(shard))];
        server.command::<Option<u64>>(&["HGET", &meta(shard), "counted"]).unwrap_or_default()
    };
    (0..SHARDS).map(of).sum()
}

#[test]
fn masters_that_are_killed_and_slots_that_move_lose_and_double_nothing() {
    let mut cluster = RedisCluster::start(3);
    let system = System::start_on(cluster.url());
    system.run(&["--worker", "--until-idle", "1s"]);
    let mut processes = [
        system.spawn("worker", &["--worker"], &[]),
        system.spawn("cron", &["--cron"], &[("FLUSH_SCHEDULE", "* * * * * *")]),
    ];
    let mut load = Load::default();
    for master in 1..3 {
        load.send(&system, &cluster);
        cluster.masters[master].kill();
        std::thread::sleep(Duration::from_millis(500));
        cluster.restart(master);
    }
    for shard in 0..SHARDS {
        load.send(&system, &cluster);
        let to = (cluster.owner_of(&meta(shard)) + 1) % 3;
        cluster.move_slot(&meta(shard), to, |_| {});
        // The books hold also while a shard has a new server.
        system.run(&["audit"]);
    }
    let expected = load.finish();
    let pulses: u64 = expected.values().map(|(_, pulses)| *pulses).sum();
    wait_until("all are counted", LIMIT, || counted(&cluster) >= pulses);
    for app in &mut processes {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    assert!(processes[0].log().contains("dependency is back"), "{}", processes[0].log());
    assert_equal(&system.drain(), &expected);
    assert!(system.dead_letters().is_empty());
    system.run(&["audit"]);
}
