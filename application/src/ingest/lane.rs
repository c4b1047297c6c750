//! A lane: all items of one shard, one batch at a time, in the order of their arrival.

use super::{
    Limits, Tally,
    effect::Effect,
    in_flight::{Origin, finish_all},
};
use crate::{
    mutation::Mutation,
    ports::{Outcome, PortError},
};
use domain::{Reason, Rejection};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

pub(super) struct LaneItem<T> {
    pub(super) item: T,
    pub(super) origin: Origin,
}

/// What a lane has taken in and not applied, each with when it arrived.
type Waiting<T> = VecDeque<(Instant, LaneItem<T>)>;

struct Arrived<T> {
    at: Instant,
    items: Vec<LaneItem<T>>,
}

/// Where readers put a lane's pulses: no more than the lane's bound.
pub(super) struct LaneSender<T> {
    items: mpsc::UnboundedSender<Arrived<T>>,
    room: Arc<Semaphore>,
    portion: usize,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), room: Arc::clone(&self.room), portion: self.portion }
    }
}

impl<T> LaneSender<T> {
    /// Puts the items into the lane; waits while it is full.
    pub(super) async fn send(&self, mut items: Vec<LaneItem<T>>) {
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

pub(super) struct Lane<E: Effect> {
    writer: Arc<E>,
    tally: Arc<Tally>,
    arrivals: mpsc::UnboundedReceiver<Arrived<E::Item>>,
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

impl<E: Effect> Lane<E> {
    pub(super) fn new(
        writer: &Arc<E>,
        limits: Limits,
        beat: Beat,
        tally: &Arc<Tally>,
    ) -> (Self, LaneSender<E::Item>) {
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
            let (mut items, mut origins) = self.next_batch(&mut waiting);
            if Mutation::DropPulse.is_on() && items.len() > 1 {
                drop(items.pop());
                finish_all(origins.pop().into_iter());
                self.room.add_permits(1);
            }
            let start = Instant::now();
            let (items, outcomes) = self.writer.apply(items, &origins).await?;
            self.tally.applied::<E>(&items, &origins, &outcomes, start.elapsed());
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
    async fn fill(&mut self, waiting: &mut Waiting<E::Item>) -> bool {
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

    fn next_batch(&self, waiting: &mut Waiting<E::Item>) -> (Vec<E::Item>, Vec<Origin>) {
        let most = waiting.iter().take(self.batch_size).map(|(_, LaneItem { item, origin })| (item, origin));
        let count = E::fitting(most);
        waiting.drain(..count).map(|(_, LaneItem { item, origin })| (item, origin)).unzip()
    }
}

fn take_in<T>(waiting: &mut Waiting<T>, Arrived { at, items }: Arrived<T>) {
    waiting.extend(items.into_iter().map(|item| (at, item)));
}

fn conflict() -> Rejection {
    Rejection::new(
        Reason::Conflict,
        "a pulse with this identity and other content was counted before; give different pulses different ids",
    )
}
