//! A lane: all pulses of one shard, one batch at a time, in the order of their arrival.

use super::{
    Limits, Tally,
    in_flight::{Origin, finish_all},
    shard_writer::ShardWriter,
};
use crate::ports::{Batch, Outcome, PartitionId, PortError};
use domain::{LogName, Pulse, Reason, Rejection};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tracing::debug;

pub(super) struct LaneItem {
    pub(super) pulse: Pulse,
    pub(super) origin: Origin,
}

struct Arrived {
    at: Instant,
    items: Vec<LaneItem>,
}

/// Where readers put a lane's pulses: no more than the lane's bound.
#[derive(Clone)]
pub(super) struct LaneSender {
    items: mpsc::UnboundedSender<Arrived>,
    room: Arc<Semaphore>,
    portion: usize,
}

impl LaneSender {
    /// Puts the pulses into the lane; waits while it is full.
    pub(super) async fn send(&self, mut items: Vec<LaneItem>) {
        while !items.is_empty() {
            let rest = if items.len() > self.portion { items.split_off(self.portion) } else { Vec::new() };
            let permits = u32::try_from(items.len()).expect("at most a batch");
            let room = self.room.acquire_many(permits).await.expect("the semaphore is never closed");
            // The lane gives the room back when the pulses are finished.
            room.forget();
            // The other end is dropped only when the engine has failed and this task is about to be.
            let _ = self.items.send(Arrived { at: Instant::now(), items });
            items = rest;
        }
    }
}

pub(super) struct Lane {
    writer: Arc<ShardWriter>,
    tally: Arc<Tally>,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    room: Arc<Semaphore>,
    batch_size: usize,
    beat: Beat,
}

/// When lanes apply what has not filled a batch: all of them at the same moments, one linger apart, so that their calls
/// reach the sink together and share one write to its disk.
#[derive(Clone, Copy)]
pub(super) struct Beat {
    start: Instant,
    linger: Duration,
}

impl Beat {
    pub(super) fn new(linger: Duration) -> Self {
        Self { start: Instant::now(), linger }
    }

    /// The first beat after a moment: at most one linger away.
    fn next_after(self, moment: Instant) -> Instant {
        let since = moment.saturating_duration_since(self.start).as_nanos();
        match since.checked_rem(self.linger.as_nanos()) {
            Some(past) => moment + self.linger - Duration::from_nanos(u64::try_from(past).unwrap_or(0)),
            None => moment,
        }
    }
}

impl Lane {
    pub(super) fn new(
        writer: &Arc<ShardWriter>,
        limits: Limits,
        beat: Beat,
        tally: &Arc<Tally>,
    ) -> (Self, LaneSender) {
        // Bounded by the semaphore, which counts pulses and not sends.
        let (items, arrivals) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(limits.lane_pulses()));
        let sender = LaneSender { items, room: Arc::clone(&room), portion: limits.batch_size };
        let lane = Self {
            writer: Arc::clone(writer),
            tally: Arc::clone(tally),
            arrivals,
            room,
            batch_size: limits.batch_size,
            beat,
        };
        (lane, sender)
    }

    /// Applies batches until no reader is left and nothing waits.
    pub(super) async fn run(mut self) -> Result<(), PortError> {
        let mut waiting = VecDeque::new();
        while self.fill(&mut waiting).await {
            let (pulses, origins) = self.next_batch(&mut waiting);
            let start = Instant::now();
            let (pulses, outcomes) = self.writer.apply(pulses, &origins).await?;
            debug!(shard = self.writer.shard().0, pulses = pulses.len(), "batch applied");
            self.tally.applied(&pulses, &origins, &outcomes, start.elapsed());
            self.room.add_permits(origins.len());
            let mut conflicts = Vec::new();
            finish_all(origins.into_iter().zip(outcomes).filter_map(|(origin, outcome)| match outcome {
                Outcome::Counted | Outcome::Duplicate => Some(origin),
                Outcome::Conflict => {
                    conflicts.push(origin);
                    None
                }
            }));
            for origin in conflicts {
                origin.refuse(conflict()).await;
            }
        }
        Ok(())
    }

    /// Waits for a batch by size or linger; false when nothing waits and nothing will come.
    async fn fill(&mut self, waiting: &mut VecDeque<(Instant, LaneItem)>) -> bool {
        if waiting.is_empty() {
            match self.arrivals.recv().await {
                Some(arrived) => take_in(waiting, arrived),
                None => return false,
            }
        }
        let first = waiting.front().map_or_else(Instant::now, |(at, _)| *at);
        let due = self.beat.next_after(first);
        while waiting.len() < self.batch_size {
            match timeout_at(due, self.arrivals.recv()).await {
                Ok(Some(arrived)) => take_in(waiting, arrived),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    fn next_batch(&self, waiting: &mut VecDeque<(Instant, LaneItem)>) -> (Vec<Pulse>, Vec<Origin>) {
        let count = waiting.len().min(self.batch_size);
        let (mut pulses, mut origins) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut room = Batch::UNITS_MAX;
        let mut readings = Readings::default();
        let mut fits = |item: &LaneItem| {
            if !readings.may_take(&item.origin) {
                return false;
            }
            // A pulse has less than 10^16 whole units and its nanos make less than one more.
            let rest = room.checked_sub(item.pulse.amount.whole_units() + 1);
            rest.inspect(|rest| room = *rest).is_some()
        };
        while pulses.len() < count {
            let Some((_, item)) = waiting.pop_front_if(|(_, item)| fits(item)) else { break };
            pulses.push(item.pulse);
            origins.push(item.origin);
        }
        (pulses, origins)
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

fn take_in(waiting: &mut VecDeque<(Instant, LaneItem)>, Arrived { at, items }: Arrived) {
    waiting.extend(items.into_iter().map(|item| (at, item)));
}

fn conflict() -> Rejection {
    Rejection::new(
        Reason::Conflict,
        "a pulse with this identity and other content was counted before; give different pulses different ids",
    )
}
