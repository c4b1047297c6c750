//! What the ledger asks of its server, and what it says when it does not get it.

use super::{ACCUMULATOR, connect, parts, rows, sealed, settings};
use application::{
    contract::ledger::{self, FreshBooks},
    ports::{PortError, ShardRegistry, UsageFilter, UsageLedger, UsageReader},
};
use domain::{AccumulatorId, HourWindow, ShardCount};
use futures_util::{StreamExt, TryStreamExt, future};
use infrastructure::{
    postgres::{PostgresLedger, PostgresSettings},
    test_servers::postgres::PostgresServer,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::net::Ipv4Addr;
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// A ledger with its schema and a registered accumulator.
async fn ready(url: &str) -> PostgresLedger {
    let ledger = connect(url).await;
    ledger.migrate().await.unwrap();
    ledger.register(ACCUMULATOR, ShardCount::ONE).await.unwrap();
    ledger
}

fn assert_permanent<T>(result: Result<T, PortError>, part: &str) {
    let Err(error) = result else { panic!("it is refused: {part}") };
    assert!(!error.is_transient() && error.to_string().contains(part), "{error}");
}

#[tokio::test]
async fn a_server_that_may_lose_books_is_refused_unless_allowed() {
    let server = PostgresServer::start_with(&["fsync=off"]);
    assert_permanent(PostgresLedger::connect(&settings(&server.url())).await, "set `fsync = on`");
    let allowed = PostgresSettings { allow_unsafe_durability: true, ..settings(&server.url()) };
    PostgresLedger::connect(&allowed).await.unwrap().migrate().await.unwrap();
}

#[tokio::test]
async fn a_server_that_becomes_unsafe_is_refused_from_then_on() {
    let server = PostgresServer::start();
    let ledger = ready(&server.url()).await;
    let all = rows(10, 1);
    ledger.write(&sealed(1, &all), parts(&all)).await.unwrap();
    run(&server.url(), "alter system set full_page_writes = off").await;
    run(&server.url(), "select pg_reload_conf()").await;
    let refusal = loop {
        // The signal to reload takes a moment to arrive.
        match ledger.check().await {
            Err(error) => break error,
            Ok(()) => tokio::task::yield_now().await,
        }
    };
    assert!(
        !refusal.is_transient() && refusal.to_string().contains("set `full_page_writes = on`"),
        "{refusal}"
    );
    // It arrives at each connection by itself.
    for generation in 2..1_000 {
        let result = ledger.write(&sealed(generation, &all), parts(&all)).await;
        if result.is_err() {
            return assert_permanent(result, "full_page_writes");
        }
    }
    panic!("an unsafe server is still written to");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_not_refused() {
    let mut server = PostgresServer::start();
    server.kill();
    let ledger = connect(&server.url()).await;
    assert!(ledger.check().await.unwrap_err().is_transient());
    assert!(ledger.migrate().await.unwrap_err().is_transient());
    assert!(ledger.registration().await.unwrap_err().is_transient());
    server.restart();
    ledger.migrate().await.unwrap();
    assert_eq!(ledger.registration().await.unwrap(), None);
}

#[tokio::test]
async fn wrong_settings_are_permanent_and_keep_the_secret() {
    let server = PostgresServer::start();
    let port = server.port();
    let at = |authority: &str, database: &str| {
        settings(&format!("postgres://{authority}@127.0.0.1:{port}/{database}"))
    };
    assert_permanent(PostgresLedger::connect(&at("postgres", "nowhere")).await, "nowhere");
    assert_permanent(PostgresLedger::connect(&at("nobody", "postgres")).await, "nobody");
    let unreadable = settings("postgres://postgres:hunter2@127.0.0.1:port/postgres");
    let error = PostgresLedger::connect(&unreadable).await.unwrap_err();
    assert!(
        !error.is_transient() && !format!("{error} {error:?} {unreadable:?}").contains("hunter2"),
        "{error:?}"
    );
    assert_permanent(connect(&server.url()).await.registration().await, "accumulators");
}

#[tokio::test]
async fn processes_that_start_together_make_the_schema_once() {
    let server = PostgresServer::start();
    let url = server.url();
    let ledgers = future::join_all((0..6).map(|_| connect(&url))).await;
    let migrations = ledgers.iter().map(PostgresLedger::migrate);
    for migration in future::join_all(migrations).await {
        migration.unwrap();
    }
    ledgers[0].migrate().await.unwrap();
    assert_eq!(ledgers[1].registration().await.unwrap(), None);
}

#[tokio::test]
async fn an_encoding_that_cannot_hold_every_name_is_refused() {
    let server = PostgresServer::start();
    for (encoding, fits) in [("LATIN1", false), ("SQL_ASCII", true)] {
        let name = encoding.to_lowercase();
        run(&server.url(), &format!("create database {name} encoding '{encoding}' template template0")).await;
        match PostgresLedger::connect(&settings(&server.url_of(&name))).await {
            Ok(_) => assert!(fits, "{encoding}"),
            refused => assert_permanent(refused, "encoding 'UTF8'"),
        }
    }
}

#[tokio::test]
async fn keys_are_ordered_by_their_bytes_in_every_language() {
    struct Norwegian(PostgresServer);
    impl FreshBooks for Norwegian {
        type Ledger = PostgresLedger;
        async fn open(&self) -> PostgresLedger {
            connect(&self.0.url_of("norsk")).await
        }
    }
    let books = Norwegian(PostgresServer::start());
    let create =
        "create database norsk template template0 encoding 'UTF8' locale_provider icu icu_locale 'nb-NO'";
    run(&books.0.url(), create).await;
    books.open().await.migrate().await.unwrap();
    ledger::totals_come_in_the_order_of_their_keys(&books).await;
}

#[tokio::test]
async fn commits_are_durable_whatever_the_role_prefers() {
    let server = PostgresServer::start();
    let ledger = ready(&server.url()).await;
    run(&server.url(), "alter role postgres set synchronous_commit = off").await;
    let check = "create function check_commit() returns trigger language plpgsql as $$ begin
            if current_setting('synchronous_commit') <> 'on' then raise 'it would not wait for the disk'; end if;
            return new;
        end $$;
        create trigger check_commit before insert on flushes for each row execute function check_commit()";
    run(&server.url(), check).await;
    let all = rows(10, 1);
    drop(ledger);
    connect(&server.url()).await.write(&sealed(1, &all), parts(&all)).await.unwrap();
}

#[tokio::test]
async fn an_hour_before_all_calendars_is_named() {
    let server = PostgresServer::start();
    let ledger = ready(&server.url()).await;
    let mut all = rows(2, 1);
    // The first hour that PostgreSQL holds, and the last one that we hold.
    all[0].key.hour = HourWindow::from_number(-58_574_112);
    all[1].key.hour = HourWindow::from_number(i32::MAX);
    ledger.write(&sealed(1, &all), parts(&all)).await.unwrap();
    let booked = ledger.usage(&UsageFilter::default()).await.unwrap().rows.try_concat().await.unwrap();
    assert_eq!(booked, all);
    all[0].key.hour = HourWindow::from_number(-58_574_113);
    assert_permanent(ledger.write(&sealed(2, &all), parts(&all)).await, "hour -58574113 is before 4714 BC");
}

#[tokio::test]
async fn an_accumulator_that_was_given_up_writes_nothing_more() {
    let server = PostgresServer::start();
    let ledger = ready(&server.url()).await;
    run(&server.url(), "update accumulators set retired_at = now()").await;
    let all = rows(2, 1);
    assert_permanent(ledger.write(&sealed(1, &all), parts(&all)).await, "not the one in use");
    assert_permanent(ledger.register(ACCUMULATOR, ShardCount::ONE).await, "given up");
    let next = AccumulatorId::from_bytes([9; 16]);
    assert_eq!(ledger.register(next, ShardCount::ONE).await.unwrap().accumulator, next);
    let snapshot = ledger.usage(&UsageFilter::default()).await.unwrap();
    assert_eq!(snapshot.flushed, [0]);
}

#[tokio::test]
async fn snapshots_that_are_not_read_to_the_end_hold_no_connection() {
    let server = PostgresServer::start();
    let ledger = ready(&server.url()).await;
    let all = rows(10_000, 1);
    ledger.write(&sealed(1, &all), parts(&all)).await.unwrap();
    for _ in 0..12 {
        let mut snapshot = ledger.usage(&UsageFilter::default()).await.unwrap();
        snapshot.rows.next().await.unwrap().unwrap();
    }
    for _ in 0..12 {
        ledger.usage(&UsageFilter::default()).await.unwrap().rows.try_concat().await.unwrap();
    }
}

/// A server that dies the moment it has taken a connection.
#[tokio::test]
async fn a_connection_that_ends_before_its_first_answer_is_waited_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/pulse", listener.local_addr().unwrap().port());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.read(&mut [0; 64]).await;
        }
    });
    let ledger = connect(&url).await;
    for error in [ledger.check().await.unwrap_err(), ledger.migrate().await.unwrap_err()] {
        assert!(error.is_transient(), "{error}");
    }
}
