//! The router over mocks: what is answered, to whom, and in which form.

mod letters;
mod populate;
mod readiness;
mod traces;

use super::{
    Credentials, Dashboard, HttpLimits, HttpPorts, HttpSettings, HttpState,
    docs::operations,
    router::{api, router},
};
use crate::metrics::{MetricSources, Metrics};
use application::{
    api_keys::{NewKey, RANDOM_BYTES},
    dead_letters::NamedPlace,
    decode::Decoder,
    overview::GatherOverview,
    ports::{
        Dealt, InboxDepth, InboxStatus, LedgerPage, MockAccumulatorShards, MockApiKeys, MockGenerationStore,
        MockInbox, MockPulseIntake, MockShardRegistry, MockUsageQueries, PortError, Registration, Scope,
        ShardState, Stored, WindowSum,
    },
    report_usage::PendingUsage,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{Method, Request, StatusCode, header},
    response::Response,
};
use domain::{AccumulatorId, HourWindow, Shard, ShardCount, Timestamp, UsageTotal, UsageUnit};
use flate2::{Compression, write::GzEncoder};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{fmt::Write as _, io::Write as _, net::SocketAddr, sync::Arc, time::Duration};
use tower::ServiceExt;

const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);
const PULSE: &str = r#"{"id":"a","tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
const PAYMENT: &str = r#"{"event_id":"e1","type":"invoice","amount":"5000","currency":"NGN","occurred_at":"2026-01-10T12:00:00Z"}"#;

fn key(scope: Scope) -> NewKey {
    let byte = if scope == Scope::Read { 1 } else { 2 };
    NewKey::new(&[byte; RANDOM_BYTES], "test", scope, NOW).unwrap()
}

/// Ports that answer with nothing, and know a key of each scope.
fn ports() -> HttpPorts {
    let mut keys = MockApiKeys::new();
    keys.expect_find()
        .returning(|id| Ok(Scope::ALL.map(|scope| key(scope).key).into_iter().find(|key| key.id == id)));
    keys.expect_list().returning(|| Ok(Vec::new()));
    keys.expect_revoke().returning(|_, _| Ok(false));
    let mut queries = MockUsageQueries::new();
    queries.expect_page().returning(|_, _, _| Ok(LedgerPage { rows: Vec::new(), total: 0 }));
    queries.expect_row().returning(|_| Ok(None));
    queries.expect_span().returning(|_| Ok(None));
    queries.expect_sums().returning(|_, _, _, _| Ok(Vec::new()));
    let mut registry = MockShardRegistry::new();
    registry.expect_registration().returning(|| Ok(None));
    let mut inbox = MockInbox::new();
    inbox.expect_store().returning(|_| Ok(vec![Stored::New]));
    inbox.expect_discard().returning(|id| {
        Ok(match id {
            1 => Dealt::Done,
            2 => Dealt::NotFailed(InboxStatus::Done),
            _ => Dealt::Unknown,
        })
    });
    let mut intake = MockPulseIntake::new();
    intake.expect_take().returning(|_| Ok(()));
    HttpPorts {
        decoder: Decoder::default(),
        intake: Arc::new(intake),
        queries: Arc::new(queries),
        pending: Arc::new(PendingUsage {
            registry: Arc::new(registry),
            shards: Arc::new(MockAccumulatorShards::new()),
            generations: Arc::new(MockGenerationStore::new()),
        }),
        inbox: Arc::new(inbox),
        letters: vec![NamedPlace {
            name: "rabbitmq",
            title: String::new(),
            place: Arc::new(letters::place()),
        }],
        keys: Arc::new(keys),
        metrics: metrics(),
        dashboard: Dashboard::new(overview(), None),
        now: || NOW,
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(MetricSources {
        overview: overview(),
        accounts: Arc::new(application::fakes::accumulator::MemoryAccumulator::new(Duration::from_hours(48))),
        tally: None,
        flushes: None,
        audits: None,
        dependencies: Vec::new(),
        redis_at_risk: None,
        version: "1",
        now: || NOW,
    }))
}

/// Of one shard that was not made.
fn overview() -> GatherOverview {
    let mut shards = MockAccumulatorShards::new();
    shards.expect_inspect().returning(|_| Ok(None));
    let mut queries = MockUsageQueries::new();
    queries.expect_flushes().returning(|_| Ok(Vec::new()));
    GatherOverview {
        accumulator: "accumulator".to_owned(),
        ledger: "ledger".to_owned(),
        shards: Arc::new(shards),
        shard_count: ShardCount::ONE,
        generations: Arc::new(MockGenerationStore::new()),
        queries: Arc::new(queries),
        backlogs: Vec::new(),
        refused: Vec::new(),
        part_limit: Duration::from_secs(2),
    }
}

