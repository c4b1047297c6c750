//! The state as it is written.

use super::{Row, State, StateError, time, total};
use application::ports::{FlushRecord, Registration, ShardRecord, ShardStatus};
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, ShardCount, TenantId, Timestamp, UsageKey, UsageTotal,
    UsageUnit,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

const FORMAT: u32 = 1;

/// Read first, whatever else there is.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireState<'a> {
    format: u32,
    accumulator: Option<WireAccumulator>,
    flushes: Vec<WireFlush>,
    earlier_flushes: Vec<WireEarlier>,
    positions: BTreeMap<u16, String>,
    first_units: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    usage: Vec<WireRow<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAccumulator {
    id: String,
    shards: Vec<WireShard>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireShard {
    created: bool,
    seen: (u64, u64),
    flushed: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFlush {
    shard: u16,
    generation: u64,
    used_amount: String,
    pulse_count: u64,
    rows: u64,
    sealed_at: (i64, u32),
    started_at: (i64, u32),
    flushed_at: (i64, u32),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEarlier {
    shard: u16,
    used_amount: String,
    pulse_count: u64,
}

/// Tenant, SKU, unit, hour, amount, pulses, number, created and updated: an array, because there are many.
#[derive(Serialize, Deserialize)]
struct WireRow<'a>(Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, i32, String, u64, i64, i64, i64);

impl State {
    /// The state as it is written.
    pub(in crate::json) fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let mut bytes = serde_json::to_vec(&WireState::from(self))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads and checks what was written.
    pub(in crate::json) fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let Format { format } = serde_json::from_slice(bytes)?;
        if format > FORMAT {
            return Err(StateError::Newer(format));
        }
        let state = Self::try_from(serde_json::from_slice::<WireState<'_>>(bytes)?)?;
        state.check().map(|()| state)
    }
}

impl<'a> From<&'a State> for WireState<'a> {
    fn from(state: &'a State) -> Self {
        Self {
            format: FORMAT,
            accumulator: state.registration.as_ref().map(WireAccumulator::from),
            flushes: state.flushes.values().map(WireFlush::from).collect(),
            earlier_flushes: state.earlier.iter().map(WireEarlier::from).collect(),
            positions: state.positions.iter().map(|(shard, marks)| (shard.0, marks.clone())).collect(),
            first_units: state
                .first_units
                .iter()
                .map(|(sku, unit)| (Cow::Borrowed(sku.as_str()), Cow::Borrowed(unit.as_str())))
                .collect(),
            usage: state.usage.iter().map(WireRow::from).collect(),
        }
    }
}

impl TryFrom<WireState<'_>> for State {
    type Error = StateError;

    fn try_from(wire: WireState<'_>) -> Result<Self, StateError> {
        let flush =
            |wire| FlushRecord::try_from(wire).map(|record| ((record.shard, record.generation), record));
        let earlier =
            |wire: WireEarlier| Ok((Shard(wire.shard), total(&wire.used_amount, wire.pulse_count)?));
        let first_unit = |(sku, unit): (Cow<'_, str>, Cow<'_, str>)| {
            Ok((ProductSku::new(sku).map_err(name)?, UsageUnit::new(unit).map_err(name)?))
        };
        let rows = wire.usage.len();
        let state = Self {
            registration: wire.accumulator.map(Registration::try_from).transpose()?,
            flushes: wire.flushes.into_iter().map(flush).collect::<Result<_, _>>()?,
            earlier: wire.earlier_flushes.into_iter().map(earlier).collect::<Result<_, StateError>>()?,
            positions: wire.positions.into_iter().map(|(shard, marks)| (Shard(shard), marks)).collect(),
            first_units: wire.first_units.into_iter().map(first_unit).collect::<Result<_, StateError>>()?,
            usage: wire.usage.into_iter().map(<(UsageKey, Row)>::try_from).collect::<Result<_, _>>()?,
        };
        if state.usage.len() == rows { Ok(state) } else { Err(StateError::Nonsense("a total twice")) }
    }
}

fn name<E>(_: E) -> StateError {
    StateError::Nonsense("a name")
}

impl From<&Registration> for WireAccumulator {
    fn from(known: &Registration) -> Self {
        let shard = |record: &ShardRecord| WireShard {
            created: record.status == ShardStatus::Created,
            seen: record.seen,
            flushed: record.flushed,
        };
        Self { id: known.accumulator.to_string(), shards: known.records.iter().map(shard).collect() }
    }
}

impl TryFrom<WireAccumulator> for Registration {
    type Error = StateError;

    fn try_from(wire: WireAccumulator) -> Result<Self, StateError> {
        let count = u16::try_from(wire.shards.len()).ok().and_then(ShardCount::new);
        let shards = count.ok_or(StateError::Nonsense("a number of shards"))?;
        let record = |(shard, wire): (Shard, WireShard)| ShardRecord {
            shard,
            status: if wire.created { ShardStatus::Created } else { ShardStatus::Creating },
            seen: wire.seen,
            flushed: wire.flushed,
            recovery: 0,
        };
        Ok(Self {
            accumulator: AccumulatorId::parse(&wire.id).ok_or(StateError::Nonsense("an accumulator"))?,
            shards,
            records: shards.shards().zip(wire.shards).map(record).collect(),
        })
    }
}

impl From<&FlushRecord> for WireFlush {
    fn from(record: &FlushRecord) -> Self {
        let time = |time: Timestamp| (time.seconds(), time.nanos());
        Self {
            shard: record.shard.0,
            generation: record.generation,
            used_amount: record.total.amount.to_string(),
            pulse_count: record.total.pulses,
            rows: record.rows,
            sealed_at: time(record.sealed_at),
            started_at: time(record.started_at),
            flushed_at: time(record.flushed_at),
        }
    }
}

impl TryFrom<WireFlush> for FlushRecord {
    type Error = StateError;

    fn try_from(wire: WireFlush) -> Result<Self, StateError> {
        Ok(Self {
            shard: Shard(wire.shard),
            generation: wire.generation,
            total: total(&wire.used_amount, wire.pulse_count)?,
            rows: wire.rows,
            sealed_at: time(wire.sealed_at),
            started_at: time(wire.started_at),
            flushed_at: time(wire.flushed_at),
        })
    }
}

impl From<(&Shard, &UsageTotal)> for WireEarlier {
    fn from((shard, total): (&Shard, &UsageTotal)) -> Self {
        Self { shard: shard.0, used_amount: total.amount.to_string(), pulse_count: total.pulses }
    }
}

impl<'a> From<(&'a UsageKey, &Row)> for WireRow<'a> {
    fn from((key, row): (&'a UsageKey, &Row)) -> Self {
        Self(
            key.tenant.as_str().into(),
            key.product_sku.as_str().into(),
            key.use_unity.as_str().into(),
            key.hour.number(),
            row.total.amount.to_string(),
            row.total.pulses,
            row.id,
            row.created,
            row.updated,
        )
    }
}

impl TryFrom<WireRow<'_>> for (UsageKey, Row) {
    type Error = StateError;

    fn try_from(wire: WireRow<'_>) -> Result<Self, StateError> {
        let WireRow(tenant, sku, unit, hour, amount, pulses, id, created, updated) = wire;
        let key = UsageKey {
            tenant: TenantId::new(tenant).map_err(name)?,
            product_sku: ProductSku::new(sku).map_err(name)?,
            use_unity: UsageUnit::new(unit).map_err(name)?,
            hour: HourWindow::from_number(hour),
        };
        Ok((key, Row { total: total(&amount, pulses)?, id, created, updated }))
    }
}
