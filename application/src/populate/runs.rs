//! Runs that send made-up pulses in the background: few at a time, each with its progress.

use super::Recipe;
use crate::{
    decode::Decoder,
    ports::{Delivery, Envelope, IntakeMessage, PartitionId, PortError, PulseIntake},
    retry::Dependency,
};
use domain::{HourWindow, Rejection, Timestamp};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    select,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

const OPERATION: &str = "send made-up pulses";
/// How long a run waits for an intake that is away before it fails.
const PATIENCE: Duration = Duration::from_mins(1);
const TENANTS: u32 = 100;
const SKUS: u32 = 10;

/// What a run is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PopulateOrder {
    /// How many messages of one pulse each: 1 to [`Self::MESSAGES_MAX`].
    pub total_messages: u64,
    /// How many workers send at the same time: 1 to [`Self::WORKERS_MAX`].
    pub workers_number: u64,
    /// How many messages a worker makes durable in one step: 1 to [`Self::BUFFER_MAX`].
    pub buffer_size: u64,
}

impl PopulateOrder {
    /// The most messages of a run.
    pub const MESSAGES_MAX: u64 = 1_000_000;
    /// The most workers.
    pub const WORKERS_MAX: u64 = 16;
    /// The most messages in a step.
    pub const BUFFER_MAX: u64 = 1_000;
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It sends.
    Running,
    /// Everything was sent and is durable.
    Done,
    /// It ended before.
    Failed,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Names the run.
    pub id: String,
    /// What it is to do.
    pub order: PopulateOrder,
    /// Where it stands.
    pub state: RunState,
    /// How many messages are durable.
    pub published: u64,
    /// Whole messages per second, from its start until its end or now.
    pub rate: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Why a run was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// Enough others are running.
    #[error("another run is under way")]
    Busy,
    /// Native pulses are refused here: the messages are to have another format, or another time.
    #[error("made-up pulses would be refused here: {}", .0.detail)]
    Refused(Rejection),
    /// The service is about to end.
    #[error("the service is stopping")]
    Stopping,
}

/// All runs: those under way, and the latest that have ended.
pub struct PopulateRuns {
    decoder: Decoder,
    intake: Arc<dyn PulseIntake>,
    now: fn() -> Timestamp,
    stop: CancellationToken,
    tasks: TaskTracker,
    runs: Mutex<VecDeque<Arc<Run>>>,
}

impl PopulateRuns {
    /// The most runs under way at the same time.
    pub const RUNNING_MAX: usize = 1;
    /// The most runs that are remembered.
    pub const KEPT_MAX: usize = 16;

    /// No runs yet.
    #[must_use]
    pub fn new(decoder: Decoder, intake: Arc<dyn PulseIntake>, now: fn() -> Timestamp) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { decoder, intake, now, stop, tasks, runs: Mutex::default() }
    }

    /// Starts a run under a name and a seed that no other has; returns at once.
    ///
    /// Its pulses have times of the hour before this one.
    ///
    /// # Errors
    /// See [`NotStarted`].
    pub fn start(&self, order: PopulateOrder, id: String, seed: u64) -> Result<Progress, NotStarted> {
        let now = (self.now)();
        let run = Arc::new(Run {
            id,
            order,
            recipe: recipe(seed, now),
            started_at: now,
            start: Instant::now(),
            next: AtomicU64::new(0),
            published: AtomicU64::new(0),
            end: Mutex::new(None),
            dependency: Dependency::new("intake"),
        });
        messages(&self.decoder, &run.recipe, 0..1, now).map_err(NotStarted::Refused)?;
        let mut runs = self.runs();
        if self.stop.is_cancelled() {
            return Err(NotStarted::Stopping);
        }
        if runs.iter().filter(|run| run.end().is_none()).count() >= Self::RUNNING_MAX {
            return Err(NotStarted::Busy);
        }
        while runs.len() >= Self::KEPT_MAX {
            runs.pop_front();
        }
        runs.push_back(Arc::clone(&run));
        drop(runs);
        let worker = Worker {
            run: Arc::clone(&run),
            decoder: self.decoder.clone(),
            intake: Arc::clone(&self.intake),
            now: self.now,
        };
        self.tasks.spawn(worker.all(self.stop.clone()));
        Ok(run.progress())
    }

    /// How far the run is; `None` where there is none of this name, or it ended long ago.
    #[must_use]
    pub fn progress(&self, id: &str) -> Option<Progress> {
        self.runs().iter().find(|run| run.id == id).map(|run| run.progress())
    }

    /// Ends all runs, which have then failed, and starts no more.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn runs(&self) -> MutexGuard<'_, VecDeque<Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Run {
    id: String,
    order: PopulateOrder,
    recipe: Recipe,
    started_at: Timestamp,
    start: Instant,
    /// The number of the first message that no worker has taken.
    next: AtomicU64,
    published: AtomicU64,
    end: Mutex<Option<End>>,
    dependency: Dependency,
}

