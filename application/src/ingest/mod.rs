//! The engine, the only one: receive, decode, dispatch by tenant, batch, apply, settle; refuse with a reason.
//!
//! For each source one *reader* takes deliveries, decodes them and hands their pulses to *lanes*, one lane a shard. A lane
//! makes batches, by size or linger, and applies one at a time. What is refused goes to the source's *refusals* task, which
//! publishes it. A delivery is finished when every pulse in it is applied, known, or its dead letter is confirmed; the
//! source's *settler* settles up to the first delivery that is not.
//!
//! Everything is bounded: a lane takes at most two batches of pulses, then its reader waits, and with it the
//! source's own prefetch. A fault of the world is held in place, a fault of the message becomes a dead letter, and any other
//! ends the engine with nothing settled that is not durable.

mod accounts;
mod alone;
mod applied;
mod archive;
mod effect;
mod in_flight;
mod lane;
mod reader;
mod refusals;
mod settler;
mod shard_writer;
mod tally;

#[cfg(test)]
mod tests;

pub use applied::AppliedPulse;
pub use archive::ArchiveEvents;
pub use tally::{Tally, TallySnapshot};

use crate::{
    decode::Decoder,
    ports::{Batch, DeadLetters, LogAccounts, PortError, PulseSink, PulseSource, Suspects},
    retry::Dependency,
};
use accounts::Accounts;
use alone::Alone;
use domain::ShardCount;
use effect::Effect;
use futures_util::future::join_all;
use in_flight::{RouteHandle, Unsettled};
use lane::{Beat, Lane, LaneSender};
use reader::Reader;
use refusals::Refusals;
use settler::Settler;
use shard_writer::ShardWriter;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// How often an idle engine looks whether the last of its work is settled.
const IDLE_CHECK: Duration = Duration::from_millis(50);
/// How often a quiet source that holds something for later is asked again.
const DRAINED_CHECK: Duration = Duration::from_secs(1);
/// A source that neither answers nor fails for this long is not waited for any longer.
const OPEN_LIMIT: Duration = Duration::from_mins(1);
/// How long a failed engine may take to settle what it had finished.
const LAST_WORD: Duration = Duration::from_secs(2);

/// A source, how to read it, and where what it refuses goes.
#[derive(Clone)]
pub struct Route {
    /// What operators call the source: `rabbitmq`, `file`.
    pub name: String,
    /// The source.
    pub source: Arc<dyn PulseSource>,
    /// Where its refused messages go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What to make of its messages.
    pub decoder: Decoder,
}

/// How much the engine takes at once and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most pulses in a batch: 1 to [`crate::ports::Batch::PULSES_MAX`].
    pub batch_size: usize,
    /// How long the first pulse of a batch waits for company at most.
    pub batch_linger: Duration,
    /// How long what is in hand may take after the stop before it is left to the source.
    pub drain_timeout: Duration,
    /// Stop by itself when nothing was received for this long and all is settled; `None` to go on for ever.
    pub until_idle: Option<Duration>,
}

impl Limits {
    /// Values that nothing can be done with are held at the nearest that works; the settings refuse them before.
    fn within_bounds(self, batch_max: usize) -> Self {
        const A_DAY: Duration = Duration::from_hours(24);
        Self {
            batch_size: self.batch_size.clamp(1, batch_max),
            batch_linger: self.batch_linger.min(A_DAY),
            drain_timeout: self.drain_timeout.min(A_DAY),
            until_idle: self.until_idle.map(|idle| idle.min(A_DAY)),
        }
    }

    /// How many pulses may wait in a lane or be applied by it: two batches.
    const fn lane_pulses(&self) -> usize {
        self.batch_size * 2
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_size: 1_000,
            batch_linger: Duration::from_millis(10),
            drain_timeout: Duration::from_secs(30),
            until_idle: None,
        }
    }
}

