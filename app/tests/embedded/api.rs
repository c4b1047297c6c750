//! The API of `app --standalone`: the whole path of a pulse over HTTP.

use crate::folder::{Folder, Running, wait_until};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

/// A service and where it listens.
pub(crate) struct Api {
    pub(crate) service: Running,
    pub(crate) addr: String,
}

impl Api {
    pub(crate) fn start(folder: &Folder, name: &str) -> Self {
        Self::start_with(folder, name, &[])
    }

    pub(crate) fn start_with(folder: &Folder, name: &str, settings: &[(&str, &str)]) -> Self {
        let service = folder.start(name, &["--standalone", "--log-format", "json"], settings);
        Self::of(service, "listening")
    }

    /// What a service listens on that says so in its log with these words.
    pub(crate) fn of(service: Running, words: &str) -> Self {
        let words = format!("\"{words}\"");
        service.wait_for_log(&words);
        let log = service.log();
        let line = log.lines().find(|line| line.contains(&words)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        let addr = line["addr"].as_str().or(line["fields"]["addr"].as_str()).unwrap().to_owned();
        Self { service, addr }
    }

    /// The status and the body of an answer, as JSON where it is.
    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
    }

    pub(crate) fn log_in(&self, password: &str) -> String {
        let body = json!({"username": "admin", "password": password}).to_string();
        let (status, answer) = self.call("POST", "/api/v1/login", "", &body);
        assert_eq!(status, 200, "{answer}");
        answer["Auth"]["Token"].as_str().unwrap().to_owned()
    }
}

/// The password that the service printed, if it made one.
pub(crate) fn password(service: &Running) -> Option<String> {
    let out = service.out();
    let rest = out.split("with the password ").nth(1)?;
    rest.split(' ').next().map(str::to_owned)
}

fn pulse(id: usize, amount: &str) -> String {
    json!({"id": id.to_string(), "tenant": "t", "product_sku": "s", "used_amount": amount, "use_unity": "KB",
           "occurred_at": "2026-01-10T12:00:00Z"})
    .to_string()
}

#[test]
fn a_pulse_is_posted_seen_pending_billed_and_asked_for() {
    let folder = Folder::new();
    let mut api = Api::start(&folder, "service.log");
    let token = api.log_in(&password(&api.service).unwrap());
    let (status, verdicts) = api.call("POST", "/api/v1/pulses", &token, &pulse(1, "307.000000001"));
    assert_eq!((status, &verdicts["accepted"]), (202, &json!(1)), "{verdicts}");
    assert_eq!(api.call("POST", "/api/v1/pulses", &token, &pulse(1, "307.000000001")).0, 202);
    let totals = |query: &str| api.call("GET", &format!("/api/v1/pulses{query}"), &token, "").1;
    wait_until("it is seen as pending", || {
        totals("?pending=true")["data"][0]["used_amount"] == "307.000000001"
    });
    let pending = totals("?pending=true");
    assert_eq!((&pending["total"], &pending["data"][0]["status"]), (&json!(1), &json!("pending")));
    assert_eq!(totals("")["total"], 0);
    folder.succeed(&["flush"]);
    let billed = totals("?tenant=t&pending=true");
    assert_eq!((&billed["total"], &billed["data"][0]["status"]), (&json!(1), &json!("billed")));
    assert_eq!(billed["data"][0]["pulse_count"], 1);
    let path = format!("/api/v1/pulses/{}", billed["data"][0]["id"]);
    assert_eq!(api.call("GET", &path, &token, ""), (200, billed["data"][0].clone()));
    let usage = "/api/v1/usage?window=day&group_by=tenant&timezone=Europe/Berlin";
    let (status, sums) = api.call("GET", usage, &token, "");
    assert_eq!(status, 200, "{sums}");
    assert_eq!(sums["data"][0]["window_start"], "2026-01-10T00:00:00+01:00");
    assert_eq!(
        (&sums["data"][0]["used_amount"], &sums["data"][0]["tenant"]),
        (&json!("307.000000001"), &json!("t"))
    );
    assert!(sums["complete_until"].is_string());
    let (status, ready) = api.call("GET", "/readyz", "", "");
    assert_eq!((status, &ready["ready"]), (200, &json!(true)), "{ready}");
    assert_eq!(api.service.terminate(), Some(0), "{}", api.service.log());
}

