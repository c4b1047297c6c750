//! Pulses over HTTP, durable when they are answered, beside a server that only answers and beside the bare insert.

use crate::{
    Work,
    client::{Client, Posters},
    in_turns,
    measure::{Clock, Figure},
    programs::{App, Bench, Helper, Stores},
    queue::Shape,
    report::{Case, Report},
};
use infrastructure::test_servers::{
    free_port, postgres::PostgresServer, rabbitmq::RabbitmqServer, wait_for_port,
};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

const CLIENTS: u32 = 64;
const BATCH: u32 = 100;
const PASSWORD: &str = "a-password-of-this-run";

/// `app --api` that somebody has logged in to.
pub(crate) struct Api {
    pub(crate) app: App,
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Api {
    pub(crate) fn start(bench: &Bench, modes: &[&str], more: Vec<(&'static str, String)>) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut settings = vec![
            ("HTTP_ADDR", address.clone()),
            ("API_USERNAME", "admin".to_owned()),
            ("API_PASSWORD", PASSWORD.to_owned()),
            ("JWT_SECRET", "0123456789abcdef".repeat(4)),
        ];
        settings.extend(more);
        let app = bench.spawn(modes, &settings);
        wait_for_port(port, Duration::from_secs(20));
        let login = format!(r#"{{"username":"admin","password":"{PASSWORD}"}}"#);
        let (status, answer) = bench.runtime.block_on(async {
            Client::connect(&address, "").await.call("POST", "/api/v1/login", login.as_bytes()).await
        });
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let token = answer["Auth"]["Token"].as_str().unwrap().to_owned();
        Self { app, address, token }
    }
}

/// The body of a request with so many pulses; each number makes others.
fn body(items: u32) -> impl Fn(u32) -> Vec<u8> + Send + Sync + Copy + 'static {
    move |number| {
        let shape = Shape { items, first: number * items, ..Shape::USUAL };
        shape.bodies(items).next().unwrap()
    }
}

/// The same rows as the inbox keeps, inserted by one connection in groups of whatever waits.
async fn grouped_insert(ledger: &str, postgres: u32, time: Duration, items: u32) -> Figure {
    const TABLE: &str =
        "drop table if exists bare_events; create table bare_events (like webhook_events including all)";
    const INSERT: &str = "\
insert into bare_events (source, event_id, body, envelope, content_hash, received_at)
select 'pulses', event_id, body, '{}', content_hash, now()
from unnest($1::text[], $2::bytea[], $3::bytea[]) as event (event_id, body, content_hash)
on conflict (source, event_id) do nothing";
    let mut connection = PgConnection::connect(ledger).await.unwrap();
    connection.execute(TABLE).await.unwrap();
    let (queue, mut calls) = mpsc::channel::<(u32, Vec<u8>, oneshot::Sender<()>)>(1_000);
    let mut senders = JoinSet::new();
    let clock = Clock::start(&[("client", std::process::id()), ("postgres", postgres)]);
    let end = Instant::now() + time;
    for client in 0..CLIENTS {
        let queue = queue.clone();
        senders.spawn(async move {
            let mut sent = 0;
            while Instant::now() < end {
                let number = client * 10_000_000 / items + sent;
                let (done, stored) = oneshot::channel();
                queue.send((number, body(items)(number), done)).await.unwrap();
                stored.await.unwrap();
                sent += 1;
            }
            sent
        });
    }
    drop(queue);
    while let Some(first) = calls.recv().await {
        let mut group = vec![first];
        while let Ok(call) = calls.try_recv() {
            group.push(call);
        }
        let ids: Vec<String> = group.iter().map(|(number, ..)| format!("id:{number:030}")).collect();
        let bodies: Vec<&[u8]> = group.iter().map(|(_, body, _)| body.as_slice()).collect();
        let hashes: Vec<&[u8]> = vec![&[7; 32]; group.len()];
        sqlx::query(INSERT).bind(&ids).bind(&bodies).bind(&hashes).execute(&mut connection).await.unwrap();
        for (.., done) in group {
            done.send(()).unwrap();
        }
    }
    let sent: u32 = senders.join_all().await.into_iter().sum();
    clock.stop(f64::from(sent) * f64::from(items))
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let time = Duration::from_secs(bench.size(2, 6).into());
    let (postgres, rabbitmq) = (PostgresServer::start(), RabbitmqServer::start());
    let echo = {
        let mut helper = Helper::start(&["echo"]);
        let address = helper.line();
        (helper, address)
    };
    let (inbox_stores, queue_stores) = (Stores::new(bench, &postgres), Stores::new(bench, &postgres));
    let settings = |stores: &Stores, source: &str| {
        let mut settings = stores.settings();
        settings.push(("PULSE_SOURCES", source.to_owned()));
        settings
    };
    let inbox = Api::start(bench, &["--api"], settings(&inbox_stores, "inbox"));
    let mut with_broker = settings(&queue_stores, "rabbitmq");
    with_broker.push(("RABBITMQ_URL", rabbitmq.url()));
    let queue = Api::start(bench, &["--api"], with_broker);

    let posted = |address: &str, token: &str, watched: &[(&'static str, u32)], items: u32| {
        let posters = Posters { address, token, clients: CLIENTS, time, items };
        bench.runtime.block_on(posters.run(watched, body(items)))
    };
    let echoed = |items| posted(&echo.1, "", &[("server", echo.0.pid())], items);
    let inserted =
        |items| bench.runtime.block_on(grouped_insert(&inbox_stores.ledger, postgres.pid(), time, items));
    let stored = |items| {
        let watched = [("api", inbox.app.process.pid()), ("postgres", postgres.pid())];
        posted(&inbox.address, &inbox.token, &watched, items)
    };
    let confirmed = |items| {
        let watched = [("api", queue.app.process.pid()), ("broker", rabbitmq.pid())];
        posted(&queue.address, &queue.token, &watched, items)
    };
    for items in [1, BATCH] {
        let named =
            |name: &str| if items == 1 { name.to_owned() } else { format!("{name}, {items} a request") };
        let (echo_name, insert_name) = (named("bare axum echo"), named("bare grouped insert"));
        let cases: Vec<Work<'_>> = vec![
            (Case::limit(&echo_name), Box::new(|| echoed(items))),
            (Case::limit(&insert_name), Box::new(|| inserted(items))),
            (Case::beside(&insert_name, &named("api with inbox"), Some(0.8)), Box::new(|| stored(items))),
            (Case::beside(&echo_name, &named("api with RabbitMQ"), Some(0.5)), Box::new(|| confirmed(items))),
        ];
        in_turns(bench, report, "http", cases);
    }
}
