//! One transaction on one connection: durable, bounded in time, and never back in the pool unless it ended cleanly.

use super::error::{commit_error, connect_error, port_error};
use application::ports::PortError;
use sqlx::{
    Executor, FromRow, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::{Query, QueryAs},
};
use std::{future::Future, time::Duration};

/// How long a statement may take on the server.
const STATEMENT_LIMIT: Duration = Duration::from_mins(1);
/// How long a statement may wait for a lock: as long as another writer of the same generation needs, as a rule.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// How long a transaction may wait for us: a process that was paused must not hold its locks for ever.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// How much later than the server we give up ourselves: then it is the network or the server that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// How a transaction begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind(&'static str);

/// Every statement sees what is committed when it starts.
pub(super) const WRITE: Kind = Kind("begin isolation level read committed read write");
/// All statements see the same moment.
pub(super) const READ: Kind = Kind("begin isolation level repeatable read read only");

/// Sets what must hold in every transaction, whatever the role or the database has as its default, and asks for what
/// must hold on the server. Local to the transaction, so that no other user of a shared connection inherits it.
///
/// `synchronous_commit` is left at `remote_apply`, which is stronger than `on`. The check of the connection exists from
/// PostgreSQL 14 on: with it the server drops the locks of a client that is gone even in the middle of a statement.
/// Compiling (`jit`) costs our few short statements more than it saves.
const PREPARE: &str = "\
select set_config('statement_timeout', $1, true),
    set_config('lock_timeout', $2, true),
    set_config('idle_in_transaction_session_timeout', $3, true),
    set_config('synchronous_commit',
        case current_setting('synchronous_commit') when 'remote_apply' then 'remote_apply' else 'on' end, true),
    case when current_setting('server_version_num')::integer >= 140000
        then set_config('client_connection_check_interval', '5000', true) end,
    set_config('jit', 'off', true),
    current_setting('fsync') as fsync,
    current_setting('full_page_writes') as full_page_writes,
    current_setting('server_encoding') as encoding";

/// What the server is set to.
#[derive(Debug, FromRow)]
struct ServerSettings {
    fsync: String,
    full_page_writes: String,
    encoding: String,
}

/// A server that the books must not be on.
#[derive(Debug, thiserror::Error)]
enum UnfitServer {
    #[error(
        "the server runs with {setting} = off and may lose committed books: set `{setting} = on` in postgresql.conf \
         and reload, or accept the risk explicitly"
    )]
    Unsafe { setting: &'static str },
    #[error(
        "the database has the encoding {encoding}, which cannot hold every name: create it with encoding 'UTF8'"
    )]
    Encoding { encoding: String },
}

/// An open transaction. Dropped before [`Session::finish`] or [`Session::commit`], its connection is closed, and with
/// it everything undone.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    operation: &'static str,
    statement_limit: Duration,
    ended: bool,
}

impl Session {
    /// Begins a transaction on a server that is fit for it.
    ///
    /// # Errors
    /// Permanent for an unfit server.
    pub(super) async fn begin(
        pool: &PgPool,
        operation: &'static str,
        kind: Kind,
        allow_unsafe_durability: bool,
    ) -> Result<Self, PortError> {
        let connection = pool.acquire().await.map_err(|error| connect_error(operation, error))?;
        let mut session = Self { connection, operation, statement_limit: STATEMENT_LIMIT, ended: false };
        session.execute(sqlx::query(kind.0)).await?;
        let milliseconds = |limit: Duration| limit.as_millis().to_string();
        let prepare = sqlx::query_as(PREPARE)
            .bind(milliseconds(STATEMENT_LIMIT))
            .bind(milliseconds(LOCK_LIMIT))
            .bind(milliseconds(IDLE_LIMIT));
        let settings: Vec<ServerSettings> = session.fetch_all(prepare).await?;
        for server in settings {
            server.check(allow_unsafe_durability).map_err(|unfit| PortError::permanent(operation, unfit))?;
        }
        Ok(session)
    }

    /// Lets the statements that follow take up to `limit`, where that is more than what they have anyway.
    pub(super) async fn extend_limit(&mut self, limit: Duration) -> Result<(), PortError> {
        if limit > self.statement_limit {
            let extend = sqlx::query("select set_config('statement_timeout', $1, true)");
            self.execute(extend.bind(limit.as_millis().to_string())).await?;
            self.statement_limit = limit;
        }
        Ok(())
    }

    /// Runs a statement; returns how many rows it wrote.
    pub(super) async fn execute(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, PortError> {
        let limit = self.statement_limit;
        let done = bounded(self.operation, limit, self.connection.execute(query)).await?;
        Ok(done.rows_affected())
    }

    /// Runs a query to its end.
    pub(super) async fn fetch_all<T>(
        &mut self,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Vec<T>, PortError>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        bounded(self.operation, self.statement_limit, query.fetch_all(&mut *self.connection)).await
    }

    /// The first row of a query, if there is one.
    pub(super) async fn fetch_optional<T>(
        &mut self,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Option<T>, PortError>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        bounded(self.operation, self.statement_limit, query.fetch_optional(&mut *self.connection)).await
    }

    /// Runs `COPY … FROM STDIN` with these bytes; returns how many rows it took.
    pub(super) async fn copy(&mut self, statement: &str, bytes: &[u8]) -> Result<u64, PortError> {
        let copy = async {
            let mut copy = self.connection.copy_in_raw(statement).await?;
            copy.send(bytes).await?;
            copy.finish().await
        };
        bounded(self.operation, self.statement_limit, copy).await
    }

    /// Makes everything durable. A transient error says nothing about the effect.
    pub(super) async fn commit(mut self) -> Result<(), PortError> {
        self.end("commit", commit_error).await
    }

    /// Ends a transaction that has nothing to keep.
    pub(super) async fn finish(mut self) -> Result<(), PortError> {
        self.end("rollback", port_error).await
    }

    async fn end(
        &mut self,
        statement: &'static str,
        classify: fn(&'static str, sqlx::Error) -> PortError,
    ) -> Result<(), PortError> {
        let end = self.connection.execute(statement);
        match tokio::time::timeout(STATEMENT_LIMIT + GRACE, end).await {
            Ok(result) => result.map_err(|error| classify(self.operation, error))?,
            Err(elapsed) => return Err(PortError::transient(self.operation, elapsed)),
        };
        self.ended = true;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl ServerSettings {
    fn check(self, allow_unsafe_durability: bool) -> Result<(), UnfitServer> {
        if !allow_unsafe_durability {
            for (setting, value) in [("fsync", &self.fsync), ("full_page_writes", &self.full_page_writes)] {
                if value != "on" {
                    return Err(UnfitServer::Unsafe { setting });
                }
            }
        }
        // SQL_ASCII stores the bytes that it is given.
        match self.encoding.as_str() {
            "UTF8" | "SQL_ASCII" => Ok(()),
            _ => Err(UnfitServer::Encoding { encoding: self.encoding }),
        }
    }
}

/// Gives up a little later than the server should have.
async fn bounded<T>(
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, PortError> {
    match tokio::time::timeout(limit + GRACE, call).await {
        Ok(result) => result.map_err(|error| port_error(operation, error)),
        Err(elapsed) => Err(PortError::transient(operation, elapsed)),
    }
}
