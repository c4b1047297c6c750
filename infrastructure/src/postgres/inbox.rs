//! The table of the inbox, and what people do with it.

use super::{PostgresLedger, counter, session, timestamp, timestamptz};
use crate::inbox::{InboxTable, NewRow, REMOVED_MAX, StoredInbox};
use application::ports::{Dealt, InboxDepth, InboxEntry, InboxFilter, InboxStatus, PortError};
use async_trait::async_trait;
use domain::Timestamp;
use sqlx::{
    FromRow, Postgres, QueryBuilder,
    types::chrono::{DateTime, Utc},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// In the order of the parameters, which is that of arrival. Waits for other transactions that insert the same events.
const INSERT: &str = "\
insert into webhook_events (source, event_id, original, body, envelope, content_hash, received_at)
select source, event_id, original, body, envelope, content_hash, received_at
from unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::bytea[], $7::timestamptz[])
    with ordinality as event (source, event_id, original, body, envelope, content_hash, received_at, place)
order by place
on conflict (source, event_id) do nothing
returning source, event_id";

const SELECT_HASHES: &str = "\
select source, event_id, content_hash from webhook_events
where (source, event_id) in (select * from unnest($1::text[], $2::text[]))";

const LIST: &str = "\
select id, source, event_id, status, attempts, last_error, received_at, processed_at, coalesce(original, body) as original
from webhook_events where true";

const RETRY: &str = "\
update webhook_events set status = 'received', attempts = 0, last_error = null, refused = null, processed_at = null,
    next_attempt_at = now()
where id = $1 and status = 'failed'";

const DISCARD: &str = "delete from webhook_events where id = $1 and status = 'failed'";

const SELECT_STATUS: &str = "select status from webhook_events where id = $1";

const REMOVE_DONE: &str = "\
delete from webhook_events where id in (
    select id from webhook_events where status = 'done' and processed_at < $1
    order by processed_at limit $2 for update skip locked)";

/// Each count by a partial index: events that are done, which are most, are not looked at.
const DEPTH: &str = "\
select (select count(*) from webhook_events where status = 'received') as received,
    (select count(*) from webhook_events where status = 'processing') as processing,
    (select count(*) from webhook_events where status = 'failed') as failed,
    least(
        (select received_at from webhook_events where status = 'received' and next_attempt_at <= clock_timestamp()
            order by id limit 1),
        (select min(received_at) from webhook_events where status = 'processing' and lease_until < clock_timestamp())
    ) as oldest,
    (select max(processed_at) from webhook_events where status = 'done') as last_done";

impl PostgresLedger {
    /// The inbox beside the books; it starts a task, so it needs a runtime.
    #[must_use]
    pub fn inbox(&self) -> StoredInbox {
        StoredInbox::start(Arc::new(self.clone()))
    }
}

#[derive(FromRow)]
struct EntryRow {
    id: i64,
    source: String,
    event_id: String,
    status: String,
    attempts: i32,
    last_error: Option<String>,
    received_at: DateTime<Utc>,
    processed_at: Option<DateTime<Utc>>,
    original: Vec<u8>,
}

#[derive(FromRow)]
struct DepthRow {
    received: i64,
    processing: i64,
    failed: i64,
    oldest: Option<DateTime<Utc>>,
    last_done: Option<DateTime<Utc>>,
}

#[async_trait]
impl InboxTable for PostgresLedger {
    async fn insert(&self, rows: &[NewRow]) -> Result<Vec<Option<[u8; 32]>>, PortError> {
        const OPERATION: &str = "store events in the inbox";
        let sources: Vec<&str> = rows.iter().map(|row| row.event.source.as_str()).collect();
        let event_ids: Vec<&str> = rows.iter().map(|row| row.event.event_id.as_str()).collect();
        let received: Vec<DateTime<Utc>> =
            rows.iter().map(|row| timestamptz(OPERATION, row.event.received_at)).collect::<Result<_, _>>()?;
        let insert = sqlx::query_as(INSERT)
            .bind(&sources)
            .bind(&event_ids)
            .bind(rows.iter().map(|row| row.event.original.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.event.body.as_slice()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.envelope.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.hash.as_slice()).collect::<Vec<_>>())
            .bind(received);
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let new: HashSet<(String, String)> = session.fetch_all(insert).await?.into_iter().collect();
        let known = if new.len() == rows.len() {
            HashMap::new()
        } else {
            let select = sqlx::query_as(SELECT_HASHES).bind(&sources).bind(&event_ids);
            let hashes: Vec<(String, String, Vec<u8>)> = session.fetch_all(select).await?;
            hashes.into_iter().map(|(source, event_id, hash)| ((source, event_id), hash)).collect()
        };
        session.commit().await?;
        let outcome = |row: &NewRow| {
            let key = (row.event.source.clone(), row.event.event_id.clone());
            if new.contains(&key) {
                return Ok(None);
            }
            let hash = known.get(&key).ok_or_else(|| {
                PortError::transient(OPERATION, "an event was removed while the same event came again")
            })?;
            let hash = hash.as_slice().try_into().map_err(|error| PortError::permanent(OPERATION, error))?;
            Ok(Some(hash))
        };
        rows.iter().map(outcome).collect()
    }

