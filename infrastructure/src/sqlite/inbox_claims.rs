//! What workers do with the inbox: claims under a lease, by the clock of the machine.

use super::{
    EmbeddedStore, dead_letters,
    fault::{fault, refusal},
    time::{parse, window},
};
use crate::inbox::{
    Claim, Claimant, Claimed, EXPIRED_MAX, InboxClaims, RETRY_AFTER_MAX, SUSPECT_ATTEMPTS, added_refusals,
    envelope_from_json, warn_of_failed,
};
use application::ports::{DeadLetter, PortError};
use async_trait::async_trait;
use serde_json::json;
use sqlx::FromRow;
use std::{collections::BTreeMap, time::Duration};

/// Whether a claim has anything to do: asked without the right to write, because mostly it has not.
const IS_ANYTHING_DUE: &str = "\
SELECT EXISTS (SELECT 1 FROM webhook_events WHERE status = 'received'
        AND next_attempt_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER))
    OR EXISTS (SELECT 1 FROM webhook_events WHERE status = 'processing'
        AND lease_until < CAST(unixepoch('subsec') * 1000 AS INTEGER))";

/// Ends the leases that nobody renewed: `?1` attempts are too many (the last one was alone), `?2` ms is the first wait, `?3` ms the longest.
const END_LEASES: &str = "\
UPDATE webhook_events
SET status = CASE WHEN attempts >= ?1 THEN 'failed' ELSE 'received' END,
    processed_at = CASE WHEN attempts >= ?1 THEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now') END,
    last_error = 'attempt ' || attempts || ' ended without an answer: worker ' || lease_owner
        || ' was stopped, or paused for longer than its lease',
    next_attempt_at =
        CAST(unixepoch('subsec') * 1000 AS INTEGER) + min(?2 << min(max(attempts - 1, 0), 20), ?3),
    lease_owner = NULL, lease_until = NULL, refused = NULL
WHERE id IN (
    SELECT id FROM webhook_events
    WHERE status = 'processing' AND lease_until < CAST(unixepoch('subsec') * 1000 AS INTEGER)
    ORDER BY lease_until LIMIT ?4)
RETURNING id, status, envelope";

/// The oldest that are due, up to `?2` of them and `?3` bytes, for `?1` and `?4` ms. From `?5` attempts on an event is taken
/// alone, if `?6`; it ends the claim of those before it.
const CLAIM: &str = "\
UPDATE webhook_events
SET status = 'processing', attempts = attempts + 1, refused = NULL, lease_owner = ?1,
    lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?4
WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before, max(suspect) OVER (ORDER BY id) AS suspect,
            row_number() OVER (ORDER BY id) AS place
        FROM (
            SELECT id, length(body) AS bytes, attempts >= ?5 AS suspect FROM webhook_events
            WHERE status = 'received' AND next_attempt_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
            ORDER BY id LIMIT ?2))
    WHERE before < ?3 AND (NOT suspect OR (place = 1 AND ?6)))
RETURNING id, attempts, source, event_id, body, envelope, received_at";

const RENEW: &str = "\
UPDATE webhook_events SET lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?3
WHERE id IN (SELECT value FROM json_each(?2)) AND status = 'processing' AND lease_owner = ?1";

const SETTLE: &str = "\
UPDATE webhook_events
SET status = CASE WHEN refused IS NULL THEN 'done' ELSE 'failed' END,
    last_error = replace(refused, char(10), '; '), refused = NULL,
    processed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), lease_owner = NULL, lease_until = NULL
FROM (SELECT value ->> 0 AS claimed, value ->> 1 AS attempt FROM json_each(?2))
WHERE id = claimed AND attempts = attempt AND status = 'processing' AND lease_owner = ?1";

const IS_DRAINED: &str = "\
SELECT NOT EXISTS (SELECT 1 FROM webhook_events WHERE status = 'received')
    AND NOT EXISTS (SELECT 1 FROM webhook_events WHERE status = 'processing')";

const RELEASE: &str = "\
UPDATE webhook_events
SET status = 'received', attempts = attempts - 1, refused = NULL, lease_owner = NULL, lease_until = NULL,
    next_attempt_at = 0
WHERE status = 'processing' AND lease_owner = ?1";

const SELECT_REFUSED: &str = "SELECT refused FROM webhook_events WHERE id = ?";

/// One that was settled already, by a worker that took it over, has failed all the same.
const REFUSE: &str = "\
UPDATE webhook_events
SET refused = CASE WHEN status = 'processing' THEN ?2 ELSE refused END,
    status = CASE WHEN status = 'done' THEN 'failed' ELSE status END,
    last_error = CASE WHEN status = 'done' THEN replace(?2, char(10), '; ') ELSE last_error END
