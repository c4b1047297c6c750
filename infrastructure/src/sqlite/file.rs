//! The connections to the file: one that writes, one that stages and writes the books, and a few that read.

use super::{
    EmbeddedSettings,
    fault::{fault, is_busy, is_dead, migration_fault, refusal},
};
use application::ports::PortError;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Marks the file as ours (`PRAGMA application_id`): "puls".
const APPLICATION_ID: i32 = 0x7075_6c73;
/// How many pages the WAL holds before a commit moves them into the file: 16 MiB.
const CHECKPOINT_PAGES: &str = "4000";
/// To how many bytes the WAL is cut back after it had to grow.
const WAL_BYTES_KEPT: &str = "67108864";
/// Page cache of the writing connections, in KiB.
const WRITER_CACHE: &str = "-16000";
const READERS_MAX: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The open file.
#[derive(Debug)]
pub(super) struct File {
    options: SqliteConnectOptions,
    place: Place,
    /// Also the order of the writers of this process: who holds it may begin a transaction.
    writer: Mutex<Option<SqliteConnection>>,
    stager: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
}

impl File {
    pub(super) async fn open(settings: &EmbeddedSettings) -> Result<Self, PortError> {
        const OPERATION: &str = "open the embedded file";
        check_folder(OPERATION, &settings.path)?;
        make_private(&settings.path).map_err(refusal(OPERATION))?;
        let options = SqliteConnectOptions::new()
            .filename(&settings.path)
            .busy_timeout(settings.busy_timeout)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        let writing = options
            .clone()
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("journal_size_limit", WAL_BYTES_KEPT);
        let mut writer = connect(&writing.clone().create_if_missing(true)).await.map_err(fault(OPERATION))?;
        check_owner(OPERATION, &mut writer).await?;
        write_ahead(OPERATION, &mut writer, settings.busy_timeout).await?;
        migrate(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(settings.busy_timeout)
            .test_before_acquire(false)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self {
            options: writing,
            place: Place::of(OPERATION, &settings.path)?,
            writer: Mutex::new(Some(writer)),
            stager: Mutex::default(),
            readers,
        })
    }

    /// Waits for this program's turn to write.
    pub(super) async fn writer(&self, operation: &'static str) -> Result<Turn<'_>, PortError> {
        self.turn(operation, &self.writer).await
    }

    /// Waits for the connection that stages rows in temporary tables; staging is no writing.
    pub(super) async fn stager(&self, operation: &'static str) -> Result<Turn<'_>, PortError> {
        self.turn(operation, &self.stager).await
    }

    /// A connection that only reads.
    pub(super) async fn reader(&self, operation: &'static str) -> Result<PoolConnection<Sqlite>, PortError> {
        self.place.check(operation)?;
        self.readers.acquire().await.map_err(fault(operation))
    }

    async fn turn<'a>(
        &self,
        operation: &'static str,
        connection: &'a Mutex<Option<SqliteConnection>>,
    ) -> Result<Turn<'a>, PortError> {
        let mut connection = connection.lock().await;
        self.place.check(operation)?;
        if connection.is_none() {
            *connection = Some(connect(&self.options).await.map_err(fault(operation))?);
        }
        Ok(Turn { connection, operation })
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        for connection in [&self.stager, &self.writer] {
            if let Some(connection) = connection.lock().await.take() {
                // What is not in the file by then is in its -wal, which the next to open it reads.
                let _ = connection.close().await;
            }
        }
    }
}

/// The use of a connection, alone.
pub(super) struct Turn<'a> {
    connection: MutexGuard<'a, Option<SqliteConnection>>,
    operation: &'static str,
}

impl Turn<'_> {
    /// Begins a step: no other process writes until it is committed or dropped, which takes it back.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Sqlite>, PortError> {
        self.begin_with("BEGIN IMMEDIATE").await
    }

    /// Begins a transaction that may not write to the file itself.
    pub(super) async fn begin_staging(&mut self) -> Result<Transaction<'_, Sqlite>, PortError> {
        self.begin_with("BEGIN").await
    }

    async fn begin_with(&mut self, statement: &'static str) -> Result<Transaction<'_, Sqlite>, PortError> {
        let unusable = match &mut *self.connection {
            // The ping comes after the end of the last transaction. Where that is left open all the same, its commit
            // failed and SQLite had taken it back by itself, which the driver does not notice.
            Some(connection) => {
                connection.ping().await.is_err_and(|error| is_dead(&error)) || connection.is_in_transaction()
            }
            None => true,
        };
        if unusable {
            *self.connection = None;
        }
        let connection = self.connection.as_mut().ok_or_else(|| {
            PortError::transient(self.operation, "the connection ended; the next call makes a new one")
        })?;
        connection.begin_with(statement).await.map_err(fault(self.operation))
    }
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(options).await
}