/// Why the engine ended without having drained.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A port failed in a way that waiting does not mend.
    #[error("ingestion stopped: {0}")]
    Port(#[from] PortError),
    /// What was in hand did not become durable in time; the source gives it again.
    #[error("{unsettled} deliveries were not settled within the drain timeout and will be delivered again")]
    DrainTimeout {
        /// How many.
        unsettled: usize,
    },
    /// A source neither answered nor failed: what it holds is not known, so the engine did not end for being idle.
    #[error("the source {source_name} did not open within a minute")]
    NotOpened {
        /// What operators call it.
        source_name: String,
    },
    /// A defect of the program.
    #[error("a task of the engine ended abnormally: {0}")]
    Task(#[from] JoinError),
}

/// The use case: counts what the sources give until it is told to stop.
pub struct IngestPulses {
    /// The sources, at least one.
    pub routes: Vec<Route>,
    /// Where batches become durable.
    pub sink: Arc<dyn PulseSink>,
    /// What operators call it.
    pub sink_name: String,
    /// How many shards the sink has.
    pub shards: ShardCount,
    /// Where it is kept that a message which came back often is taken alone, beside the counts: a sink that is away cannot
    /// make a message guilty. `None` for nowhere; then no message is suspected.
    pub suspects: Option<Arc<dyn Suspects>>,
    /// Where what was received of logs is added up, beside the counts; `None` for nowhere.
    pub accounts: Option<Arc<dyn LogAccounts>>,
    /// The bounds.
    pub limits: Limits,
    /// What was done, for whoever wants to look while it runs.
    pub tally: Arc<Tally>,
    /// Where each counted pulse is told, batch by batch, in the order in which its lane counted them; `None` for nowhere.
    ///
    /// A lane waits for room there before it applies a batch, never after: what is durable is settled however slowly
    /// somebody reads. Once nobody reads any more, nothing is told. A pulse that was counted before is not told again;
    /// one whose batch had to be repeated after a lost reply may not be told at all.
    pub applied: Option<mpsc::Sender<Vec<AppliedPulse>>>,
}

type Work = JoinSet<Result<(), PortError>>;

impl IngestPulses {
    /// Runs until `stop` is cancelled, every source has ended, or nothing came for [`Limits::until_idle`]; then finishes
    /// what is in hand, settles it and closes the sources.
    ///
    /// Dropping the future stops at once; the sources give again what was not settled.
    ///
    /// # Errors
    /// See [`IngestError`]. Whatever the error, nothing was settled that is not durable.
    pub async fn run(self, stop: CancellationToken) -> Result<(), IngestError> {
        let dependency = self.tally.depends_on(&self.sink_name);
        let writer = |shard| Arc::new(ShardWriter::new(shard, &self.sink, &dependency, self.applied.clone()));
        let engine = Engine {
            writers: self.shards.shards().map(writer).collect(),
            routes: self.routes,
            shards: self.shards,
            suspects: self.suspects,
            accounts: self.accounts,
            sink: dependency,
            limits: self.limits.within_bounds(Batch::PULSES_MAX),
            tally: self.tally,
        };
        engine.run(stop).await
    }
}

/// What every use case of the engine has in common: all but what is done with a batch.
struct Engine<E> {
    routes: Vec<Route>,
    /// One a lane.
    writers: Vec<Arc<E>>,
    /// How many lanes there are.
    shards: ShardCount,
    suspects: Option<Arc<dyn Suspects>>,
    accounts: Option<Arc<dyn LogAccounts>>,
    /// Where batches become durable, and suspects are marked.
    sink: Arc<Dependency>,
    limits: Limits,
    tally: Arc<Tally>,
}

impl<E: Effect> Engine<E> {
    async fn run(self, stop: CancellationToken) -> Result<(), IngestError> {
        self.tally.received(0);
        let (mut work, mut settlers) = (Work::new(), Work::new());
        let end = End { stop: stop.child_token(), drained: CancellationToken::new() };
        let lanes = self.start_lanes(&mut work);
        let routes: Vec<RunningRoute> = self
            .routes
            .iter()
            .map(|route| self.start_route(route, &lanes, &end, &mut work, &mut settlers))
            .collect();
        drop(lanes);
        let result = self.watch(&routes, &end, &mut work, &mut settlers).await;
        if result.is_err() {
            work.shutdown().await;
            settlers.shutdown().await;
            let died = matches!(result, Err(IngestError::Task(_)));
            join_all(routes.iter().map(|route| route.hand_over(died))).await;
        }
        result
    }

    /// Waits for the tasks, and tells them when to stop and when all work is done.
    async fn watch(
        &self,
        routes: &[RunningRoute],
        end: &End,
        work: &mut Work,
        settlers: &mut Work,
    ) -> Result<(), IngestError> {
        let mut drain_until = None;
        while !settlers.is_empty() {
            tokio::select! {
                Some(ended) = work.join_next() => ended??,
                Some(ended) = settlers.join_next() => ended??,
                () = end.stop.cancelled(), if drain_until.is_none() => {
                    info!(unsettled = unsettled(routes), "stopping: no more is taken, what is in hand is finished");
                    drain_until = Some(Instant::now() + self.limits.drain_timeout);
                }
                () = sleep_until(drain_until.unwrap_or_else(Instant::now)), if drain_until.is_some() => {
                    return Err(IngestError::DrainTimeout { unsettled: unsettled(routes) });
                }
                idle = self.idle(routes), if drain_until.is_none() => {
                    idle?;
                    end.stop.cancel();
                }
            }
            if work.is_empty() {
                end.drained.cancel();
            }
        }
        Ok(())
    }

    fn start_lanes(&self, work: &mut Work) -> Vec<LaneSender<E::Item>> {
        let beat = Beat::new(self.limits.batch_linger);
        self.writers
            .iter()
            .map(|writer| {
                let (lane, sender) = Lane::new(writer, self.limits, beat, &self.tally);
                work.spawn(lane.run());
                sender
            })
            .collect()
    }

    fn start_route(
        &self,
        route: &Route,
        lanes: &[LaneSender<E::Item>],
        end: &End,
        work: &mut Work,
        settlers: &mut Work,
    ) -> RunningRoute {
        let dependency = self.tally.depends_on(&route.name);
        let unsettled = Arc::new(Unsettled::default());
        let opened = CancellationToken::new();
        let (suspects, sink) = (self.suspects.clone(), Arc::clone(&self.sink));
        let alone = Arc::new(Alone::new(route.name.clone(), suspects, sink));
        let by_offset = route.decoder.dedupe.by_offset();
        let accounts = Accounts::new(self.accounts.as_ref(), route.source.as_ref(), &self.sink, by_offset);
        let (refuse, refused) = mpsc::channel(Refusals::QUEUE);
        work.spawn(
            Refusals {
                source_name: route.name.clone(),
                dead_letters: Arc::clone(&route.dead_letters),
                dependency: self.tally.depends_on(format!("dead letters of {}", route.name)),
                tally: Arc::clone(&self.tally),
                refused,
            }
            .run(),
        );
        work.spawn(
            Reader::<E> {
                source: Arc::clone(&route.source),
                decoder: route.decoder.clone(),
                dependency: Arc::clone(&dependency),
                shards: self.shards,
                lanes: lanes.to_vec(),
                route: Arc::new(RouteHandle {
                    source_name: route.name.clone(),
                    decoder: route.decoder.clone(),
                    unsettled: Arc::clone(&unsettled),
                    by_offset,
                    refuse,
                }),
                alone: Arc::clone(&alone),
                accounts: accounts.clone(),
                tally: Arc::clone(&self.tally),
                stop: end.stop.clone(),
                opened: opened.clone(),
            }
            .run(),
        );
        settlers.spawn(
            Settler {
                source: Arc::clone(&route.source),
                dependency: Arc::clone(&dependency),
                unsettled: Arc::clone(&unsettled),
                writers: self.writers.clone(),
                accounts,
                drained: end.drained.clone(),
            }
            .run(),
        );
        let (name, source) = (route.name.clone(), Arc::clone(&route.source));
        RunningRoute { name, source, dependency, unsettled, alone, opened }
    }

    /// Ends when nothing was received for the idle time, nothing is unsettled and no source holds anything for later; never
    /// where no idle time is set.
    ///
    /// A source that is away, or has not answered yet, is not idle: what it holds was not asked for yet. Neither is one whose
    /// first message waits for the store of the counts.
    async fn idle(&self, routes: &[RunningRoute]) -> Result<(), IngestError> {
        let Some(idle) = self.limits.until_idle else {
            return std::future::pending().await;
        };
        opened(routes).await?;
        loop {
            let quiet_since = self.tally.last_received();
            sleep_until(quiet_since + idle).await;
            if self.sink.is_away() || routes.iter().any(|route| route.dependency.is_away()) {
                self.tally.received(0);
            } else if self.tally.last_received() == quiet_since {
                if unsettled(routes) > 0 {
                    sleep(IDLE_CHECK).await;
                } else if are_drained(routes).await? {
                    return Ok(());
                } else {
                    sleep(DRAINED_CHECK).await;
                }
            }
        }
    }
}

/// How the engine comes to its end: first no more is taken, then all work is done and only settling is left.
struct End {
    stop: CancellationToken,
    drained: CancellationToken,
}

/// What the engine watches of a route while it runs.
struct RunningRoute {
    name: String,
    source: Arc<dyn PulseSource>,
    dependency: Arc<Dependency>,
    unsettled: Arc<Unsettled>,
    alone: Arc<Alone>,
    opened: CancellationToken,
}

impl RunningRoute {
    /// Settles once more what is finished and lets go of the source, where the engine has failed: what is durable need not
    /// come again. Nothing is tried twice, and nothing is waited for longer than a moment. Where a task has died, it may have
    /// died of the suspect in hand.
    async fn hand_over(&self, died: bool) {
        if !died && let Ok(Err(error)) = timeout(LAST_WORD, self.alone.give_back()).await {
            debug!(%error, "the mark of a suspect stays, as if its worker had been killed");
        }
        let hand_over = async {
            // A log is settled only after every shard was moved on, which nobody does any more.
            for finished in self.unsettled.advance().into_iter().filter(|finished| finished.log.is_none()) {
                self.source.settle(finished.watermark).await?;
            }
            self.source.close().await
        };
        if let Ok(Err(error)) = timeout(LAST_WORD, hand_over).await {
            debug!(%error, "what was finished could not be settled any more; it is delivered again and recognised");
        }
    }
}

/// Waits until every source has answered; for one that is away without end.
async fn opened(routes: &[RunningRoute]) -> Result<(), IngestError> {
    while timeout(OPEN_LIMIT, join_all(routes.iter().map(|route| route.opened.cancelled()))).await.is_err() {
        let hangs = |route: &&RunningRoute| !route.opened.is_cancelled() && !route.dependency.is_away();
        if let Some(route) = routes.iter().find(hangs) {
            return Err(IngestError::NotOpened { source_name: route.name.clone() });
        }
    }
    Ok(())
}

async fn are_drained(routes: &[RunningRoute]) -> Result<bool, PortError> {
    for route in routes {
        if !route.dependency.hold(|| route.source.is_drained()).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unsettled(routes: &[RunningRoute]) -> usize {
    routes.iter().map(|route| route.unsettled.len()).sum()
}
