//! `/metrics` of the running program, as Prometheus's own tool reads it.

use crate::{
    api::{Api, password},
    folder::{Folder, flights, wait_until},
};
use infrastructure::test_servers::promtool::assert_clean;

fn scrape(api: &Api) -> String {
    let (status, text) = api.call("GET", "/metrics", "", "");
    assert_eq!(status, 200, "{text}");
    text.as_str().unwrap().to_owned()
}

#[test]
fn what_is_counted_is_told_and_promtool_finds_no_fault() {
    let folder = Folder::new();
    let api = Api::start(&folder, "service.log");
    let token = api.log_in(&password(&api.service).unwrap());
    let pulse = |id: u32, amount: &str| {
        format!(r#"{{"id":"{id}","tenant":"me","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#)
    };
    let batch = format!("[{},{},{}]", pulse(1, "1"), pulse(2, "2"), pulse(1, "1"));
    assert_eq!(api.call("POST", "/api/v1/pulses", &token, &batch).0, 202);
    assert_eq!(api.call("POST", "/api/v1/pulses", &token, &pulse(2, "3")).0, 202);
    wait_until("the conflict is refused", || {
        scrape(&api).contains("pulse_pulses_rejected_total{reason=\"conflict\"} 1\n")
    });
    let text = scrape(&api);
    for line in [
        "pulse_messages_received_total 2",
        "pulse_pulses_counted_total 2",
        "pulse_pulses_duplicate_total 1",
        "pulse_batch_size_pulses_sum 4",
        "pulse_pending_pulses 2",
        "pulse_backlog_messages{source=\"inbox\"} 0",
        "pulse_dependency_up{dependency=\"ledger\"} 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("pulse_flush_last_success_timestamp_seconds "), "it flushed at its start: {text}");
    assert!(!text.contains("tenant") && !text.contains("\"me\""), "{text}");
    assert_clean(&text);
}

#[test]
fn a_process_without_the_api_tells_them_where_that_is_asked_for() {
    let (folder, (file, _)) = (Folder::new(), flights());
    folder.succeed(&["ingest", &file]);
    let settings = [("METRICS_ADDR", "127.0.0.1:0")];
    let arguments = ["--standalone", "--until-idle", "60s", "--log-format", "json"];
    let service = folder.start("service.log", &arguments, &settings);
    let mut api = Api::of(service, "metrics can be asked for");
    let text = scrape(&api);
    assert!(text.contains("pulse_pulses_counted_total 0\n"), "{text}");
    assert_clean(&text);
    assert_eq!(api.call("GET", "/api/v1/pulses", "", "").0, 404);
    assert_eq!(api.service.terminate(), Some(0), "{}", api.service.log());
}