    async fn list(&self, filter: &InboxFilter) -> Result<Vec<InboxEntry>, PortError> {
        const OPERATION: &str = "list the events of the inbox";
        let mut query: QueryBuilder<Postgres> = QueryBuilder::new(LIST);
        if let Some(status) = filter.status {
            // A literal, so that the planner knows which partial index fits.
            query.push(" and status = '").push(status.word()).push("'");
        }
        if let Some(source) = &filter.source {
            query.push(" and source = ").push_bind(source);
        }
        if let Some(before) = filter.before {
            query.push(" and id < ").push_bind(before);
        }
        query.push(" order by id desc limit ").push_bind(i64::from(filter.limit));
        let mut session = self.begin(OPERATION, session::READ).await?;
        let rows: Vec<EntryRow> = session.fetch_all(query.build_query_as()).await?;
        session.finish().await?;
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
        let before = timestamptz(OPERATION, before)?;
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let remove = sqlx::query(REMOVE_DONE).bind(before).bind(i64::from(REMOVED_MAX));
        let removed = session.execute(remove).await?;
        session.commit().await?;
        Ok(removed)
    }

    async fn depth(&self) -> Result<InboxDepth, PortError> {
        const OPERATION: &str = "measure the inbox";
        let mut session = self.begin(OPERATION, session::READ).await?;
        let row: Option<DepthRow> = session.fetch_optional(sqlx::query_as(DEPTH)).await?;
        session.finish().await?;
        let row = row.ok_or_else(|| PortError::permanent(OPERATION, "there was no answer"))?;
        Ok(InboxDepth {
            received: counter(OPERATION, row.received)?,
            processing: counter(OPERATION, row.processing)?,
            failed: counter(OPERATION, row.failed)?,
            oldest: row.oldest.map(timestamp),
            last_done: row.last_done.map(timestamp),
        })
    }
}

impl PostgresLedger {
    /// Does with a failed event what the statement says.
    async fn deal(
        &self,
        operation: &'static str,
        statement: &'static str,
        id: i64,
    ) -> Result<Dealt, PortError> {
        let mut session = self.begin(operation, session::WRITE).await?;
        if session.execute(sqlx::query(statement).bind(id)).await? == 1 {
            session.commit().await?;
            return Ok(Dealt::Done);
        }
        let status: Option<(String,)> =
            session.fetch_optional(sqlx::query_as(SELECT_STATUS).bind(id)).await?;
        session.finish().await?;
        match status {
            None => Ok(Dealt::Unknown),
            Some((word,)) => Ok(Dealt::NotFailed(status_of(operation, &word)?)),
        }
    }
}

impl EntryRow {
    fn entry(self, operation: &'static str) -> Result<InboxEntry, PortError> {
        Ok(InboxEntry {
            id: self.id,
            source: self.source,
            event_id: self.event_id,
            status: status_of(operation, &self.status)?,
            attempts: u32::try_from(self.attempts).map_err(|error| PortError::permanent(operation, error))?,
            last_error: self.last_error,
            received_at: timestamp(self.received_at),
            processed_at: self.processed_at.map(timestamp),
            original: self.original,
        })
    }
}

fn status_of(operation: &'static str, word: &str) -> Result<InboxStatus, PortError> {
    InboxStatus::from_word(word)
        .ok_or_else(|| PortError::permanent(operation, format!("an event has the status {word}")))
}
