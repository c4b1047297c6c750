//! The pages by their routes: who gets in, and what everybody gets.

use super::super::{Credentials, HttpLimits, HttpPorts, HttpSettings, router::router};
use super::*;
use crate::metrics::{MetricSources, Metrics};
use application::{
    dead_letters::NamedPlace,
    decode::Decoder,
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    overview::GatherOverview,
    ports::{
        MockApiKeys, MockBacklog, MockInbox, MockLetterPlace, MockLetterRun, MockPulseIntake,
        MockRefusedPulses, MockUsageQueries, StoredLetter,
    },
    report_usage::PendingUsage,
};
use axum::{
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::Method,
};
use domain::{ShardCount, Timestamp};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tower::ServiceExt;

const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

/// Books that are away, one message that waits, one letter.
fn state() -> HttpState {
    let accumulator = Arc::new(MemoryAccumulator::new(Duration::from_hours(48)));
    let mut queries = MockUsageQueries::new();
    let away = || application::ports::PortError::transient("ask the books", "connection refused");
    queries.expect_flushes().returning(move |_| Err(away()));
    queries.expect_span().returning(move |_| Err(away()));
    let queries = Arc::new(queries);
    let mut backlog = MockBacklog::new();
    backlog.expect_waiting().returning(|| Ok(1));
    let mut refused = MockRefusedPulses::new();
    refused.expect_count().returning(|| Ok(1));
    let gather = GatherOverview {
        accumulator: "memory".to_owned(),
        ledger: "books".to_owned(),
        shards: Arc::clone(&accumulator) as _,
        shard_count: ShardCount::ONE,
        generations: Arc::clone(&accumulator) as _,
        queries: Arc::clone(&queries) as _,
        backlogs: vec![("queue".to_owned(), Arc::new(backlog))],
        refused: vec![("letters".to_owned(), Arc::new(refused))],
        part_limit: Duration::from_secs(2),
    };
    let settings = HttpSettings {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        credentials: Credentials {
            username: "operator".to_owned(),
            password: "correct horse".to_owned().into(),
            jwt_secret: "0123456789abcdef0123456789abcdef".to_owned().into(),
        },
        webhook_secret: None,
        limits: HttpLimits::default(),
    };
    let ports = HttpPorts {
        decoder: Decoder::default(),
        intake: Arc::new(MockPulseIntake::new()),
        queries,
        pending: Arc::new(PendingUsage {
            registry: Arc::new(MemoryLedger::new()),
            shards: Arc::clone(&accumulator) as _,
            generations: accumulator,
        }),
        inbox: Arc::new(MockInbox::new()),
        letters: vec![NamedPlace {
            name: "rabbitmq",
            title: "rabbitmq pulses.dead".to_owned(),
            place: Arc::new(letters()),
        }],
        keys: Arc::new(MockApiKeys::new()),
        metrics: Arc::new(Metrics::new(MetricSources {
            overview: gather.clone(),
            accounts: Arc::new(MemoryAccumulator::new(Duration::from_hours(48))),
            tally: None,
            flushes: None,
            audits: None,
            dependencies: Vec::new(),
            redis_at_risk: None,
            version: "1",
            now: || NOW,
        })),
        dashboard: Dashboard::new(gather, None),
        now: || NOW,
    };
    HttpState::new(settings, ports).unwrap()
}

/// One letter, which may be discarded and not sent back.
fn letters() -> MockLetterPlace {
    let mut place = MockLetterPlace::new();
    place.expect_open().returning(|| {
        let mut run = MockLetterRun::new();
        let letter = StoredLetter {
            id: "one".to_owned(),
            reason: "missing_field".to_owned(),
            detail: "no tenant".to_owned(),
            body: b"<script>".to_vec(),
            ..StoredLetter::default()
        };
        let mut left = vec![(7, letter)];
        run.expect_next().returning(move || Ok(std::mem::take(&mut left)));
        run.expect_close().returning(|| Ok(()));
        run.expect_remove().withf(|numbers| numbers == [7]).returning(|_| Ok(()));
        run.expect_send_back()
            .returning(|_| Err(application::ports::PortError::transient("send back", "connection refused")));
        Ok(Box::new(run))
    });
    place
}

struct Browser {
    app: Router,
    cookie: Option<String>,
}

struct Page {
    status: StatusCode,
    location: Option<String>,
    policy: String,
    text: String,
}

impl Browser {
    fn new() -> Self {
        Self { app: router(state()), cookie: None }
    }

