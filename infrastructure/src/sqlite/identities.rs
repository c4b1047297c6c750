//! The identities that a shard remembers, in buckets by the time of their application.

use super::{
    EmbeddedStore,
    fault::fault,
    time::{Clock, window},
};
use application::ports::{PortError, Remembered, RememberedIdentities};
use async_trait::async_trait;
use domain::{Fingerprint, PulseDigest, Shard, Timestamp};
use sqlx::SqliteConnection;
use std::time::Duration;

/// Those of the digests that are known, by their place in the list, with the content that counted.
pub(super) async fn known(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    digests: &[PulseDigest],
) -> Result<Vec<(usize, Fingerprint)>, PortError> {
    let packed: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT number, fingerprint FROM counting_numbers
         CROSS JOIN counting_buckets AS buckets ON buckets.shard = ?1 AND NOT buckets.dropped
         CROSS JOIN counting_identities AS identities
            ON identities.bucket = buckets.bucket AND identities.digest = substr(?2, number * 16 + 1, 16)
         WHERE number < ?3",
    )
    .bind(shard)
    .bind(packed)
    .bind(i64::try_from(digests.len()).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await
    .map_err(fault(operation))?;
    rows.into_iter()
        .map(|(number, fingerprint)| {
            let fingerprint: [u8; 6] = fingerprint.try_into().ok()?;
            Some((usize::try_from(number).ok()?, Fingerprint(fingerprint)))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            PortError::permanent(operation, "a remembered identity cannot be read: the file is damaged")
        })
}

#[async_trait]
impl RememberedIdentities for EmbeddedStore {
    async fn remembered(
        &self,
        shard: Shard,
        identities: &[PulseDigest],
    ) -> Result<Vec<(usize, Remembered)>, PortError> {
        const OPERATION: &str = "ask the embedded file for identities";
        let mut reader = self.file.reader(OPERATION).await?;
        let packed: Vec<u8> = identities.iter().flat_map(|digest| digest.0).collect();
        // The times of the buckets are by the clock of the shard, which stood at its latest time when it was last moved.
        let rows: Vec<(i64, Vec<u8>, i64, Option<i64>)> = sqlx::query_as(
            "SELECT number, fingerprint, clock_latest - clock_elapsed + opened_at,
                clock_latest - clock_elapsed + closed_at
             FROM counting_numbers
             CROSS JOIN counting_shards AS shards ON shards.shard = ?1
             CROSS JOIN counting_buckets AS buckets ON buckets.shard = ?1 AND NOT buckets.dropped
             CROSS JOIN counting_identities AS identities
                ON identities.bucket = buckets.bucket AND identities.digest = substr(?2, number * 16 + 1, 16)
             WHERE number < ?3",
        )
        .bind(i64::from(shard.0))
        .bind(packed)
        .bind(i64::try_from(identities.len()).unwrap_or(i64::MAX))
        .fetch_all(&mut *reader)
        .await
        .map_err(fault(OPERATION))?;
        let time = |milliseconds: i64| Timestamp::new(milliseconds.div_euclid(1_000), 0);
        let remembered = |(number, content, opened, closed): (i64, Vec<u8>, i64, Option<i64>)| {
            let content = Fingerprint(content.try_into().ok()?);
            let remembered = Remembered { content, after: Some(time(opened)), until: closed.map(time) };
            Some((usize::try_from(number).ok()?, remembered))
        };
        let read: Option<Vec<_>> = rows.into_iter().map(remembered).collect();
        read.ok_or_else(|| PortError::permanent(OPERATION, "a remembered identity cannot be read"))
    }
}

/// Adds identities that are not known to the open bucket of the shard.
pub(super) async fn remember(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    fresh: &[(PulseDigest, Fingerprint)],
) -> Result<(), PortError> {
    if fresh.is_empty() {
        return Ok(());
    }
    let digests: Vec<u8> = fresh.iter().flat_map(|(digest, _)| digest.0).collect();
    let fingerprints: Vec<u8> = fresh.iter().flat_map(|(_, fingerprint)| fingerprint.0).collect();
    sqlx::query(
        "INSERT INTO counting_identities (bucket, digest, fingerprint)
         SELECT (SELECT bucket FROM counting_buckets WHERE shard = ?1 AND closed_at IS NULL),
            substr(?2, number * 16 + 1, 16), substr(?3, number * 6 + 1, 6)
         FROM counting_numbers WHERE number < ?4",
    )
    .bind(shard)
    .bind(digests)
    .bind(fingerprints)
    .bind(i64::try_from(fresh.len()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .map_err(fault(operation))?;
    Ok(())
}

/// Opens the first bucket of a shard.
pub(super) async fn open_first(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
) -> Result<(), PortError> {
    sqlx::query("INSERT INTO counting_buckets (shard, opened_at, identities_before) VALUES (?, 0, 0)")
        .bind(shard)
        .execute(connection)
        .await
        .map_err(fault(operation))?;
    Ok(())
}

/// Opens a new bucket where the open one is old enough, and drops those that were closed longer than the window ago.
///
/// `identities` is how many the shard has remembered in its life.
pub(super) async fn turn_over(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    clock: Clock,
    length: Duration,
    identities: i64,
) -> Result<(), PortError> {
    let window = window(length);
    let closed = sqlx::query(
        "UPDATE counting_buckets SET closed_at = ?2 WHERE shard = ?1 AND closed_at IS NULL AND ?2 - opened_at >= ?3",
    )
    .bind(shard)
    .bind(clock.elapsed)
    .bind(window / 2)
    .execute(&mut *connection)
    .await
    .map_err(fault(operation))?;
    if closed.rows_affected() > 0 {
        sqlx::query("INSERT INTO counting_buckets (shard, opened_at, identities_before) VALUES (?, ?, ?)")
            .bind(shard)
            .bind(clock.elapsed)
            .bind(identities)
            .execute(&mut *connection)
            .await
            .map_err(fault(operation))?;
    }
    // A quarter more than the window, which is as far as the clock may have been moved ahead.
    sqlx::query(
        "UPDATE counting_buckets SET dropped = 1 WHERE shard = ?1 AND NOT dropped AND ?2 - closed_at > ?3",
    )
    .bind(shard)
    .bind(clock.elapsed)
    .bind(window.saturating_add(window / 4))
    .execute(connection)
    .await
    .map_err(fault(operation))?;
    Ok(())
}
