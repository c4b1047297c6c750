//! Writes to one shard: one call at a time, each naming where it continues on the logs that it holds pulses of.

use super::{
    applied::{self, AppliedPulse},
    effect::Effect,
    in_flight::Origin,
};
use crate::{
    crash_point,
    decode::{self, Decoder},
    ports::{Batch, Delivery, LogReading, LogStretch, Outcome, PartitionId, PortError, PulseSink},
    retry::Dependency,
};
use domain::{LogName, LogPosition, Pulse, Shard, TenantId};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex, mpsc};
use tracing::debug;

/// Numbers batches for the whole program: a sink tells repetitions by the number, and outlives an engine.
static BATCHES: AtomicU64 = AtomicU64::new(1);

/// That everything of a log up to an offset is durable, on every shard.
#[derive(Clone, Debug)]
pub(super) struct SettledLog {
    pub(super) reading: Arc<LogReading>,
    /// The offset of the last message.
    pub(super) last: u64,
}

/// A shard, as its lane and the settlers of logs write to it.
pub(super) struct ShardWriter {
    shard: Shard,
    sink: Arc<dyn PulseSink>,
    dependency: Arc<Dependency>,
    /// Held during a call, so that there is one at a time.
    seen: Mutex<Seen>,
    /// Where what was counted is told.
    applied: Option<mpsc::Sender<Vec<AppliedPulse>>>,
}

/// How far this program has seen the shard on each log: one entry a log, however often it is read.
#[derive(Default)]
struct Seen(HashMap<LogName, LogPosition>);

impl Seen {
    /// The shard must be this far: it was seen there, or everything before was settled by earlier readings.
    fn from(&self, reading: &LogReading) -> LogPosition {
        let before = LogPosition::before(reading.after);
        self.0.get(&reading.log).map_or(before, |seen| before.max(*seen))
    }

    /// The stretches that these pulses make: each has an origin, and those of one log are of one reading.
    fn stretches(&self, origins: &[Origin]) -> Vec<LogStretch> {
        let mut stretches: Vec<LogStretch> = Vec::new();
        for (index, origin) in origins.iter().enumerate() {
            let Some((reading, place)) = origin.place() else { continue };
            // Pulses of a log come in runs: the stretch is almost always the last one.
            let known = stretches.iter().rposition(|stretch| stretch.log == reading.log);
            let stretch = known.unwrap_or_else(|| {
                let from = self.from(reading);
                stretches.push(LogStretch { log: reading.log.clone(), from, to: from, pulses: Vec::new() });
                stretches.len() - 1
            });
            let stretch = &mut stretches[stretch];
            stretch.to = stretch.to.max(place.after_pulse());
            stretch.pulses.push((index, place));
        }
        stretches
    }

    /// The stretches that only move the shard on to what is settled, where it is not as far.
    fn settled(&self, settled: &[SettledLog]) -> Vec<LogStretch> {
        let mut stretches: Vec<LogStretch> = Vec::new();
        for SettledLog { reading, last } in settled {
            let (from, to) = (self.from(reading), LogPosition::before(last + 1));
            if from >= to {
                continue;
            }
            // A log that was read twice: what either has settled is durable.
            match stretches.iter_mut().find(|stretch| stretch.log == reading.log) {
                Some(stretch) => stretch.to = stretch.to.max(to),
                None => stretches.push(LogStretch { log: reading.log.clone(), from, to, pulses: Vec::new() }),
            }
        }
        stretches
    }
}

impl ShardWriter {
    pub(super) fn new(
        shard: Shard,
        sink: &Arc<dyn PulseSink>,
        dependency: &Arc<Dependency>,
        applied: Option<mpsc::Sender<Vec<AppliedPulse>>>,
    ) -> Self {
        let (sink, dependency) = (Arc::clone(sink), Arc::clone(dependency));
        Self { shard, sink, dependency, seen: Mutex::default(), applied }
    }

