//! Shows the counts to an audit; changes nothing, not even what this program has seen.

use super::{
    EmbeddedStore,
    amount::{Limbs, Nonsense, count, stored, total},
    fault::{fault, refusal},
    shards::StateRow,
};
use application::ports::{
    AccumulatorAudit, FoundRow, GenerationStore, PortError, RowCount, SealedCut, ShardCut, Stray,
};
use async_trait::async_trait;
use domain::Shard;
use sqlx::{Connection, SqliteConnection};

const OPERATION: &str = "audit the embedded file";

#[async_trait]
impl AccumulatorAudit for EmbeddedStore {
    /// Counts the identities one by one: some seconds for ten million of them.
    async fn cut(&self, shard: Shard) -> Result<Option<ShardCut>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let mut snapshot = reader.begin().await.map_err(fault(OPERATION))?;
        let Some(row) = StateRow::read(OPERATION, &mut snapshot, shard).await? else { return Ok(None) };
        let (state, _) = row.state(OPERATION, shard, None)?;
        let rows = |stored| RowCount { recorded: None, stored };
        let mut sealed = Vec::new();
        for generation in state.deleted + 1..state.generation {
            let number = stored(generation).map_err(refusal(OPERATION))?;
            let held: Option<(i64, i64, i64)> = sqlx::query_as(
                "SELECT nanos_high, nanos_low, pulses FROM counting_generations WHERE shard = ? AND generation = ?",
            )
            .bind(i64::from(shard.0))
            .bind(number)
            .fetch_optional(&mut *snapshot)
            .await
            .map_err(fault(OPERATION))?;
            let held = held.map(|(high, low, pulses)| total(Limbs { high, low }, pulses));
            sealed.push(SealedCut {
                generation,
                total: held.transpose().map_err(refusal(OPERATION))?,
                rows: rows(0),
            });
        }
        let (identities, identities_dropped) =
            identities(&mut snapshot, shard).await?.map_err(refusal(OPERATION))?;
        Ok(Some(ShardCut {
            state,
            active_rows: rows(0),
            sealed,
            identities,
            identities_dropped,
            identities_lost: 0,
        }))
    }

    /// A row that does not read is an error for all of them: it says where.
    async fn rows(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<FoundRow>, Option<u32>), PortError> {
        let (rows, next) = self.read(shard, generation, part).await?;
        Ok((rows.into_iter().map(FoundRow::Good).collect(), next))
    }

    /// What a deletion has left to be removed in later steps is none.
    async fn strays(&self) -> Result<Vec<Stray>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let found: Vec<(i64, String)> = sqlx::query_as(
            "WITH RECURSIVE
                used (shard, generation) AS (SELECT DISTINCT shard, generation FROM counting_usage),
                buckets (bucket) AS (
                    SELECT min(bucket) FROM counting_identities
                    UNION ALL
                    SELECT (SELECT min(bucket) FROM counting_identities WHERE bucket > buckets.bucket)
                    FROM buckets WHERE bucket IS NOT NULL)
             SELECT used.shard, 'rows of generation ' || used.generation || ' in counting_usage' FROM used
             LEFT JOIN counting_shards AS shards ON shards.shard = used.shard
             WHERE shards.shard IS NULL OR used.generation > shards.generation OR used.generation < 1
             UNION ALL
             SELECT sealed.shard, 'generation ' || sealed.generation || ' in counting_generations'
             FROM counting_generations AS sealed JOIN counting_shards AS shards ON shards.shard = sealed.shard
             WHERE sealed.generation >= shards.generation OR sealed.generation <= shards.deleted
             UNION ALL
             SELECT 0, 'bucket ' || bucket || ' in counting_identities' FROM buckets
             WHERE bucket IS NOT NULL AND bucket NOT IN (SELECT bucket FROM counting_buckets)
             LIMIT 100",
        )
        .fetch_all(&mut *reader)
        .await
        .map_err(fault(OPERATION))?;
        let stray = |(shard, name): (i64, String)| {
            Ok(Stray { shard: Shard(u16::try_from(shard).map_err(|_| Nonsense)?), name })
        };
        found.into_iter().map(stray).collect::<Result<_, Nonsense>>().map_err(refusal(OPERATION))
    }
}

/// How many identities the shard knows, and how many it has forgotten.
async fn identities(
    connection: &mut SqliteConnection,
    shard: Shard,
) -> Result<Result<(u64, u64), Nonsense>, PortError> {
    let (known, dropped): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum((SELECT count(*) FROM counting_identities AS ids WHERE ids.bucket = kept.bucket)), 0),
            coalesce(min(kept.identities_before), 0)
         FROM counting_buckets AS kept WHERE kept.shard = ? AND NOT kept.dropped",
    )
    .bind(i64::from(shard.0))
    .fetch_one(connection)
    .await
    .map_err(fault(OPERATION))?;
    Ok(count(known).and_then(|known| Ok((known, count(dropped)?))))
}