WHERE id = ?1";

#[derive(FromRow)]
struct ClaimedRow {
    id: i64,
    attempts: u32,
    source: String,
    event_id: String,
    body: Vec<u8>,
    envelope: String,
    received_at: String,
}

#[async_trait]
impl InboxClaims for EmbeddedStore {
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, PortError> {
        const OPERATION: &str = "claim events of the inbox";
        let mut reader = self.file.reader(OPERATION).await?;
        let due: bool =
            sqlx::query_scalar(IS_ANYTHING_DUE).fetch_one(&mut *reader).await.map_err(fault(OPERATION))?;
        drop(reader);
        if !due {
            return Ok(Vec::new());
        }
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let ended: Vec<(i64, String, String)> = sqlx::query_as(END_LEASES)
            .bind(claim.attempts_max.max(SUSPECT_ATTEMPTS + 1))
            .bind(window(claim.retry_after.min(RETRY_AFTER_MAX)))
            .bind(window(RETRY_AFTER_MAX))
            .bind(EXPIRED_MAX)
            .fetch_all(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        let rows: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
            .bind(claim.owner)
            .bind(claim.events)
            .bind(claim.bytes)
            .bind(window(claim.lease))
            .bind(SUSPECT_ATTEMPTS)
            .bind(claim.may_be_alone)
            .fetch_all(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        step.commit().await.map_err(fault(OPERATION))?;
        warn_of_failed(&ended);
        let mut claimed: Vec<Claimed> =
            rows.into_iter().map(|row| row.claimed(OPERATION)).collect::<Result<_, _>>()?;
        claimed.sort_unstable_by_key(|event| event.id);
        Ok(claimed)
    }

    async fn renew(&self, owner: &str, ids: &[i64], lease: Duration) -> Result<(), PortError> {
        let renew = sqlx::query(RENEW).bind(owner).bind(list(ids)).bind(window(lease));
        self.write("renew leases of the inbox", renew).await
    }

    async fn settle(&self, owner: &str, claims: &[Claimant]) -> Result<(), PortError> {
        let claims: serde_json::Value = claims.iter().map(|claim| json!([claim.id, claim.attempt])).collect();
        let settle = sqlx::query(SETTLE).bind(owner).bind(claims.to_string());
        self.write("settle events of the inbox", settle).await
    }

    async fn is_drained(&self) -> Result<bool, PortError> {
        const OPERATION: &str = "look whether the inbox is drained";
        let mut reader = self.file.reader(OPERATION).await?;
        sqlx::query_scalar(IS_DRAINED).fetch_one(&mut *reader).await.map_err(fault(OPERATION))
    }

    async fn release(&self, owner: &str) -> Result<(), PortError> {
        self.write("give events back to the inbox", sqlx::query(RELEASE).bind(owner)).await
    }

    /// The letters go to the dead letters of the file in the same transaction.
    async fn refuse(
        &self,
        refusals: &BTreeMap<i64, Vec<String>>,
        letters: &[DeadLetter],
    ) -> Result<(), PortError> {
        const OPERATION: &str = "keep what was refused in the inbox";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        dead_letters::insert(&mut step, letters).await?;
        for (id, lines) in refusals {
            let known: Option<Option<String>> = sqlx::query_scalar(SELECT_REFUSED)
                .bind(id)
                .fetch_optional(&mut *step)
                .await
                .map_err(fault(OPERATION))?;
            let refuse = sqlx::query(REFUSE).bind(id).bind(added_refusals(known.flatten().as_deref(), lines));
            refuse.execute(&mut *step).await.map_err(fault(OPERATION))?;
        }
        step.commit().await.map_err(fault(OPERATION))
    }
}

impl EmbeddedStore {
    /// One statement in a step of its own.
    pub(super) async fn write(
        &self,
        operation: &'static str,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), PortError> {
        let mut turn = self.file.writer(operation).await?;
        let mut step = turn.begin().await?;
        query.execute(&mut *step).await.map_err(fault(operation))?;
        step.commit().await.map_err(fault(operation))
    }
}

impl ClaimedRow {
    fn claimed(self, operation: &'static str) -> Result<Claimed, PortError> {
        Ok(Claimed {
            id: self.id,
            attempt: self.attempts,
            source: self.source,
            event_id: self.event_id,
            body: self.body,
            envelope: envelope_from_json(&self.envelope).map_err(refusal(operation))?,
            received_at: parse(operation, &self.received_at)?,
        })
    }
}

/// Numbers as one parameter.
fn list(ids: &[i64]) -> String {
    serde_json::Value::from(ids).to_string()
}
