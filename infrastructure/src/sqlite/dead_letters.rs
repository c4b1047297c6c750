//! Keeps what was refused, and counts it.

use super::{
    EmbeddedStore,
    amount::count,
    fault::{fault, refusal},
    time::text,
};
use application::ports::{DeadLetter, DeadLetters, PortError, RefusedPulses};
use async_trait::async_trait;
use sqlx::SqliteConnection;

const OPERATION: &str = "store dead letters in the embedded file";

#[async_trait]
impl DeadLetters for EmbeddedStore {
    /// All in one transaction; a letter whose id is there already stays as it was stored first.
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        insert(&mut step, letters).await?;
        step.commit().await.map_err(fault(OPERATION))
    }
}

#[async_trait]
impl RefusedPulses for EmbeddedStore {
    async fn count(&self) -> Result<u64, PortError> {
        const OPERATION: &str = "count the dead letters of the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&mut *reader)
            .await
            .map_err(fault(OPERATION))?;
        count(letters).map_err(refusal(OPERATION))
    }
}

/// Stores the letters within a step; a letter whose id is there already stays as it was stored first.
pub(super) async fn insert(step: &mut SqliteConnection, letters: &[DeadLetter]) -> Result<(), PortError> {
    for letter in letters {
        let envelope = &letter.envelope;
        sqlx::query(
            "INSERT INTO dead_letters (id, reason, detail, item, source, message_id, content_type, routing_key,
                headers, body, received_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&letter.id)
        .bind(letter.rejection.reason.code())
        .bind(&letter.rejection.detail)
        .bind(letter.item)
        .bind(&letter.source)
        .bind(&envelope.message_id)
        .bind(&envelope.content_type)
        .bind(&envelope.routing_key)
        .bind(serde_json::to_string(&envelope.headers).map_err(refusal(OPERATION))?)
        .bind(letter.body.as_slice())
        .bind(text(letter.received_at))
        .execute(&mut *step)
        .await
        .map_err(fault(OPERATION))?;
    }
    Ok(())
}
