//! PostgreSQL as the ledger.
//!
//! - `usage_ledger`: writes a generation in one transaction (`UsageLedger`), through [`binary_copy`](self).
//! - `shard_registry`: the memory of the accumulator (`ShardRegistry`).
//! - `usage_reader`: the books as of one moment (`UsageReader`); `usage_queries`: parts of them (`UsageQueries`).
//! - `inbox`, with `inbox_claims`: events on their way to be counted (`Inbox`); `api_keys`: who may call (`ApiKeys`).
//! - `audit`: shows the books to an audit (`BooksAudit`). `recovery_books`: what was recovered (`RecoveryBooks`).
//! - `session`: one bounded transaction; `error`: what is worth trying again.

mod api_keys;
mod audit;
mod binary_copy;
mod error;
mod inbox;
mod inbox_claims;
mod recovery_books;
mod session;
mod shard_registry;
mod usage_ledger;
mod usage_queries;
mod usage_reader;

use application::ports::PortError;
use domain::{AccumulatorId, HourWindow, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use session::Session;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    types::chrono::{DateTime, Utc},
};
use std::{str::FromStr, time::Duration};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// How many questions about the books are answered at once; each has a connection.
const QUESTIONS_AT_ONCE: u32 = 4;
/// How long a call waits for a connection: a free one of the pool, or a new one. Within it the pool tries by itself and says
/// nothing, so it is short: whoever holds the call tells that the server is away.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(3);
/// How long all migrations together may take, the wait for another process that runs them included.
const MIGRATION_LIMIT: Duration = Duration::from_hours(1);
const APPLICATION_NAME: &str = "pulse-ingestor";
/// The first second that a `timestamptz` holds: 4714-11-24 BC. Its last, in the year 294276, is beyond every hour.
const FIRST_SECOND: i64 = -210_866_803_200;

/// How to reach the ledger.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`, with `sslmode` and the like as parameters.
    pub url: SecretString,
    /// The most connections, at least 1; questions about the books have up to four more.
    pub max_connections: u32,
    /// Accepts a server with `fsync` or `full_page_writes` off, which may lose committed books when its machine stops.
    pub allow_unsafe_durability: bool,
}

/// The books in PostgreSQL 11 or later. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct PostgresLedger {
    pool: PgPool,
    /// For questions about the books: however long they take, the work goes on.
    questions: PgPool,
    options: PgConnectOptions,
    allow_unsafe_durability: bool,
}

impl PostgresLedger {
    /// Takes the settings and checks the server, if it is there.
    ///
    /// A server that is away is no error here: every call checks it again, and fails transiently until it is back.
    /// Where there is no server to wait for, [`Self::check`] tells.
    ///
    /// # Errors
    /// Permanent ones only: the URL cannot be read, the server refuses us, its durability is switched off and
    /// `allow_unsafe_durability` is not set, or its encoding cannot hold every name.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self, PortError> {
        let options = PgConnectOptions::from_str(settings.url.expose_secret())
            .map_err(|error| error::port_error("read the ledger's URL", error))?
            .application_name(APPLICATION_NAME)
            .disable_statement_logging();
        let pool = |connections: u32| {
            PgPoolOptions::new()
                .max_connections(connections.max(1))
                .acquire_timeout(ACQUIRE_LIMIT)
                // Waiting is reported by the error, once, by whoever handles it.
                .acquire_slow_threshold(ACQUIRE_LIMIT * 2)
                .connect_lazy_with(options.clone())
        };
        let (pool, questions) = (pool(settings.max_connections), pool(QUESTIONS_AT_ONCE));
        let ledger =
            Self { pool, questions, options, allow_unsafe_durability: settings.allow_unsafe_durability };
        match ledger.check().await {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(ledger),
        }
    }

    /// Asks the server whether it is there and safe.
    ///
    /// # Errors
    /// Transient while it is away, permanent as [`Self::connect`].
    pub async fn check(&self) -> Result<(), PortError> {
        self.begin("check the ledger", session::READ).await?.finish().await
    }

    /// Brings the schema up to date. Idempotent; of several processes at once one does it and the others wait.
    ///
    /// # Errors
    /// Transient while the server is away or another process takes long; permanent where the schema is not ours, or is
    /// of a newer program than this one.
    pub async fn migrate(&self) -> Result<(), PortError> {
        const OPERATION: &str = "migrate the ledger";
        // A connection of its own: the lock belongs to it, and goes with it whatever happens.
        let options = self.options.clone().options([
            ("lock_timeout", "60s"),
            ("statement_timeout", "3600s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
        let migration = async {
            let connection = PgConnection::connect_with(&options).await;
            let mut connection = connection.map_err(|error| error::connect_error(OPERATION, error))?;
            let migrated = MIGRATIONS.run_direct(None, &mut connection, false).await;
            migrated.map_err(|error| error::migration_error(OPERATION, error))?;
            connection.close().await.map_err(|error| error::port_error(OPERATION, error))
        };
        match tokio::time::timeout(MIGRATION_LIMIT, migration).await {
            Ok(result) => result,
            Err(elapsed) => Err(PortError::transient(OPERATION, elapsed)),
        }
    }

    /// Closes the connections, those in use when their work is done.
    pub async fn close(&self) {
        self.pool.close().await;
        self.questions.close().await;
    }

    /// Begins to answer a question about the books.
    async fn begin_question(&self, operation: &'static str) -> Result<Session, PortError> {
        Session::begin(&self.questions, operation, session::READ, self.allow_unsafe_durability).await
    }

    async fn begin(&self, operation: &'static str, kind: session::Kind) -> Result<Session, PortError> {
        Session::begin(&self.pool, operation, kind, self.allow_unsafe_durability).await
    }
}

/// The hour as `window_start`; `None` before 4714 BC, which PostgreSQL cannot hold (RFC 3339 begins with the year 0).
fn window_start(hour: HourWindow) -> Option<DateTime<Utc>> {
    let seconds = hour.start_seconds();
    if seconds < FIRST_SECOND { None } else { DateTime::from_timestamp(seconds, 0) }
}

/// How the accumulator is named in the tables.
fn accumulator_name(accumulator: AccumulatorId) -> String {
    accumulator.to_string()
}

/// A counter of ours as PostgreSQL's `bigint`.
fn bigint(operation: &'static str, value: u64) -> Result<i64, PortError> {
    i64::try_from(value).map_err(|error| PortError::permanent(operation, error))
}

/// A `bigint` that we wrote as the counter that it was.
fn counter(operation: &'static str, value: i64) -> Result<u64, PortError> {
    u64::try_from(value).map_err(|error| PortError::permanent(operation, error))
}

/// A point in time as PostgreSQL holds it: to the microsecond, from 4714 BC on.
fn timestamptz(operation: &'static str, time: Timestamp) -> Result<DateTime<Utc>, PortError> {
    DateTime::from_timestamp(time.seconds(), time.nanos())
        .filter(|time| time.timestamp() >= FIRST_SECOND)
        .ok_or_else(|| PortError::permanent(operation, "a time that PostgreSQL cannot hold"))
}

/// A `timestamptz` as ours.
fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos())
}