#[test]
fn the_password_is_made_once_and_keys_work_until_they_are_revoked() {
    let folder = Folder::new();
    let mut first = Api::start(&folder, "first.log");
    let password = password(&first.service).unwrap();
    first.log_in(&password);
    assert_eq!(first.service.terminate(), Some(0));
    let again = Api::start(&folder, "again.log");
    assert_eq!(self::password(&again.service), None);
    let token = again.log_in(&password);
    let wish = r#"{"name":"meter","scope":"ingest"}"#;
    let (status, made) = again.call("POST", "/api/v1/keys", &token, wish);
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();
    assert_eq!(again.call("POST", "/api/v1/pulses", key, &pulse(1, "1")).0, 202);
    assert_eq!(again.call("GET", "/api/v1/pulses", key, "").0, 403);
    let path = format!("/api/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(again.call("DELETE", &path, &token, "").0, 204);
    assert_eq!(again.call("POST", "/api/v1/pulses", key, &pulse(1, "1")).0, 401);
    assert!(!again.service.log().contains(&password) && !again.service.log().contains(key));
}

#[test]
fn webhooks_of_payments_are_counted_once() {
    let folder = Folder::new();
    let api = Api::start(&folder, "service.log");
    let payment = |amount: &str| {
        format!(
            r#"{{"event_id":"e1","type":"invoice","amount":"{amount}","currency":"NGN","occurred_at":"2026-01-10T12:00:00Z"}}"#
        )
    };
    for (amount, status) in [("5000", 200), ("5000", 200), ("6000", 409), ("abc", 422)] {
        let (answered, answer) = api.call("POST", "/webhooks/payments", "", &payment(amount));
        assert_eq!(answered, status, "{answer}");
    }
    let token = api.log_in(&password(&api.service).unwrap());
    wait_until("it is done", || {
        api.call("GET", "/api/v1/webhooks?status=done", &token, "").1["data"][0]["event_id"] == "e1"
    });
    let billed = folder.billed();
    assert!(billed.contains("payments,invoice,NGN,2026-01-10T12:00:00Z,5000,1"), "{billed}");
    // The mapping of this name makes the same pulse of it: anything else would be refused as a conflict.
    folder.write("payments.ndjson", payment("5000"));
    let again = folder.run_with(&["ingest", "payments.ndjson"], &[("PULSE_FORMAT", "payment")], "");
    assert!(
        again.out.starts_with("1 lines read, 0 pulses counted, 1 duplicates, 0 rejected"),
        "{}",
        again.out
    );
}

#[test]
fn what_was_answered_for_survives_a_kill_and_repetitions_count_once() {
    let folder = Folder::new();
    // What the killed service had claimed waits for this long.
    let lease = [("INBOX_LEASE", "1s")];
    let mut api = Api::start_with(&folder, "service.log", &lease);
    let token = api.log_in(&password(&api.service).unwrap());
    let post = |api: &Api, poster: usize| {
        let batch: Vec<String> = (0..10).map(|item| pulse(poster * 10 + item, "0.1")).collect();
        api.call("POST", "/api/v1/pulses", &token, &format!("[{}]", batch.join(","))).0
    };
    thread::scope(|scope| {
        for poster in 0..40 {
            let (api, post) = (&api, &post);
            scope.spawn(move || assert_eq!(post(api, poster), 202));
        }
    });
    api.service.kill();
    let again = Api::start_with(&folder, "again.log", &lease);
    // What was counted before the kill is billed at the next start already: only the books have one row.
    wait_until("everything that was answered for is counted", || folder.billed().contains(",40,400"));
    for poster in 0..40 {
        assert_eq!(post(&again, poster), 202);
    }
    let waits = |status| !folder.succeed(&["webhooks", "list", "--json", "--status", status]).is_empty();
    wait_until("all repetitions are read", || !waits("received") && !waits("processing"));
    assert!(folder.billed().contains(",40,400"), "and none of them counted");
}

#[test]
fn made_up_pulses_go_the_way_of_all_others_and_add_up() {
    let folder = Folder::new();
    let mut api = Api::start(&folder, "service.log");
    let token = api.log_in(&password(&api.service).unwrap());
    let path = "/api/v1/pulses/populate";
    let (status, run) =
        api.call("POST", path, &token, r#"{"total_messages":2500,"workers_number":3,"buffer_size":100}"#);
    assert_eq!(status, 202, "{run}");
    let path = format!("{path}/{}", run["id"].as_str().unwrap());
    let progress = || api.call("GET", &path, &token, "").1;
    wait_until("it is done", || progress()["state"] == "done");
    assert_eq!(progress()["published"], 2_500);
    let counted = || {
        let usage = folder.succeed(&["usage", "--csv"]);
        let counts = usage.lines().skip(1).map(|row| row.split(',').nth(5).unwrap().parse::<u64>().unwrap());
        counts.sum::<u64>()
    };
    wait_until("all are counted", || counted() == 2_500);
    let long = api.call("POST", "/api/v1/pulses/populate", &token, r#"{"total_messages":1000000}"#);
    assert_eq!(long.0, 202);
    assert_eq!(api.service.terminate(), Some(0), "a run does not outlive the service: {}", api.service.log());
    assert!(api.service.log().contains("the service was stopped"));
}

#[test]
fn bursts_of_made_up_webhooks_come_to_what_was_written_down() {
    let folder = Folder::new();
    let secret = ("WEBHOOK_SECRET", "shared with the sender");
    let api = Api::start_with(&folder, "service.log", &[secret]);
    let url = format!("http://{}", api.addr);
    let mut arguments =
        vec!["populate", "--to", "webhook", "--url", &url, "--total-messages", "2000", "--seed", "7"];
    arguments.extend(["--duplicates", "10", "--workers-number", "3", "--buffer-size", "200", "--hours", "3"]);
    let unsigned = folder.run_with(&arguments, &[], "");
    assert_eq!(unsigned.code, Some(1), "{unsigned:?}");
    assert!(unsigned.errors.contains("401"), "{unsigned:?}");
    arguments.extend(["--count-out", "expected.csv"]);
    for _ in 0..2 {
        let ran = folder.run_with(&arguments, &[secret], "");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.starts_with("2000 messages published and confirmed"), "{ran:?}");
    }
    let expected = std::fs::read_to_string(folder.path("expected.csv")).unwrap();
    let pulses = |csv: &str| {
        let counts = csv.lines().skip(1).map(|row| row.split(',').nth(5).unwrap().parse::<u64>().unwrap());
        counts.sum::<u64>()
    };
    assert!((1_700..1_900).contains(&pulses(&expected)), "{expected}");
    wait_until("all are counted", || pulses(&folder.succeed(&["usage", "--csv"])) == pulses(&expected));
    assert_eq!(folder.billed(), expected);
}