fn state(ports: HttpPorts, limits: HttpLimits) -> HttpState {
    HttpState::new(settings(limits), ports).unwrap()
}

fn settings(limits: HttpLimits) -> HttpSettings {
    let credentials = Credentials {
        username: "admin".into(),
        password: "secret".into(),
        jwt_secret: "a secret of thirty-two bytes ....".into(),
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    HttpSettings { addr, credentials, webhook_secret: Some("shared".into()), limits }
}

fn service() -> Router {
    router(state(ports(), HttpLimits::default()))
}

fn request(method: &str, path: &str, token: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap())
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(body.into()).unwrap()
}

async fn answer(service: &Router, request: Request<Body>) -> Response {
    service.clone().oneshot(request).await.unwrap()
}

async fn value(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes)))
}

/// The status, after a look at the form of an error.
async fn status(service: &Router, request: Request<Body>) -> StatusCode {
    let response = answer(service, request).await;
    let status = response.status();
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let problem = value(response).await;
        assert_eq!(problem["status"], status.as_u16());
        assert!(problem["detail"].is_string() && problem["code"].is_string(), "{problem}");
    }
    status
}

async fn token(service: &Router) -> String {
    let body = r#"{"username":"admin","password":"secret"}"#;
    let answer = value(answer(service, request("POST", "/api/v1/login", None, body)).await).await;
    assert_eq!(answer["Auth"]["ExpiresAt"], NOW.seconds() + 14_400);
    answer["Auth"]["Token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_that_is_not_public_asks_who_it_is_and_what_he_may() {
    let (_, document) = api(&state(ports(), HttpLimits::default())).split_for_parts();
    let document = serde_json::to_value(&document).unwrap();
    let (service, mut guarded, mut open) = (service(), 0, Vec::new());
    for (path, method, operation) in operations(&document) {
        let concrete = path.replace("{id}", "1").replace("{source}", "payments");
        let Some(needed) = operation["security"][0]["bearer"][0].as_str() else {
            open.push(path.to_owned());
            continue;
        };
        guarded += 1;
        let at = |token: Option<&str>| request(method, &concrete, token, Body::empty());
        assert_eq!(status(&service, at(None)).await, StatusCode::UNAUTHORIZED, "{method} {path}");
        for wrong in ["nonsense", "a.b.c", &format!("pk_{}_{}", "0".repeat(16), "0".repeat(64))] {
            assert_eq!(status(&service, at(Some(wrong))).await, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
        for scope in Scope::ALL.into_iter().filter(|scope| scope.word() != needed) {
            let text = key(scope).text;
            assert_eq!(status(&service, at(Some(&text))).await, StatusCode::FORBIDDEN, "{method} {path}");
        }
    }
    open.sort();
    assert_eq!(open, ["/api/v1/login", "/healthz", "/metrics", "/readyz", "/webhooks/{source}"]);
    assert!(guarded >= 14, "{guarded}");
}

#[tokio::test]
async fn who_may_gets_an_answer() {
    let service = service();
    let (user, ingest, read) = (token(&service).await, key(Scope::Ingest).text, key(Scope::Read).text);
    for (method, path, token, body, wanted) in [
        ("POST", "/api/v1/pulses", &ingest, PULSE, 202),
        ("POST", "/api/v1/pulses", &user, PULSE, 202),
        ("POST", "/api/v1/pulses/populate", &ingest, r#"{"total_messages":1}"#, 202),
        ("GET", "/api/v1/pulses/populate/none", &ingest, "", 404),
        ("GET", "/api/v1/pulses/populate", &ingest, "", 405),
        ("GET", "/api/v1/pulses", &read, "", 200),
        ("GET", "/api/v1/pulses?page=2&limit=1000&pending=true&from=2026-01-01", &user, "", 200),
        ("GET", "/api/v1/pulses?page=0", &read, "", 422),
        ("GET", "/api/v1/pulses?limit=1001", &read, "", 422),
        ("GET", "/api/v1/pulses?limit=-1", &read, "", 400),
        ("GET", "/api/v1/pulses?limt=1", &read, "", 400),
        ("GET", "/api/v1/pulses?from=2026-01-01T00:30:00Z", &read, "", 422),
        ("GET", "/api/v1/pulses?tenant=", &read, "", 422),
        ("GET", "/api/v1/pulses/7", &read, "", 404),
        ("GET", "/api/v1/pulses/seven", &read, "", 400),
        ("GET", "/api/v1/usage?window=month&group_by=tenant,product_sku,use_unity", &read, "", 200),
        ("GET", "/api/v1/usage?window=year", &read, "", 400),
        ("GET", "/api/v1/usage?group_by=hour", &read, "", 422),
        ("GET", "/api/v1/usage?timezone=Mars", &read, "", 422),
        ("GET", "/api/v1/usage?timezone=Asia/Kolkata&from=2026-01-01&to=2026-01-02", &read, "", 422),
        ("GET", "/api/v1/usage?window=hour&from=2020-01-01&to=2026-01-02", &read, "", 200),
        ("GET", "/api/v1/keys", &user, "", 200),
        ("POST", "/api/v1/keys", &user, r#"{"name":"x","scope":"all"}"#, 422),
        ("POST", "/api/v1/keys", &user, r#"{"name":"x"}"#, 422),
        ("POST", "/api/v1/keys", &user, "{", 400),
        ("DELETE", "/api/v1/keys/x", &user, "", 404),
        ("PUT", "/api/v1/keys", &user, "", 405),
        ("POST", "/api/v1/webhooks/1/discard", &user, "", 200),
        ("POST", "/api/v1/webhooks/2/discard", &user, "", 409),
        ("POST", "/api/v1/webhooks/3/discard", &user, "", 404),
        ("GET", "/nowhere", &user, "", 404),
    ] {
        let status = status(&service, request(method, path, Some(token), body)).await;
        assert_eq!(status.as_u16(), wanted, "{method} {path}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_many_attempts_are_held_back() {
    let service = service();
    let attempt = |body: &'static str| status(&service, request("POST", "/api/v1/login", None, body));
    assert_eq!(attempt(r#"{"username":"admin","password":"x"}"#).await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt(r#"{"username":"root","password":"secret"}"#).await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt("{").await, StatusCode::BAD_REQUEST);
    let mut refused = 0;
    for _ in 0..12 {
        let answer =
            answer(&service, request("POST", "/api/v1/login", None, r#"{"username":"a","password":"b"}"#))
                .await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers().contains_key(header::RETRY_AFTER));
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
}

#[tokio::test]
async fn pulses_are_judged_one_by_one() {
    let service = service();
    let token = key(Scope::Ingest).text;
    let post = async |body: String| {
        let response = answer(&service, request("POST", "/api/v1/pulses", Some(&token), body)).await;
        (response.status().as_u16(), value(response).await)
    };
    let (status, verdicts) = post(format!(r#"[{PULSE},{{"tenant":"t"}}]"#)).await;
    assert_eq!((status, &verdicts["accepted"], &verdicts["rejected"]), (202, &json!(1), &json!(1)));
    assert_eq!(verdicts["items"][0], json!({"index": 0, "status": "accepted"}));
    assert_eq!(
        (&verdicts["items"][1]["status"], &verdicts["items"][1]["reason"]),
        (&json!("rejected"), &json!("missing_field"))
    );
    let (status, problem) = post(PULSE.replace(":1,", r#":"abc","#)).await;
    assert_eq!((status, &problem["field"]), (422, &json!("used_amount")));
    let (status, problem) = post(r#"[{"tenant":"t"}]"#.to_owned()).await;
    assert_eq!((status, &problem["items"][0]["reason"]), (422, &json!("missing_field")));
    assert_eq!(post("{".to_owned()).await.0, 400);
    assert_eq!(post(String::new()).await.0, 400);
    assert_eq!(post(format!("[{}]", vec![PULSE; 1_001].join(","))).await.0, 413);
}

#[tokio::test]
async fn bodies_are_unpacked_within_their_limit() {
    let limits = HttpLimits { body_max: 2_000, ..HttpLimits::default() };
    let service = router(state(ports(), limits));
    let token = key(Scope::Ingest).text;
    let post = async |body: Vec<u8>, name: &'static str, encoding: &'static str| {
        let mut request = request("POST", "/api/v1/pulses", Some(&token), body);
        request.headers_mut().insert(name, encoding.parse().unwrap());
        status(&service, request).await.as_u16()
    };
    let packed = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(post(packed(PULSE), "content-encoding", "gzip").await, 202);
    assert_eq!(post(packed(&" ".repeat(1_000_000)), "content-encoding", "gzip").await, 413);
    assert_eq!(post(PULSE.into(), "content-encoding", "gzip").await, 400);
    assert_eq!(post(PULSE.into(), "content-encoding", "br").await, 415);
    assert_eq!(post(PULSE.into(), "content-type", "text/plain").await, 415);
    assert_eq!(post(vec![b' '; 2_001], "content-encoding", "identity").await, 413);
    assert_eq!(post(PULSE.into(), "idempotency-key", "").await, 400);
}

#[tokio::test]
async fn what_cannot_be_taken_now_may_come_again() {
    let mut intake = MockPulseIntake::new();
    intake.expect_take().returning(|_| Err(PortError::transient("store", "away")));
    let away = router(state(HttpPorts { intake: Arc::new(intake), ..ports() }, HttpLimits::default()));
    let full = router(state(ports(), HttpLimits { ingests_max: 0, ..HttpLimits::default() }));
    let token = key(Scope::Ingest).text;
    for service in [away, full] {
        let answer = answer(&service, request("POST", "/api/v1/pulses", Some(&token), PULSE)).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }
    let slow = HttpLimits { timeout: Duration::from_millis(20), ..HttpLimits::default() };
    let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let slow = router(state(ports(), slow));
    assert_eq!(
        status(&slow, request("POST", "/api/v1/pulses", Some(&token), never)).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

fn signature(body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(b"shared").unwrap().chain_update(body);
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[tokio::test]
async fn webhooks_are_taken_with_the_right_signature_only() {
    let service = service();
    let send = async |body: &str, signature: Option<String>| {
        let mut request = request("POST", "/webhooks/payments", None, body.to_owned());
        if let Some(signature) = signature {
            request.headers_mut().insert("x-webhook-signature", signature.parse().unwrap());
        }
        let response = answer(&service, request).await;
        (response.status().as_u16(), value(response).await)
    };
    assert_eq!(send(PAYMENT, Some(signature(PAYMENT))).await, (200, json!({"ok": true})));
    assert_eq!(send(PAYMENT, None).await.0, 401);
    assert_eq!(send(PAYMENT, Some(signature("other"))).await.0, 401);
    assert_eq!(send(PAYMENT, Some("sha256=\"".to_owned())).await.0, 401);
    for (from, to, field) in [
        ("\"5000\"", "\"abc\"", "amount"),
        ("\"5000\"", "\"0\"", "amount"),
        ("\"5000\"", "5000", "amount"),
        (",\"occurred_at\":\"2026-01-10T12:00:00Z\"", "", "occurred_at"),
        ("2026-01-10T12:00:00Z", "yesterday", "occurred_at"),
        ("\"NGN\"", "\"\"", "currency"),
        ("\"invoice\"", "null", "type"),
        ("\"e1\"", "7", "event_id"),
    ] {
        let body = PAYMENT.replace(from, to);
        let (status, problem) = send(&body, Some(signature(&body))).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{body}: {problem}");
    }
    assert_eq!(send("{", Some(signature("{"))).await.0, 400);
    let elsewhere = request("POST", "/webhooks/other", None, PAYMENT);
    assert_eq!(status(&service, elsewhere).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_event_with_other_content_is_a_conflict() {
    let mut inbox = MockInbox::new();
    inbox.expect_store().returning(|events| {
        assert_eq!(events[0].original.as_deref(), Some(PAYMENT.as_bytes()));
        let pulse: Value = serde_json::from_slice(&events[0].body).unwrap();
        assert_eq!((&pulse["tenant"], &pulse["used_amount"]), (&json!("payments"), &json!("5000")));
        Ok(vec![Stored::Conflict])
    });
    let unsigned = HttpSettings { webhook_secret: None, ..settings(HttpLimits::default()) };
    let service = router(HttpState::new(unsigned, HttpPorts { inbox: Arc::new(inbox), ..ports() }).unwrap());
    let answer = status(&service, request("POST", "/webhooks/payments", None, PAYMENT)).await;
    assert_eq!(answer, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_document_and_its_page_need_nothing_from_elsewhere() {
    let service = service();
    let document = value(answer(&service, request("GET", "/openapi.json", None, "")).await).await;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
    let page = answer(&service, request("GET", "/docs", None, "")).await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = to_bytes(page.into_body(), 1 << 20).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(page.contains("/api/v1/usage") && !page.contains("http://") && !page.contains("https://"));
}

#[tokio::test]
async fn sums_as_a_table_have_one_line_of_names_and_one_a_sum() {
    let mut queries = MockUsageQueries::new();
    queries.expect_span().returning(|_| Ok(Some((HourWindow::from_number(0), HourWindow::from_number(1)))));
    queries.expect_flushes().returning(|_| Ok(Vec::new()));
    queries.expect_sums().returning(|_, _, _, _| {
        let use_unity = UsageUnit::new("KB").unwrap();
        let total = UsageTotal { pulses: 7, ..UsageTotal::default() };
        Ok(vec![WindowSum { window: 0, tenant: None, product_sku: None, use_unity, total }])
    });
    let service = router(state(HttpPorts { queries: Arc::new(queries), ..ports() }, HttpLimits::default()));
    let mut wanted = request("GET", "/api/v1/usage?window=day", Some(&key(Scope::Read).text), Body::empty());
    wanted.headers_mut().insert(header::ACCEPT, "text/csv".parse().unwrap());
    let table = answer(&service, wanted).await;
    assert_eq!(table.status(), StatusCode::OK);
    let table = to_bytes(table.into_body(), 1 << 20).await.unwrap();
    let table = String::from_utf8(table.to_vec()).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "window_start,window_end,use_unity,used_amount,pulse_count");
    assert_eq!(lines[1..], ["1970-01-01T00:00:00Z,1970-01-02T00:00:00Z,KB,0,7"]);
}
