//! The dead letters of the file as people go through them. What is sent back waits in the inbox of the same file.

use super::{
    EmbeddedStore,
    fault::{fault, refusal},
    inbox::insert_event,
    time::{exact_milliseconds, parse},
};
use crate::inbox::{HEADER_EVENT, NewRow};
use application::ports::{Envelope, InboxEvent, LetterPlace, LetterRun, PortError, Returned, StoredLetter};
use async_trait::async_trait;
use chrono::Utc;
use domain::Timestamp;
use futures_util::TryStreamExt;
use std::{collections::HashMap, sync::Arc};

/// The most letters, and about the most bytes, that are read at once.
const LETTERS_AT_ONCE: u32 = 200;
const BYTES_AT_ONCE: usize = 8 << 20;
/// How many letters [`EmbeddedStore::remove_letters`] removes at most.
const REMOVED_MAX: u32 = 2_000;
/// What the events of the inbox that are letters name as their source.
const SOURCE: &str = "dead-letters";
/// The source whose messages were lines of files.
const FILE: &str = "file";

const READ: &str = "\
SELECT rowid, id, reason, detail, item, source, message_id, content_type, routing_key, headers, body, received_at
FROM dead_letters WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?";

const REMOVE_OLD: &str = "\
DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE stored_at < ? LIMIT ?)";

/// The dead letters of an embedded file.
///
/// A letter goes back by one transaction, which stores it in the inbox and removes it here: never both, never neither.
pub struct EmbeddedLetters {
    store: Arc<EmbeddedStore>,
    /// Why what was refused of files cannot go there, where it cannot.
    file_obstacle: Option<&'static str>,
    /// Why nothing can, where it cannot.
    obstacle: Option<&'static str>,
}

impl EmbeddedLetters {
    /// The letters of this file.
    #[must_use]
    pub const fn new(store: Arc<EmbeddedStore>) -> Self {
        Self { store, file_obstacle: None, obstacle: None }
    }

    /// Lines of files stay, for this reason.
    #[must_use]
    pub fn lines_stay(self, reason: &'static str) -> Self {
        Self { file_obstacle: Some(reason), ..self }
    }

    /// All stay, for this reason.
    #[must_use]
    pub fn all_stay(self, reason: &'static str) -> Self {
        Self { obstacle: Some(reason), ..self }
    }
}

impl EmbeddedStore {
    /// Removes at most some thousand letters that were stored before a moment; how many. Call again while it is not 0.
    ///
    /// # Errors
    /// Transient while the file is held by another process for too long.
    pub async fn remove_letters(&self, before: Timestamp) -> Result<u64, PortError> {
        const OPERATION: &str = "remove old dead letters from the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let remove = sqlx::query(REMOVE_OLD).bind(exact_milliseconds(before)).bind(REMOVED_MAX);
        let removed = remove.execute(&mut *step).await.map_err(fault(OPERATION))?.rows_affected();
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(removed)
    }
}

#[async_trait]
impl LetterPlace for EmbeddedLetters {
    async fn open(&self) -> Result<Box<dyn LetterRun>, PortError> {
        const OPERATION: &str = "go through the dead letters of the embedded file";
        let mut reader = self.store.file.reader(OPERATION).await?;
        let last = sqlx::query_scalar("SELECT coalesce(max(rowid), 0) FROM dead_letters")
            .fetch_one(&mut *reader)
            .await
            .map_err(fault(OPERATION))?;
        let (store, given) = (Arc::clone(&self.store), HashMap::new());
        let (file_obstacle, obstacle) = (self.file_obstacle, self.obstacle);
        Ok(Box::new(Run { store, file_obstacle, obstacle, after: 0, last, given }))
    }
}

