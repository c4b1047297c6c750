//! A quorum queue over three nodes of RabbitMQ, two of which are killed while pulses come in, one after the other.

use crate::system::{App, System, assert_equal, totals_of, wait_until};
use infrastructure::test_servers::rabbitmq::RabbitmqServer;
use std::{thread::sleep, time::Duration};

const LIMIT: Duration = Duration::from_mins(3);
/// Erlang for the queue of the workers.
const QUEUE: &str = r#"{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"pulses">>))"#;

/// `PULSE_TEST_MESSAGES=1000000` makes it the long version.
fn messages() -> String {
    std::env::var("PULSE_TEST_MESSAGES").unwrap_or_else(|_| "60000".into())
}

fn worker(system: &System, name: &str, node: &RabbitmqServer) -> App {
    system.spawn(name, &["--worker"], &[("RABBITMQ_URL", &node.url())])
}

/// What a node says of the queue: `{ok, [{members,[…]},{leader,…}]}`.
fn queue(node: &RabbitmqServer) -> String {
    node.evaluate(&format!("{QUEUE}, rabbit_quorum_queue:info(Q, [members, leader])."))
}

fn leads(asked: &RabbitmqServer, node: &RabbitmqServer) -> bool {
    let answer = queue(asked);
    answer
        .rsplit_once("{leader,")
        .is_some_and(|(_, leader)| leader.contains(&format!("pulse{}@", node.port())))
}

fn counted(system: &System) -> u64 {
    let csv = String::from_utf8(system.run(&["usage", "--csv"]).stdout).unwrap();
    csv.lines().skip(1).filter_map(|line| line.split(',').nth(5)?.parse::<u64>().ok()).sum()
}

#[test]
fn a_killed_leader_of_a_quorum_queue_over_three_nodes_loses_and_doubles_nothing() {
    let mut system = System::start();
    let (mut second, third) = (system.rabbitmq.start_beside(), system.rabbitmq.start_beside());
    // Whoever declares the queue is connected to its leader.
    system.run(&["--worker", "--until-idle", "1s"]);
    let members = queue(&third);
    assert_eq!(members.split("{leader").next().unwrap().matches("@localhost").count(), 3, "{members}");
    assert!(leads(&third, &system.rabbitmq), "{members}");

    let mut workers = [worker(&system, "second", &second), worker(&system, "third", &third)];
    let expected = system.path("expected.csv");
    let load = ["populate", "--to", "rabbitmq", "--total-messages", &messages(), "--duplicates", "5"];
    let arguments = [&load[..], &["--count-out", expected.to_str().unwrap(), "--hours", "3"]].concat();
    let mut publisher = system.spawn("publisher", &arguments, &[("RABBITMQ_URL", &third.url())]);

    wait_until("some are counted", LIMIT, || counted(&system) > 1_000);
    system.rabbitmq.kill();
    let before = counted(&system);
    wait_until("another node leads", LIMIT, || leads(&third, &second) || leads(&third, &third));
    wait_until("counting goes on with two nodes", LIMIT, || counted(&system) > before + 1_000);
    assert!(publisher.process.is_running(), "the leader was killed after the load: {}", publisher.log());
    system.rabbitmq.restart();

    // The first is back, and a worker loses the node that it is connected to.
    second.kill();
    sleep(Duration::from_secs(1));
    second.restart();
    assert_eq!(publisher.exit_code(), Some(0), "{}", publisher.log());
    let expected = totals_of(&expected);
    let pulses: u64 = expected.values().map(|(_, pulses)| *pulses).sum();
    wait_until("all are counted", LIMIT, || counted(&system) >= pulses);
    wait_until("the second worker has its node again", LIMIT, || {
        let log = workers[0].log();
        log.contains("dependency is away") && log.contains("dependency is back")
    });
    for app in &mut workers {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    assert_equal(&system.drain(), &expected);
    assert!(system.dead_letters().is_empty());
}