fn check_folder(operation: &'static str, path: &Path) -> Result<(), PortError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(());
    }
    let remedy =
        format!("the folder {} is missing: make it, or choose another file with PULSE_DB", folder.display());
    Err(PortError::permanent(operation, remedy))
}

/// Makes a file that only its owner reads, where there is none: it may hold the secret of the API. SQLite gives its `-wal`
/// and `-shm` the same mode.
#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Refuses the database of another program before anything is written to it.
async fn check_owner(operation: &'static str, connection: &mut SqliteConnection) -> Result<(), PortError> {
    let (owner, tables): (i32, i64) = sqlx::query_as(
        "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id",
    )
    .fetch_one(connection)
    .await
    .map_err(fault(operation))?;
    if owner == APPLICATION_ID || (owner == 0 && tables == 0) {
        return Ok(());
    }
    Err(PortError::permanent(
        operation,
        "the file is a database of another program: choose another one with PULSE_DB",
    ))
}

/// Switches to write-ahead logging. The switch needs the file alone and does not wait for it by itself.
async fn write_ahead(
    operation: &'static str,
    connection: &mut SqliteConnection,
    limit: Duration,
) -> Result<(), PortError> {
    let start = Instant::now();
    loop {
        let mode: Result<String, _> =
            sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await;
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let remedy =
                    format!("write-ahead logging is not to be had (journal mode {mode}): use a local disk");
                return Err(PortError::permanent(operation, remedy));
            }
            Err(error) if is_busy(&error) && start.elapsed() < limit => sleep(RETRY_PAUSE).await,
            Err(error) => return Err(fault(operation)(error)),
        }
    }
}

/// Brings the schema up to date in one transaction, so that of several processes one does it and the others wait.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), PortError> {
    const OPERATION: &str = "migrate the embedded file";
    let mut step = connection.begin_with("BEGIN IMMEDIATE").await.map_err(fault(OPERATION))?;
    MIGRATIONS.run_direct(None, &mut *step, false).await.map_err(migration_fault(OPERATION))?;
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")))
        .execute(&mut *step)
        .await
        .map_err(fault(OPERATION))?;
    step.commit().await.map_err(fault(OPERATION))
}

/// Which file it is, whatever its name: SQLite goes on writing to one that was deleted.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Place {
    fn of(operation: &'static str, path: &Path) -> Result<Self, PortError> {
        // The working directory may change.
        let path = std::fs::canonicalize(path).map_err(refusal(operation))?;
        let identity = identity(&path);
        Ok(Self { path, identity })
    }

    fn check(&self, operation: &'static str) -> Result<(), PortError> {
        if identity(&self.path) == self.identity {
            return Ok(());
        }
        let lost = format!(
            "{} was moved, deleted or replaced while it was in use: put it back, or start again",
            self.path.display()
        );
        Err(PortError::permanent(operation, lost))
    }
}

/// By its metadata only: opening the file and closing it again would free the locks that SQLite has on it.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_commit_that_sqlite_took_back_by_itself_the_next_steps_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(&EmbeddedSettings::new(folder.path().join("pulse.db"))).await.unwrap();
        let mut turn = file.writer("test").await.unwrap();
        let mut step = turn.begin().await.unwrap();
        // What a full disk does to a transaction.
        sqlx::raw_sql("ROLLBACK").execute(&mut *step).await.unwrap();
        assert!(step.commit().await.is_err());
        assert!(turn.begin().await.is_err_and(|error| error.is_transient()));
        drop(turn);
        for _ in 0..2 {
            let mut turn = file.writer("test").await.unwrap();
            turn.begin().await.unwrap().commit().await.unwrap();
        }
    }
}
