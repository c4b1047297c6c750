//! Books stay exact when the server, a connection or a reply is lost.

use super::{ACCUMULATOR, connect, parts, rows, sealed};
use application::ports::{
    FlushReceipt, SealedGeneration, ShardRegistry, UsageFilter, UsageLedger, UsageReader, UsageRow,
};
use domain::{ShardCount, UsageTotal};
use futures_util::{StreamExt, TryStreamExt, future};
use infrastructure::{postgres::PostgresLedger, test_servers::postgres::PostgresServer};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

const ROWS: i32 = 20_000;
/// How often a write is tried before the test gives up.
const TRIES: usize = 1_000;

async fn ready(url: &str) -> PostgresLedger {
    let ledger = connect(url).await;
    ledger.migrate().await.unwrap();
    ledger.register(ACCUMULATOR, ShardCount::ONE).await.unwrap();
    ledger
}

/// As a flush does it. A permanent error fails the test: every loss here is one that passes.
async fn write_until_known(
    ledger: &PostgresLedger,
    sealed: &SealedGeneration,
    rows: &[UsageRow],
) -> FlushReceipt {
    for _ in 0..TRIES {
        match ledger.write(sealed, parts(rows)).await {
            Ok(receipt) => return receipt,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server did not come back");
}

/// The books hold each of the generations once.
async fn assert_exact(ledger: &PostgresLedger, rows: &[UsageRow], generations: u64) {
    let snapshot = ledger.usage(&UsageFilter::default()).await.unwrap();
    assert_eq!(snapshot.flushed, [generations]);
    let booked = snapshot.rows.try_concat().await.unwrap();
    assert_eq!(booked.len(), rows.len());
    let expected =
        (0..generations).fold(UsageTotal::default(), |sum, _| sum.checked_add(rows[0].total).unwrap());
    assert!(booked.iter().all(|row| row.total == expected), "every row holds {expected:?}");
}

/// When the server is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// When this part of the rows is asked for.
    Part(usize),
    /// While a statement that begins like this runs.
    Statement(&'static str),
    /// When the write has returned.
    Returned,
}

/// Makes the upsert and the commit take long enough to be met.
const SLOW: &str = "\
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.5); return null; end $$;
create trigger slow_upsert after insert on hourly_usage for each statement execute function slow();
create constraint trigger slow_commit after insert on flushes deferrable initially deferred
    for each row execute function slow()";

/// Waits until a statement that begins like this runs: one that takes long.
async fn wait_for_statement(url: &str, start: &str) {
    const RUNNING: &str = "\
        select exists (select from pg_stat_activity where state = 'active' and application_name = 'pulse-ingestor'
            and starts_with(query, $1))";
    let mut connection = PgConnection::connect(url).await.unwrap();
    let began = Instant::now();
    while !sqlx::query_scalar::<_, bool>(RUNNING).bind(start).fetch_one(&mut connection).await.unwrap() {
        assert!(began.elapsed() < Duration::from_secs(30), "`{start}` does not run");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_write_keeps_exact_books() {
    let server = Arc::new(Mutex::new(PostgresServer::start()));
    let url = server.lock().unwrap().url();
    let ledger = ready(&url).await;
    PgConnection::connect(&url).await.unwrap().execute(SLOW).await.unwrap();
    let rows = rows(ROWS, 1_000_000_001);
    let moments = [
        Moment::Part(0),
        Moment::Part(3),
        Moment::Part(19),
        Moment::Statement("insert into hourly_usage"),
        Moment::Statement("commit"),
        Moment::Returned,
    ];
    for (moment, generation) in moments.into_iter().zip(1..) {
        let (sealed, reached) = (sealed(generation, &rows), Notify::new());
        let doomed = async {
            let parts = parts(&rows).enumerate().map(|(number, rows)| {
                if matches!(moment, Moment::Part(part) if part == number) {
                    reached.notify_one();
                }
                rows
            });
            let result = ledger.write(&sealed, parts.boxed()).await;
            reached.notify_one();
            result
        };
        let killer = Arc::clone(&server);
        let death = async {
            match moment {
                Moment::Part(_) | Moment::Returned => reached.notified().await,
                Moment::Statement(start) => wait_for_statement(&url, start).await,
            }
            tokio::task::spawn_blocking(move || killer.lock().unwrap().kill()).await.unwrap();
        };
        let (result, ()) = future::join(doomed, death).await;
        match (moment, result) {
            (Moment::Returned, result) => assert!(result.unwrap().written),
            // The last part may be asked for when there is little left to do.
            (Moment::Part(_), Ok(receipt)) => assert!(receipt.written),
            (_, result) => assert!(result.unwrap_err().is_transient(), "{moment:?}"),
        }
        let restart = Arc::clone(&server);
        tokio::task::spawn_blocking(move || restart.lock().unwrap().restart()).await.unwrap();
        let receipt = write_until_known(&ledger, &sealed, &rows).await;
        assert!(!matches!(moment, Moment::Returned) || !receipt.written, "what returned was durable");
        assert_exact(&ledger, &rows, generation).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_race_while_their_connections_are_terminated() {
    const TERMINATE: &str = "\
        select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'pulse-ingestor'";
    let server = PostgresServer::start();
    let first = ready(&server.url()).await;
    let second = connect(&server.url()).await;
    let rows = rows(ROWS / 4, 3);
    let undisturbed = Instant::now();
    first.write(&sealed(1, &rows), parts(&rows)).await.unwrap();
    let undisturbed = undisturbed.elapsed();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let mut terminated = 0;
    for generation in 2..=20 {
        let sealed = sealed(generation, &rows);
        let writes =
            future::join_all([&first, &second].map(|ledger| write_until_known(ledger, &sealed, &rows)));
        let terminator = async {
            for number in 0..4 {
                // Every generation meets other moments of a write, from its first to its last twentieth.
                let part = (u32::try_from(generation).unwrap() * 7 + number * 11) % 20;
                tokio::time::sleep(undisturbed * part / 20).await;
                let count: i64 = sqlx::query_scalar(TERMINATE).fetch_one(&mut connection).await.unwrap();
                terminated += count;
            }
        };
        let (receipts, ()) = future::join(writes, terminator).await;
        // Neither may have written it where the reply was lost.
        assert!(receipts.iter().filter(|receipt| receipt.written).count() <= 1, "{receipts:?}");
    }
    assert!(terminated > 20, "the terminator met their connections {terminated} times");
    assert_exact(&first, &rows, 20).await;
}

/// Passes everything on until the client asks for a commit; then the server's answer is kept back and all is cut.
async fn cut_at_commit(mut client: TcpStream, server_port: u16, cuts: Arc<AtomicU32>) {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await.unwrap();
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let asks = up[..count].windows(7).any(|bytes| bytes == b"commit\0");
                    server.write_all(&up[..count]).await.unwrap();
                    if asks && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        // The answer is there: the commit is durable.
                        assert!(server.read(&mut down).await.unwrap() > 0);
                        return;
                    }
                }
            },
            read = server.read(&mut down) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => if client.write_all(&down[..count]).await.is_err() { return },
            },
        }
    }
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_found_and_not_repeated() {
    let server = PostgresServer::start();
    let direct = ready(&server.url()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy_port = listener.local_addr().unwrap().port();
    let server_port = server.port();
    let cuts = Arc::new(AtomicU32::new(0));
    let mut proxy = JoinSet::new();
    let left = Arc::clone(&cuts);
    proxy.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            connections.spawn(cut_at_commit(client, server_port, Arc::clone(&left)));
        }
    });
    let ledger = connect(&server.url().replace(&server_port.to_string(), &proxy_port.to_string())).await;
    let rows = rows(500, 7);
    for generation in 1..=5 {
        let sealed = sealed(generation, &rows);
        cuts.store(1, Ordering::Relaxed);
        let lost = ledger.write(&sealed, parts(&rows)).await.unwrap_err();
        assert!(lost.is_transient(), "{lost}");
        assert_eq!(cuts.load(Ordering::Relaxed), 0);
        let found = write_until_known(&ledger, &sealed, &rows).await;
        assert_eq!((found.written, found.rows, found.total), (false, 500, sealed.total));
    }
    assert_exact(&direct, &rows, 5).await;
}
