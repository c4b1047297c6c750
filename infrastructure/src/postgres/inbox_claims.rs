//! What workers do with the inbox: claims under a lease, by the clock of the server.

use super::{PostgresLedger, session, timestamp};
use crate::inbox::{
    Claim, Claimant, Claimed, EXPIRED_MAX, InboxClaims, RETRY_AFTER_MAX, SUSPECT_ATTEMPTS, added_refusals,
    envelope_from_json, warn_of_failed,
};
use application::ports::{DeadLetter, PortError};
use async_trait::async_trait;
use sqlx::{
    FromRow,
    types::chrono::{DateTime, Utc},
};
use std::{collections::BTreeMap, time::Duration};

/// Ends the leases that nobody renewed: `$1` attempts are too many (the last one was alone), `$2` ms is the first wait, `$3` ms the longest.
const END_LEASES: &str = "\
with ended as (
    select id from webhook_events where status = 'processing' and lease_until < clock_timestamp()
    order by lease_until limit $4 for update skip locked)
update webhook_events as event
set status = case when attempts >= $1 then 'failed' else 'received' end,
    processed_at = case when attempts >= $1 then clock_timestamp() end,
    last_error = format('attempt %s ended without an answer: worker %s was stopped, or paused for longer than its lease',
        attempts, lease_owner),
    next_attempt_at = clock_timestamp() + least($2 * power(2, least(attempts - 1, 30)), $3) * interval '1 millisecond',
    lease_owner = null, lease_until = null, refused = null
from ended where event.id = ended.id
returning event.id, event.status, event.envelope";

/// The oldest that are due, up to `$2` of them and `$3` bytes, for `$1` and `$4` ms. From `$5` attempts on an event is taken
/// alone, if `$6`; it ends the claim of those before it.
const CLAIM: &str = "\
with due as (
    select id, octet_length(body) as bytes, attempts >= $5 as suspect from webhook_events
    where status = 'received' and next_attempt_at <= clock_timestamp()
    order by id limit $2 for update skip locked),
sized as (
    select id, sum(bytes) over (order by id) - bytes as before, bool_or(suspect) over (order by id) as suspect,
        row_number() over (order by id) as place
    from due)
update webhook_events as event
set status = 'processing', attempts = attempts + 1, refused = null, lease_owner = $1,
    lease_until = clock_timestamp() + $4 * interval '1 millisecond'
from sized where event.id = sized.id and sized.before < $3 and (not sized.suspect or (sized.place = 1 and $6))
returning event.id, event.attempts, event.source, event.event_id, event.body, event.envelope, event.received_at";

const RENEW: &str = "\
with held as (
    select id from webhook_events where id = any ($2) and status = 'processing' and lease_owner = $1
    order by id for update)
update webhook_events as event set lease_until = clock_timestamp() + $3 * interval '1 millisecond'
from held where event.id = held.id";

const SETTLE: &str = "\
with held as (
    select id from webhook_events where id = any ($2) and status = 'processing' and lease_owner = $1
        and (id, attempts) in (select * from unnest($2::bigint[], $3::integer[]))
    order by id for update)
update webhook_events as event
set status = case when refused is null then 'done' else 'failed' end,
    last_error = replace(refused, E'\\n', '; '), refused = null,
    processed_at = clock_timestamp(), lease_owner = null, lease_until = null
from held where event.id = held.id";

const IS_DRAINED: &str = "\
select not exists (select from webhook_events where status = 'received')
    and not exists (select from webhook_events where status = 'processing')";

const RELEASE: &str = "\
with held as (
    select id from webhook_events where status = 'processing' and lease_owner = $1 order by id for update)
update webhook_events as event
set status = 'received', attempts = attempts - 1, refused = null, lease_owner = null, lease_until = null,
    next_attempt_at = clock_timestamp()
from held where event.id = held.id";

const LOCK_REFUSED: &str =
    "select id, refused from webhook_events where id = any ($1) order by id for update";

/// One that was settled already, by a worker that took it over, has failed all the same.
const REFUSE: &str = "\
update webhook_events as event
set refused = case when status = 'processing' then refusal.lines else event.refused end,
    status = case when status = 'done' then 'failed' else status end,
    last_error = case when status = 'done' then replace(refusal.lines, E'\\n', '; ') else last_error end
from unnest($1::bigint[], $2::text[]) as refusal (id, lines) where event.id = refusal.id";

#[derive(FromRow)]
struct ClaimedRow {
    id: i64,
    attempts: i32,
    source: String,
    event_id: String,
    body: Vec<u8>,
    envelope: String,
    received_at: DateTime<Utc>,
}