#[derive(Clone, Debug)]
struct End {
    at: Timestamp,
    took: Duration,
    error: Option<String>,
}

impl Run {
    fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn progress(&self) -> Progress {
        let end = self.end();
        let published = self.published.load(Ordering::Relaxed);
        let took = end.as_ref().map_or_else(|| self.start.elapsed(), |end| end.took);
        let rate = u128::from(published) * 1_000 / took.as_millis().max(1);
        Progress {
            id: self.id.clone(),
            order: self.order,
            state: match &end {
                None => RunState::Running,
                Some(End { error: None, .. }) => RunState::Done,
                Some(_) => RunState::Failed,
            },
            published,
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
            started_at: self.started_at,
            ended_at: end.as_ref().map(|end| end.at),
            error: end.and_then(|end| end.error),
        }
    }
}

/// Sends messages of a run until none is left.
#[derive(Clone)]
struct Worker {
    run: Arc<Run>,
    decoder: Decoder,
    intake: Arc<dyn PulseIntake>,
    now: fn() -> Timestamp,
}

impl Worker {
    /// As many of it as were ordered, until the last has ended, one has failed, or `stop`.
    async fn all(self, stop: CancellationToken) {
        let mut workers = JoinSet::new();
        for _ in 0..self.run.order.workers_number {
            workers.spawn(self.clone().send());
        }
        let sent = async {
            while let Some(ended) = workers.join_next().await {
                ended.map_err(|error| PortError::permanent(OPERATION, error)).flatten()?;
            }
            Ok::<_, PortError>(())
        };
        let error = select! {
            biased;
            sent = sent => sent.err().map(|error| error.to_string()),
            () = stop.cancelled() => Some("the service was stopped".to_owned()),
        };
        workers.shutdown().await;
        let (run, published) = (&self.run, self.run.published.load(Ordering::Relaxed));
        match &error {
            None => info!(run = run.id, published, "made-up pulses sent"),
            Some(error) => warn!(run = run.id, published, error, "a run of made-up pulses failed"),
        }
        let end = End { at: (self.now)(), took: run.start.elapsed(), error };
        *run.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    async fn send(self) -> Result<(), PortError> {
        let (run, total) = (&self.run, self.run.order.total_messages);
        loop {
            let first = run.next.fetch_add(run.order.buffer_size, Ordering::Relaxed);
            if first >= total {
                return Ok(());
            }
            let numbers = first..total.min(first + run.order.buffer_size);
            let messages = messages(&self.decoder, &run.recipe, numbers, (self.now)())
                .map_err(|refused| PortError::permanent(OPERATION, refused.detail))?;
            timeout(PATIENCE, run.dependency.hold(|| self.intake.take(&messages))).await.map_err(
                |_| PortError::permanent(OPERATION, format!("the intake was away for {PATIENCE:?}")),
            )??;
            run.published.fetch_add(messages.len() as u64, Ordering::Relaxed);
        }
    }
}

fn recipe(seed: u64, now: Timestamp) -> Recipe {
    let start = HourWindow::from_number(HourWindow::of(now).number().saturating_sub(1));
    Recipe { seed, tenants: TENANTS, skus: SKUS, start, hours: 1, items: 1, duplicates: 0 }
}

/// The messages with these numbers, as the intake takes them; or why a pulse among them would be refused.
fn messages(
    decoder: &Decoder,
    recipe: &Recipe,
    numbers: std::ops::Range<u64>,
    now: Timestamp,
) -> Result<Vec<IntakeMessage>, Rejection> {
    let mut items = Vec::new();
    let message = |number| {
        let made = recipe.message(number);
        let envelope = Envelope {
            message_id: Some(made.message_id.clone()),
            content_type: Some("application/json".to_owned()),
            ..Envelope::default()
        };
        let delivery = Delivery {
            partition: PartitionId(0),
            sequence: number,
            log: None,
            returns: 0,
            body: made.body,
            envelope,
            received_at: now,
        };
        items.clear();
        decoder.decode(&delivery, &mut items);
        match items.drain(..).find_map(|item| item.pulse.err()) {
            Some(refused) => Err(refused),
            None => Ok(IntakeMessage {
                id: made.message_id,
                body: delivery.body,
                envelope: delivery.envelope,
                received_at: now,
                joins: None,
            }),
        }
    };
    numbers.map(message).collect()
}

#[cfg(test)]
mod tests;
