//! The marks of messages that are taken alone, beside the counts.

use super::{
    EmbeddedStore,
    fault::{fault, refusal},
};
use application::ports::{PortError, SuspectId, Suspects};
use async_trait::async_trait;

/// One that has not come back since is not taken once more.
const MARK: &str = "\
INSERT INTO counting_suspects (message, times, returns, taken_at) VALUES (?1, 1, ?2, unixepoch())
ON CONFLICT (message) DO UPDATE SET times = times + 1, returns = ?2, taken_at = unixepoch() WHERE returns < ?2";

/// A week after they were last touched.
const FORGET: &str = "DELETE FROM counting_suspects WHERE taken_at < unixepoch() - 7 * 24 * 3600";

#[async_trait]
impl Suspects for EmbeddedStore {
    async fn take(&self, suspect: SuspectId, returns: u32) -> Result<u32, PortError> {
        const OPERATION: &str = "mark a message in the embedded file that is taken alone";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        sqlx::query(FORGET).execute(&mut *step).await.map_err(fault(OPERATION))?;
        let mark = sqlx::query(MARK).bind(&suspect.0[..]).bind(returns);
        mark.execute(&mut *step).await.map_err(fault(OPERATION))?;
        let times: i64 = sqlx::query_scalar("SELECT times FROM counting_suspects WHERE message = ?")
            .bind(&suspect.0[..])
            .fetch_one(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        step.commit().await.map_err(fault(OPERATION))?;
        u32::try_from(times - 1).map_err(refusal(OPERATION))
    }

    async fn clear(&self, suspect: SuspectId) -> Result<(), PortError> {
        let remove = sqlx::query("DELETE FROM counting_suspects WHERE message = ?").bind(suspect.0.to_vec());
        self.write("remove the mark of a message from the embedded file", remove).await
    }
}
