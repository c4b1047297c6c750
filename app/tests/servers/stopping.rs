//! SIGTERM in the middle of a full queue.

use crate::system::{System, assert_equal, totals_of, wait_until};
use std::time::{Duration, Instant};

#[test]
fn a_worker_that_is_told_to_stop_in_a_full_queue_ends_in_time_and_loses_and_doubles_nothing() {
    let system = System::start();
    let expected = system.path("expected.csv");
    let count_out = ["--count-out", expected.to_str().unwrap()];
    system.run(&[&["populate", "--to", "rabbitmq", "--total-messages", "100000"], &count_out[..]].concat());
    for _ in 0..3 {
        let before = system.depth("pulses");
        let mut worker = system.spawn("worker", &["--worker"], &[("PULSE_DRAIN_TIMEOUT", "10s")]);
        wait_until("the worker takes messages", Duration::from_secs(20), || system.depth("pulses") < before);
        let start = Instant::now();
        worker.process.signal("TERM");
        assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
        assert!(start.elapsed() < Duration::from_secs(11));
    }
    assert_equal(&system.drain(), &totals_of(&expected));
}

#[test]
fn a_second_signal_gives_up_at_once_and_loses_and_doubles_nothing() {
    let system = System::start();
    let expected = system.path("expected.csv");
    let count_out = ["--count-out", expected.to_str().unwrap()];
    system.run(&[&["populate", "--to", "rabbitmq", "--total-messages", "5000"], &count_out[..]].concat());
    let mut worker = system.spawn("worker", &["--worker"], &[("PULSE_BATCH_LINGER", "1s")]);
    wait_until("the worker takes messages", Duration::from_secs(20), || system.depth("pulses") < 5_000);
    system.redis.pause();
    worker.process.signal("TERM");
    wait_until("the worker drains", Duration::from_secs(5), || worker.log().contains("stopping"));
    let start = Instant::now();
    worker.process.signal("TERM");
    assert_eq!(worker.exit_code(), Some(1), "{}", worker.log());
    assert!(start.elapsed() < Duration::from_secs(2));
    system.redis.resume();
    assert_equal(&system.drain(), &totals_of(&expected));
}