#[async_trait]
impl InboxClaims for PostgresLedger {
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, PortError> {
        const OPERATION: &str = "claim events of the inbox";
        let end_leases = sqlx::query_as(END_LEASES)
            .bind(i32::try_from(claim.attempts_max.max(SUSPECT_ATTEMPTS + 1)).unwrap_or(i32::MAX))
            .bind(milliseconds(claim.retry_after))
            .bind(milliseconds(RETRY_AFTER_MAX))
            .bind(i64::from(EXPIRED_MAX));
        let take = sqlx::query_as(CLAIM)
            .bind(claim.owner)
            .bind(i64::from(claim.events))
            .bind(i64::from(claim.bytes))
            .bind(milliseconds(claim.lease))
            .bind(i64::from(SUSPECT_ATTEMPTS))
            .bind(claim.may_be_alone);
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let ended: Vec<(i64, String, String)> = session.fetch_all(end_leases).await?;
        let rows: Vec<ClaimedRow> = session.fetch_all(take).await?;
        session.commit().await?;
        warn_of_failed(&ended);
        let mut claimed: Vec<Claimed> =
            rows.into_iter().map(|row| row.claimed(OPERATION)).collect::<Result<_, _>>()?;
        claimed.sort_unstable_by_key(|event| event.id);
        Ok(claimed)
    }

    async fn renew(&self, owner: &str, ids: &[i64], lease: Duration) -> Result<(), PortError> {
        let renew = sqlx::query(RENEW).bind(owner).bind(ids).bind(milliseconds(lease));
        self.write("renew leases of the inbox", renew).await
    }

    async fn settle(&self, owner: &str, claims: &[Claimant]) -> Result<(), PortError> {
        const OPERATION: &str = "settle events of the inbox";
        let ids: Vec<i64> = claims.iter().map(|claim| claim.id).collect();
        let attempts: Result<Vec<i32>, _> = claims.iter().map(|claim| i32::try_from(claim.attempt)).collect();
        let attempts = attempts.map_err(|error| PortError::permanent(OPERATION, error))?;
        self.write(OPERATION, sqlx::query(SETTLE).bind(owner).bind(ids).bind(attempts)).await
    }

    async fn is_drained(&self) -> Result<bool, PortError> {
        let mut session = self.begin("look whether the inbox is drained", session::READ).await?;
        let row: Option<(bool,)> = session.fetch_optional(sqlx::query_as(IS_DRAINED)).await?;
        session.finish().await?;
        Ok(row.is_some_and(|(drained,)| drained))
    }

    async fn release(&self, owner: &str) -> Result<(), PortError> {
        self.write("give events back to the inbox", sqlx::query(RELEASE).bind(owner)).await
    }

    /// The letters themselves are not kept: the event holds its bytes, and stays until a person has dealt with it.
    async fn refuse(&self, refusals: &BTreeMap<i64, Vec<String>>, _: &[DeadLetter]) -> Result<(), PortError> {
        const OPERATION: &str = "keep what was refused in the inbox";
        let ids: Vec<i64> = refusals.keys().copied().collect();
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let known: Vec<(i64, Option<String>)> =
            session.fetch_all(sqlx::query_as(LOCK_REFUSED).bind(ids)).await?;
        let lines: Vec<String> = known
            .iter()
            .filter_map(|(id, known)| Some(added_refusals(known.as_deref(), refusals.get(id)?)))
            .collect();
        let ids: Vec<i64> = known.iter().map(|(id, _)| *id).collect();
        session.execute(sqlx::query(REFUSE).bind(ids).bind(lines)).await?;
        session.commit().await
    }
}

impl PostgresLedger {
    async fn write(
        &self,
        operation: &'static str,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<(), PortError> {
        let mut session = self.begin(operation, session::WRITE).await?;
        session.execute(query).await?;
        session.commit().await
    }
}

impl ClaimedRow {
    fn claimed(self, operation: &'static str) -> Result<Claimed, PortError> {
        Ok(Claimed {
            id: self.id,
            attempt: u32::try_from(self.attempts).map_err(|error| PortError::permanent(operation, error))?,
            source: self.source,
            event_id: self.event_id,
            body: self.body,
            envelope: envelope_from_json(&self.envelope)
                .map_err(|error| PortError::permanent(operation, error))?,
            received_at: timestamp(self.received_at),
        })
    }
}

/// For the arithmetic of intervals, which takes `double precision`.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
