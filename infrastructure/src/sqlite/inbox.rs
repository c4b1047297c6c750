//! The table of the inbox, and what people do with it.

use super::{
    EmbeddedStore,
    fault::{fault, refusal},
    time::{exact_milliseconds, parse, text},
};
use crate::inbox::{InboxTable, NewRow, REMOVED_MAX, StoredInbox};
use application::ports::{Dealt, InboxDepth, InboxEntry, InboxFilter, InboxStatus, PortError};
use async_trait::async_trait;
use domain::Timestamp;
use sqlx::{FromRow, QueryBuilder, Sqlite, SqliteConnection};
use std::sync::Arc;

const INSERT: &str = "\
INSERT INTO webhook_events (source, event_id, original, body, envelope, content_hash, received_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, event_id) DO NOTHING";

const SELECT_HASH: &str = "SELECT content_hash FROM webhook_events WHERE source = ? AND event_id = ?";

const LIST: &str = "\
SELECT id, source, event_id, status, attempts, last_error, received_at, processed_at,
    coalesce(original, body) AS original
FROM webhook_events WHERE true";

const RETRY: &str = "\
UPDATE webhook_events SET status = 'received', attempts = 0, last_error = NULL, refused = NULL, processed_at = NULL,
    next_attempt_at = 0
WHERE id = ? AND status = 'failed'";

const DISCARD: &str = "DELETE FROM webhook_events WHERE id = ? AND status = 'failed'";

const SELECT_STATUS: &str = "SELECT status FROM webhook_events WHERE id = ?";

const REMOVE_DONE: &str = "\
DELETE FROM webhook_events WHERE id IN (
    SELECT id FROM webhook_events WHERE status = 'done' AND processed_at < ? ORDER BY processed_at LIMIT ?)";

/// Each count by a partial index: events that are done, which are most, are not looked at.
const DEPTH: &str = "\
SELECT (SELECT count(*) FROM webhook_events WHERE status = 'received') AS received,
    (SELECT count(*) FROM webhook_events WHERE status = 'processing') AS processing,
    (SELECT count(*) FROM webhook_events WHERE status = 'failed') AS failed,
    (SELECT received_at FROM webhook_events WHERE status = 'received'
        AND next_attempt_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER) ORDER BY id LIMIT 1) AS oldest_due,
    (SELECT received_at FROM webhook_events WHERE status = 'processing'
        AND lease_until < CAST(unixepoch('subsec') * 1000 AS INTEGER) ORDER BY id LIMIT 1) AS oldest_lost,
    (SELECT max(processed_at) FROM webhook_events WHERE status = 'done') AS last_done";

impl EmbeddedStore {
    /// The inbox in the same file; it starts a task, so it needs a runtime.
    #[must_use]
    pub fn inbox(self: &Arc<Self>) -> StoredInbox {
        StoredInbox::start(Arc::clone(self))
    }
}

#[derive(FromRow)]
struct EntryRow {
    id: i64,
    source: String,
    event_id: String,
    status: String,
    attempts: u32,
    last_error: Option<String>,
    received_at: String,
    processed_at: Option<String>,
    original: Vec<u8>,
}

#[derive(FromRow)]
struct DepthRow {
    received: u32,
    processing: u32,
    failed: u32,
    oldest_due: Option<String>,
    oldest_lost: Option<String>,
    last_done: Option<String>,
}

#[async_trait]
impl InboxTable for EmbeddedStore {
    async fn insert(&self, rows: &[NewRow]) -> Result<Vec<Option<[u8; 32]>>, PortError> {
        const OPERATION: &str = "store events in the inbox";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in rows {
            known.push(if insert_event(OPERATION, &mut step, row).await? {
                None
            } else {
                let (source, event_id) = row.key();
                let select = sqlx::query_scalar(SELECT_HASH).bind(source).bind(event_id);
                let hash: Vec<u8> = select.fetch_one(&mut *step).await.map_err(fault(OPERATION))?;
                Some(hash.as_slice().try_into().map_err(refusal(OPERATION))?)
            });
        }
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(known)
    }

