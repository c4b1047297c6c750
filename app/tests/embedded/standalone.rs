//! `app --standalone`: one service on one file, beside which the commands work.

use crate::folder::{Folder, flights, wait_until};

const EVERY_SECOND: (&str, &str) = ("FLUSH_SCHEDULE", "* * * * * *");

#[test]
fn what_is_ingested_beside_the_service_is_billed_by_it() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    let mut service = folder.start("service.log", &["--standalone"], &[EVERY_SECOND]);
    service.wait_for_log("ready");
    folder.succeed(&["ingest", &file]);
    wait_until("everything is billed", || folder.succeed(&["usage", "--billed", "--csv"]) == totals);
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    let last = folder.succeed(&["usage", "--billed"]);
    assert!(last.ends_with("1630 rows: 1662 pulses billed\n"), "{last}");
}

#[test]
fn what_was_not_flushed_when_the_service_died_is_made_up_for_at_its_next_start() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    let mut service = folder.start("service.log", &["--standalone"], &[]);
    service.wait_for_log("ready");
    folder.succeed(&["ingest", &file]);
    service.kill();
    let pending = folder.succeed(&["usage"]);
    assert!(pending.contains("0 pulses billed, 1662 not yet flushed"), "{pending}");
    let _service = folder.start("again.log", &["--standalone"], &[]);
    wait_until("everything is billed", || folder.succeed(&["usage", "--billed", "--csv"]) == totals);
}

#[test]
fn a_second_service_on_the_file_is_refused_with_a_clear_answer() {
    let folder = Folder::new();
    let mut first = folder.start("first.log", &["--standalone"], &[]);
    first.wait_for_log("ready");
    let mut second = folder.start("second.log", &["--standalone"], &[]);
    assert_eq!(second.exit_code(), Some(1), "{}", second.log());
    let (answer, pid) = (second.log(), first.pid().to_string());
    assert!(answer.contains("pulse.db") && answer.contains(&pid), "{answer}");
    assert!(!first.has_ended());
    let other = folder.start("other.log", &["--standalone", "--db", "other.db"], &[]);
    other.wait_for_log("ready");
    assert_eq!(first.terminate(), Some(0));
    let third = folder.start("third.log", &["--standalone"], &[]);
    third.wait_for_log("ready");
}

#[test]
fn a_service_with_nothing_to_wait_for_ends_by_itself_where_that_was_asked_for() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    folder.succeed(&["ingest", &file]);
    folder.succeed(&["--standalone", "--until-idle", "100ms"]);
    assert_eq!(folder.succeed(&["usage", "--billed", "--csv"]), totals);
}

#[test]
fn a_source_that_is_away_is_waited_for_and_its_password_is_not_logged() {
    let folder = Folder::new();
    let url = ("RABBITMQ_URL", "amqp://someone:hunter2@127.0.0.1:1/%2f");
    let mut service = folder.start("service.log", &["--standalone"], &[url, ("LOG_LEVEL", "debug")]);
    service.wait_for_log("dependency is away");
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    let log = service.log();
    assert!(log.contains("amqp://127.0.0.1:1"), "the source is named: {log}");
    assert!(!log.contains("hunter2") && !log.contains("someone"), "{log}");
}

#[test]
fn logs_are_one_json_object_a_line_where_that_is_asked_for() {
    let folder = Folder::new();
    let mut service = folder.start("service.log", &["--standalone", "--log-format", "json"], &[]);
    service.wait_for_log("ready");
    assert_eq!(service.terminate(), Some(0));
    for line in service.log().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["message"].is_string() && value["level"].is_string(), "{line}");
    }
}

#[test]
fn the_api_may_be_named_beside_standalone_of_which_it_is_a_part() {
    let folder = Folder::new();
    let mut service =
        folder.start("service.log", &["--standalone", "--api"], &[("HTTP_ADDR", "127.0.0.1:0")]);
    service.wait_for_log("listening");
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
}
