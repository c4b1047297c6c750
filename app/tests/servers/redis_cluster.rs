//! A Redis Cluster whose masters are killed and hand their slots over while pulses come in.

use crate::system::{System, assert_equal, totals_of, wait_until};
use infrastructure::test_servers::redis_cluster::RedisCluster;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(3);
const SHARDS: u16 = 8;

/// `PULSE_TEST_MESSAGES=1000000` makes it the long version.
fn messages() -> String {
    std::env::var("PULSE_TEST_MESSAGES").unwrap_or_else(|_| "60000".into())
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
    let expected = system.path("expected.csv");
    let load = ["populate", "--to", "rabbitmq", "--total-messages", &messages(), "--duplicates", "5"];
    let arguments = [&load[..], &["--count-out", expected.to_str().unwrap(), "--hours", "3"]].concat();
    let mut publisher = system.spawn("publisher", &arguments, &[]);

    wait_until("some are counted", LIMIT, || counted(&cluster) > 1_000);
    for master in 1..3 {
        cluster.masters[master].kill();
        std::thread::sleep(Duration::from_millis(500));
        cluster.restart(master);
        let before = counted(&cluster);
        wait_until("counting goes on", LIMIT, || counted(&cluster) > before + 100);
    }
    assert!(publisher.process.is_running(), "masters were killed after the load: {}", publisher.log());
    let before = counted(&cluster);
    for shard in 0..SHARDS {
        let to = (cluster.owner_of(&meta(shard)) + 1) % 3;
        cluster.move_slot(&meta(shard), to, |_| {});
        // The books hold also while a shard has a new server.
        system.run(&["audit"]);
    }
    assert!(counted(&cluster) > before, "slots were moved after the load");
    assert_eq!(publisher.exit_code(), Some(0), "{}", publisher.log());
    let expected = totals_of(&expected);
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
