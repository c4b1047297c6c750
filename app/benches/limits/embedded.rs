//! The embedded file beside a bare loop of transactions that stores as much.

use crate::{
    Work, in_turns,
    measure::Clock,
    programs::Bench,
    queue::Shape,
    report::{Case, Report},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

const BATCH: u32 = 1_000;

/// Identities with fingerprints, and the sums of a thousand keys: what counting keeps, without reading or checking anything.
async fn bare_loop(file: &Path, pulses: u32) {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection: SqliteConnection = options.connect().await.unwrap();
    connection
        .execute(
            "create table ids (digest blob primary key, fingerprint blob not null) strict, without rowid;
             create table sums (key integer primary key, amount integer not null, pulses integer not null) strict",
        )
        .await
        .unwrap();
    let values = |value: &str| vec![value; BATCH as usize].join(",");
    let ids = format!("insert into ids values {} on conflict do nothing", values("(?,x'010203040506')"));
    let sums = format!(
        "insert into sums values {} on conflict (key) do update set amount = amount + excluded.amount, \
         pulses = pulses + excluded.pulses",
        values("(?,307,1)")
    );
    for first in (0..pulses).step_by(BATCH as usize) {
        let mut transaction = connection.begin().await.unwrap();
        // Digests are spread evenly.
        let digest = |number: u32| {
            let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            spread.to_be_bytes().to_vec()
        };
        let query = (first..first + BATCH)
            .fold(sqlx::query(AssertSqlSafe(ids.as_str())), |query, number| query.bind(digest(number)));
        query.execute(&mut *transaction).await.unwrap();
        let query = (0..BATCH).fold(sqlx::query(AssertSqlSafe(sums.as_str())), sqlx::query::Query::bind);
        query.execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
    connection.close().await.unwrap();
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let pulses = bench.size(100_000, 500_000);
    let file = bench.path("pulses.ndjson");
    let mut out = BufWriter::new(File::create(&file).unwrap());
    for body in Shape::USUAL.bodies(pulses) {
        out.write_all(&body).unwrap();
        out.write_all(b"\n").unwrap();
    }
    out.flush().unwrap();
    let own = std::process::id();
    let bare = || {
        let path = bench.path(&bench.name("bare.db"));
        let clock = Clock::start(&[("process", own)]);
        bench.runtime.block_on(bare_loop(&path, pulses));
        clock.stop(f64::from(pulses))
    };
    let ingest = || {
        let clock = Clock::start(&[("process", own)]);
        bench.run(&["ingest", file.to_str().unwrap()], &[]);
        clock.stop(f64::from(pulses))
    };
    let limit = "bare SQLite loop";
    let cases: Vec<Work<'_>> = vec![
        (Case::limit(limit), Box::new(bare)),
        (Case::beside(limit, "app ingest, read from a file", Some(0.5)), Box::new(ingest)),
    ];
    in_turns(bench, report, "embedded", cases);
}
