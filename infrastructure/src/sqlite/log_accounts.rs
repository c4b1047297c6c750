//! What was received of logs, beside what the shards have taken of them.

use super::{
    EmbeddedStore,
    amount::{count, stored},
    fault::{fault, refusal},
};
use application::ports::{LogAccount, LogAccounts, LogBalance, LogStep, PortError};
use async_trait::async_trait;
use domain::LogName;
use sqlx::SqliteConnection;

/// Not where a shard is further: see the port.
const OPEN: &str = "\
INSERT INTO counting_log_accounts (log, next_offset, received)
SELECT ?1, ?2, (SELECT coalesce(sum(taken), 0) FROM counting_logs WHERE log = ?1)
WHERE NOT EXISTS (SELECT 1 FROM counting_logs WHERE log = ?1 AND (log_offset, items) > (?2, 0))
ON CONFLICT (log) DO NOTHING";

const SETTLE: &str = "\
UPDATE counting_log_accounts SET next_offset = ?3, received = received + ?4, refused = refused + ?5
WHERE log = ?1 AND next_offset = ?2";

const BALANCES: &str = "\
SELECT log, next_offset, received, refused,
    (SELECT coalesce(sum(taken), 0) FROM counting_logs WHERE counting_logs.log = accounts.log)
FROM counting_log_accounts AS accounts ORDER BY log";

#[async_trait]
impl LogAccounts for EmbeddedStore {
    async fn open(&self, log: &LogName, from: u64) -> Result<Option<u64>, PortError> {
        const OPERATION: &str = "open the account of a log in the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let open = sqlx::query(OPEN).bind(log.as_str()).bind(stored(from).map_err(refusal(OPERATION))?);
        open.execute(&mut *step).await.map_err(fault(OPERATION))?;
        let stands = stands(OPERATION, &mut step, log).await?;
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(stands)
    }

    async fn settle(&self, log: &LogName, step: LogStep) -> Result<u64, PortError> {
        const OPERATION: &str = "settle a log in the embedded file";
        let LogStep { from, to, received, refused } = step;
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let mut settle = sqlx::query(SETTLE).bind(log.as_str());
        for number in [from, to, received, refused] {
            settle = settle.bind(stored(number).map_err(refusal(OPERATION))?);
        }
        settle.execute(&mut *step).await.map_err(fault(OPERATION))?;
        let stands = stands(OPERATION, &mut step, log).await?;
        step.commit().await.map_err(fault(OPERATION))?;
        stands.ok_or_else(|| PortError::permanent(OPERATION, format!("log {log} has no account")))
    }

    async fn balances(&self) -> Result<Vec<LogBalance>, PortError> {
        const OPERATION: &str = "read the accounts of logs in the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let rows: Vec<(String, i64, i64, i64, i64)> =
            sqlx::query_as(BALANCES).fetch_all(&mut *reader).await.map_err(fault(OPERATION))?;
        let number = |number: i64| count(number).map_err(refusal(OPERATION));
        rows.into_iter()
            .map(|(log, next, received, refused, taken)| {
                let unreadable = || PortError::permanent(OPERATION, format!("{log:?} is no log"));
                let (next, received, refused) = (number(next)?, number(received)?, number(refused)?);
                Ok(LogBalance {
                    log: LogName::parse(&log).ok_or_else(unreadable)?,
                    account: LogAccount { next, received, refused },
                    taken: number(taken)?,
                })
            })
            .collect()
    }
}

async fn stands(
    operation: &'static str,
    connection: &mut SqliteConnection,
    log: &LogName,
) -> Result<Option<u64>, PortError> {
    let next: Option<i64> = sqlx::query_scalar("SELECT next_offset FROM counting_log_accounts WHERE log = ?")
        .bind(log.as_str())
        .fetch_optional(connection)
        .await
        .map_err(fault(operation))?;
    next.map(|next| count(next).map_err(refusal(operation))).transpose()
}