struct Run {
    store: Arc<EmbeddedStore>,
    file_obstacle: Option<&'static str>,
    obstacle: Option<&'static str>,
    after: i64,
    last: i64,
    /// The ids of the letters that were given last. Numbers of rows are used again, ids name a letter for ever.
    given: HashMap<u64, String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    rowid: i64,
    id: String,
    reason: String,
    detail: String,
    item: Option<u32>,
    source: String,
    message_id: Option<String>,
    content_type: Option<String>,
    routing_key: Option<String>,
    headers: String,
    body: Vec<u8>,
    received_at: String,
}

#[async_trait]
impl LetterRun for Run {
    async fn next(&mut self) -> Result<Vec<(u64, StoredLetter)>, PortError> {
        const OPERATION: &str = "read dead letters of the embedded file";
        let mut reader = self.store.file.reader(OPERATION).await?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        {
            let read = sqlx::query_as(READ).bind(self.after).bind(self.last).bind(LETTERS_AT_ONCE);
            let mut rows = read.fetch(&mut *reader);
            while bytes < BYTES_AT_ONCE
                && let Some(row) = rows.try_next().await.map_err(fault(OPERATION))?
            {
                let row: Row = row;
                self.after = row.rowid;
                bytes += row.body.len();
                let number = u64::try_from(row.rowid).map_err(refusal(OPERATION))?;
                letters.push((number, self.letter(OPERATION, row)?));
            }
        }
        if !letters.is_empty() {
            self.given = letters.iter().map(|(number, letter)| (*number, letter.id.clone())).collect();
        }
        Ok(letters)
    }

    async fn send_back(&mut self, letters: &[Returned]) -> Result<(), PortError> {
        const OPERATION: &str = "send dead letters of the embedded file back";
        let mut turn = self.store.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        for letter in letters {
            let Some(id) = self.given.get(&letter.number) else { continue };
            let delete = sqlx::query("DELETE FROM dead_letters WHERE id = ?").bind(id);
            // Where somebody else has sent it back or removed it, that is done.
            if delete.execute(&mut *step).await.map_err(fault(OPERATION))?.rows_affected() == 1 {
                let row = NewRow::new(OPERATION, event(letter))?;
                insert_event(OPERATION, &mut step, &row).await?;
            }
        }
        step.commit().await.map_err(fault(OPERATION))
    }

    async fn remove(&mut self, numbers: &[u64]) -> Result<(), PortError> {
        const OPERATION: &str = "remove dead letters from the embedded file";
        let mut turn = self.store.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        for id in numbers.iter().filter_map(|number| self.given.get(number)) {
            let delete = sqlx::query("DELETE FROM dead_letters WHERE id = ?").bind(id);
            delete.execute(&mut *step).await.map_err(fault(OPERATION))?;
        }
        step.commit().await.map_err(fault(OPERATION))
    }

    async fn close(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

impl Run {
    fn letter(&self, operation: &'static str, row: Row) -> Result<StoredLetter, PortError> {
        let lines = self.file_obstacle.filter(|_| row.source == FILE);
        Ok(StoredLetter {
            obstacle: self.obstacle.or(lines).map(ToOwned::to_owned),
            id: row.id,
            reason: row.reason,
            detail: row.detail,
            body: row.body,
            item: row.item,
            source: row.source,
            place: String::new(),
            envelope: Envelope {
                message_id: row.message_id,
                content_type: row.content_type,
                routing_key: row.routing_key,
                headers: serde_json::from_str(&row.headers).map_err(refusal(operation))?,
            },
            received_at: Some(parse(operation, &row.received_at)?),
        })
    }
}

/// A new event of the inbox: what it is known by is in its envelope.
fn event(letter: &Returned) -> InboxEvent {
    let mut envelope = letter.envelope.clone();
    envelope.headers.retain(|(name, _)| name != HEADER_EVENT);
    #[expect(clippy::disallowed_methods, reason = "the store is where the time of its events is taken")]
    let now = Utc::now();
    InboxEvent {
        source: SOURCE.to_owned(),
        event_id: uuid::Uuid::new_v4().to_string(),
        original: None,
        body: letter.body.clone(),
        envelope,
        received_at: Timestamp::new(now.timestamp(), now.timestamp_subsec_nanos()),
    }
}