    async fn list(&self, filter: &InboxFilter) -> Result<Vec<InboxEntry>, PortError> {
        const OPERATION: &str = "list the events of the inbox";
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(LIST);
        if let Some(status) = filter.status {
            // A literal, so that the planner knows which partial index fits.
            query.push(" AND status = '").push(status.word()).push("'");
        }
        if let Some(source) = &filter.source {
            query.push(" AND source = ").push_bind(source);
        }
        if let Some(before) = filter.before {
            query.push(" AND id < ").push_bind(before);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
        let mut reader = self.file.reader(OPERATION).await?;
        let rows: Vec<EntryRow> =
            query.build_query_as().fetch_all(&mut *reader).await.map_err(fault(OPERATION))?;
        rows.into_iter().map(|row| row.entry(OPERATION)).collect()
    }

    async fn retry(&self, id: i64) -> Result<Dealt, PortError> {
        self.deal("let an event of the inbox wait again", RETRY, id).await
    }

    async fn discard(&self, id: i64) -> Result<Dealt, PortError> {
        self.deal("discard an event of the inbox", DISCARD, id).await
    }

    async fn remove_done(&self, before: Timestamp) -> Result<u64, PortError> {
        const OPERATION: &str = "remove events from the inbox";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let remove = sqlx::query(REMOVE_DONE).bind(exact_milliseconds(before)).bind(REMOVED_MAX);
        let removed = remove.execute(&mut *step).await.map_err(fault(OPERATION))?.rows_affected();
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(removed)
    }

    async fn depth(&self) -> Result<InboxDepth, PortError> {
        const OPERATION: &str = "measure the inbox";
        let mut reader = self.file.reader(OPERATION).await?;
        let row: DepthRow = sqlx::query_as(DEPTH).fetch_one(&mut *reader).await.map_err(fault(OPERATION))?;
        let moment = |text: Option<String>| text.map(|text| parse(OPERATION, &text)).transpose();
        Ok(InboxDepth {
            received: row.received.into(),
            processing: row.processing.into(),
            failed: row.failed.into(),
            oldest: moment(row.oldest_due)?.into_iter().chain(moment(row.oldest_lost)?).min(),
            last_done: moment(row.last_done)?,
        })
    }
}

impl EmbeddedStore {
    /// Does with a failed event what the statement says.
    async fn deal(
        &self,
        operation: &'static str,
        statement: &'static str,
        id: i64,
    ) -> Result<Dealt, PortError> {
        let mut turn = self.file.writer(operation).await?;
        let mut step = turn.begin().await?;
        let dealt = sqlx::query(statement).bind(id).execute(&mut *step).await.map_err(fault(operation))?;
        if dealt.rows_affected() == 1 {
            step.commit().await.map_err(fault(operation))?;
            return Ok(Dealt::Done);
        }
        let status: Option<String> = sqlx::query_scalar(SELECT_STATUS)
            .bind(id)
            .fetch_optional(&mut *step)
            .await
            .map_err(fault(operation))?;
        match status {
            None => Ok(Dealt::Unknown),
            Some(word) => Ok(Dealt::NotFailed(status_of(operation, &word)?)),
        }
    }
}

/// Stores an event within a step; whether it was not there.
pub(super) async fn insert_event(
    operation: &'static str,
    step: &mut SqliteConnection,
    NewRow { event, envelope, hash }: &NewRow,
) -> Result<bool, PortError> {
    let insert = sqlx::query(INSERT)
        .bind(&event.source)
        .bind(&event.event_id)
        .bind(event.original.as_deref())
        .bind(event.body.as_slice())
        .bind(envelope)
        .bind(hash.as_slice())
        .bind(text(event.received_at));
    Ok(insert.execute(step).await.map_err(fault(operation))?.rows_affected() == 1)
}

impl EntryRow {
    fn entry(self, operation: &'static str) -> Result<InboxEntry, PortError> {
        Ok(InboxEntry {
            id: self.id,
            source: self.source,
            event_id: self.event_id,
            status: status_of(operation, &self.status)?,
            attempts: self.attempts,
            last_error: self.last_error,
            received_at: parse(operation, &self.received_at)?,
            processed_at: self.processed_at.map(|text| parse(operation, &text)).transpose()?,
            original: self.original,
        })
    }
}

fn status_of(operation: &'static str, word: &str) -> Result<InboxStatus, PortError> {
    InboxStatus::from_word(word)
        .ok_or_else(|| PortError::permanent(operation, format!("an event has the status {word}")))
}