    async fn ask(&mut self, method: Method, path: &str, form: &str) -> Page {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let response =
            self.app.clone().oneshot(request.body(Body::from(form.to_owned())).unwrap()).await.unwrap();
        let text = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        if let Some(cookie) = text(header::SET_COOKIE) {
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
            let pair = cookie.split(';').next().unwrap().to_owned();
            self.cookie = Some(pair).filter(|pair| !pair.ends_with('='));
        }
        let (location, policy) = (text(header::LOCATION), text(header::CONTENT_SECURITY_POLICY));
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Page { status, location, policy: policy.unwrap(), text: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn get(&mut self, path: &str) -> Page {
        self.ask(Method::GET, path, "").await
    }

    async fn log_in(&mut self, password: &str) -> Page {
        self.ask(Method::POST, "/login", &format!("username=operator&password={password}")).await
    }
}

#[tokio::test]
async fn nobody_sees_a_page_without_a_session() {
    let mut browser = Browser::new();
    for path in ["/", "/usage", "/usage.csv", "/dead-letters", "/dead-letters/confirm?action=discard"] {
        let page = browser.get(path).await;
        assert!(page.status.is_redirection() && page.location.as_deref() == Some("/login"), "{path}");
    }
    assert_eq!(browser.get("/live").await.status, StatusCode::UNAUTHORIZED);
    browser.cookie = Some("pulse_session=a.b.c".to_owned());
    assert!(browser.get("/").await.status.is_redirection());
    let page = browser.log_in("wrong").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.text.contains("the username or the password is wrong") && page.text.contains("operator"));
    assert!(browser.get("/").await.status.is_redirection());
}

#[tokio::test]
async fn a_session_shows_every_page_until_it_is_left() {
    let mut browser = Browser::new();
    let page = browser.log_in("correct+horse").await;
    assert_eq!((page.status, page.location.as_deref()), (StatusCode::SEE_OTHER, Some("/")));
    let page = browser.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("connection refused") && page.text.contains("queue: 1"), "{}", page.text);
    assert!(
        page.policy.starts_with("default-src 'self';") && !page.policy.contains("unsafe"),
        "{}",
        page.policy
    );
    assert!(!page.text.contains("<script>") && !page.text.contains("style="), "nothing is inline");
    let live = browser.get("/live").await.text;
    assert!(live.starts_with("<dl class=\"tiles\">"), "{live}");
    let page = browser.get("/usage").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.text.contains("Usage cannot be shown.") && page.text.contains("connection refused"));
    assert_eq!(browser.get("/usage?from=x").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let page = browser.get("/dead-letters").await;
    assert!(page.text.contains("missing_field") && page.text.contains("&lt;script&gt;"), "{}", page.text);
    let page = browser.ask(Method::POST, "/logout", "").await;
    assert_eq!((browser.cookie.clone(), page.location.as_deref()), (None, Some("/login")));
    assert!(browser.get("/").await.status.is_redirection());
}

#[tokio::test]
async fn what_the_pages_load_is_there_for_everybody() {
    let mut browser = Browser::new();
    let login = browser.get("/login").await;
    assert_eq!(login.status, StatusCode::OK);
    let mut found = 0;
    for quoted in login.text.split('"').filter(|text| text.starts_with("/assets/")) {
        assert_eq!(browser.get(quoted).await.status, StatusCode::OK, "{quoted}");
        found += 1;
    }
    assert_eq!(found, 3, "{}", login.text);
}

#[tokio::test]
async fn a_letter_is_discarded_only_after_the_question() {
    let mut browser = Browser::new();
    let form = "action=discard&place=rabbitmq&id=one&reason=";
    let page = browser.ask(Method::POST, "/dead-letters", form).await;
    assert_eq!(page.location.as_deref(), Some("/login"), "nobody is logged in");
    browser.log_in("correct+horse").await;
    let question = browser.get("/dead-letters/confirm?action=discard&place=rabbitmq&id=one").await;
    assert!(question.text.contains("Discard 1 letter?"), "{}", question.text);
    assert!(question.text.contains(r#"<form method="post" action="/dead-letters">"#), "{}", question.text);
    assert!(!question.text.contains("<script>") && !question.text.contains("style="), "nothing is inline");
    let looked_at = question.text.split(r#"name="looked_at" value=""#).nth(1).unwrap();
    let looked_at = looked_at.split('"').next().unwrap();
    let unasked = browser.ask(Method::POST, "/dead-letters", form).await;
    let told = browser.get(unasked.location.as_deref().unwrap()).await;
    assert!(told.text.contains("0 letters discarded."), "nothing that nobody was asked about: {}", told.text);
    let form = &format!("{form}&looked_at={looked_at}");
    let done = browser.ask(Method::POST, "/dead-letters", form).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    let told = browser.get(done.location.as_deref().unwrap()).await;
    assert!(told.text.contains("1 letter discarded."), "{}", told.text);
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_nonsense_leads_back() {
    let mut browser = Browser::new();
    browser.log_in("correct+horse").await;
    let form = "action=replay&place=rabbitmq&reason=missing_field&looked_at=9";
    let failed = browser.ask(Method::POST, "/dead-letters", form).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(failed.text.contains("none is lost") && failed.text.contains("connection refused"));
    for nonsense in ["action=burn&place=rabbitmq", "action=replay&place=nowhere"] {
        let page = browser.get(&format!("/dead-letters/confirm?{nonsense}")).await;
        assert_eq!(page.location.as_deref(), Some("/dead-letters"), "{nonsense}");
        let page = browser.ask(Method::POST, "/dead-letters", nonsense).await;
        assert_eq!(page.location.as_deref(), Some("/dead-letters"), "{nonsense}");
    }
}

#[test]
fn what_changes_something_comes_from_a_page_of_ours() {
    let request = |method: Method, headers: &[(&str, &str)]| {
        let request =
            Request::builder().method(method).uri("/dead-letters").header("host", "pulse.example:8080");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        is_ours(&request.body(Body::empty()).unwrap())
    };
    assert!(request(Method::GET, &[("sec-fetch-site", "cross-site")]));
    assert!(request(Method::POST, &[("sec-fetch-site", "same-origin")]));
    assert!(!request(Method::POST, &[("sec-fetch-site", "same-site")]), "another port, or a neighbour");
    assert!(request(Method::POST, &[("origin", "https://pulse.example:8080")]));
    assert!(!request(Method::POST, &[("origin", "https://pulse.example:3000")]));
    assert!(!request(Method::POST, &[("origin", "null")]));
    assert!(request(Method::POST, &[]), "no browser");
}