    /// Room to tell what the next batch comes to; `None` where nobody wants to know.
    async fn room(&self) -> Option<mpsc::Permit<'_, Vec<AppliedPulse>>> {
        match &self.applied {
            Some(applied) => applied.reserve().await.ok(),
            None => None,
        }
    }

    async fn call(
        &self,
        seen: &mut Seen,
        pulses: Vec<Pulse>,
        stretches: Vec<LogStretch>,
    ) -> Result<(Vec<Pulse>, Vec<Outcome>), PortError> {
        let number = BATCHES.fetch_add(1, Ordering::Relaxed);
        let batch = Batch { shard: self.shard, number, pulses, stretches };
        crash_point::hit("apply_before_send");
        let apply = || crash_point::within("apply_sent_no_reply", self.sink.apply(&batch));
        let outcomes = self.dependency.hold(apply).await?;
        crash_point::hit("apply_after");
        if outcomes.len() != batch.pulses.len() {
            return Err(PortError::permanent("apply a batch", "the sink gave too few or too many outcomes"));
        }
        seen.0.extend(batch.stretches.into_iter().map(|stretch| (stretch.log, stretch.to)));
        Ok((batch.pulses, outcomes))
    }
}

impl Effect for ShardWriter {
    type Item = Pulse;

    fn read(decoder: &Decoder, delivery: &Delivery, out: &mut Vec<decode::Item>) {
        decoder.decode(delivery, out);
    }

    fn tenant(pulse: &Pulse) -> &TenantId {
        &pulse.tenant
    }

    fn is_anonymous(pulse: &Pulse, origin: &Origin) -> bool {
        pulse.identity.is_none() && origin.place().is_none()
    }

    fn fitting<'a>(pulses: impl Iterator<Item = (&'a Pulse, &'a Origin)>) -> usize {
        let mut room = Batch::UNITS_MAX;
        let mut readings = Readings::default();
        let fits = |(pulse, origin): &(&Pulse, &Origin)| {
            if !readings.may_take(origin) {
                return false;
            }
            // A pulse has less than 10^16 whole units and its nanos make less than one more.
            let rest = room.checked_sub(pulse.amount.whole_units() + 1);
            rest.inspect(|rest| room = *rest).is_some()
        };
        pulses.take_while(fits).count()
    }

    async fn apply(
        &self,
        pulses: Vec<Pulse>,
        origins: &[Origin],
    ) -> Result<(Vec<Pulse>, Vec<Outcome>), PortError> {
        let room = self.room().await;
        let mut seen = self.seen.lock().await;
        let stretches = seen.stretches(origins);
        let (pulses, outcomes) = self.call(&mut seen, pulses, stretches).await?;
        debug!(shard = self.shard.0, pulses = pulses.len(), "batch applied");
        if let Some(room) = room {
            room.send(applied::counted(self.shard, &pulses, origins, &outcomes));
        }
        Ok((pulses, outcomes))
    }

    /// Moves the shard on to what is settled of logs, also where it had no pulse of them.
    ///
    /// From then on the shard itself proves that nothing before is missing, whatever the source believes.
    async fn pass(&self, settled: &[SettledLog]) -> Result<(), PortError> {
        let mut seen = self.seen.lock().await;
        for stretches in seen.settled(settled).chunks(Batch::PULSES_MAX) {
            self.call(&mut seen, Vec::new(), stretches.to_vec()).await?;
        }
        Ok(())
    }
}

/// The readings of logs that a batch holds pulses of. Two readings of one log do not go together: what lies between
/// them was read by another program.
#[derive(Default)]
struct Readings(Vec<(PartitionId, LogName)>);

impl Readings {
    fn may_take(&mut self, origin: &Origin) -> bool {
        let Some((reading, _)) = origin.place() else { return true };
        let partition = origin.in_flight.delivery.partition;
        if self.0.iter().any(|(taken, _)| *taken == partition) {
            return true;
        }
        let other = self.0.iter().any(|(_, log)| *log == reading.log);
        if !other {
            self.0.push((partition, reading.log.clone()));
        }
        !other
    }
}
