//! The inbox as a source: [`PulseSource`] over claims with leases.

use super::{
    InboxSettings,
    tables::{Claim, Claimant, Claimed, InboxClaims},
};
use application::ports::{Delivery, Envelope, PartitionId, PortError, PulseSource, Received, Watermark};
use async_trait::async_trait;
use domain::content_hash;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    select,
    sync::{Mutex, Notify, mpsc},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The header that names the event of a delivery, by its number in the inbox.
pub const HEADER_EVENT: &str = "inbox-event";

/// What is claimed at once.
const CLAIM_EVENTS: u32 = 500;
const CLAIM_BYTES: u32 = 8 * 1024 * 1024;
/// What may be claimed without being settled: this source's prefetch. A claim that could go past it waits.
const HELD_EVENTS_MAX: usize = 2_000;
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The first pause after there was nothing to do.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// A lease is renewed so often in its time.
const RENEWALS: u32 = 3;
/// The one partition of a source; another source is another worker, and shares nothing with it.
const PARTITION: PartitionId = PartitionId(1);

/// Gives the events of an inbox in the order of their arrival, as far as they are due; the sequence counts them.
///
/// An event that was claimed often without an answer is given alone: nothing is claimed beside it until it is settled.
///
/// Several sources share an inbox, in one process or many. An event that is held belongs to its source until it is
/// settled; where the source ends without [`PulseSource::close`], its lease ends some time later and others take it.
///
/// A message without an id of its own gets one of its source and event id: so a pulse that carries none is recognised
/// as well when an event is given again. The header [`HEADER_EVENT`] says which event it is.
pub struct InboxSource {
    work: Arc<Work>,
    /// `None` before the first call and after the last.
    feed: Mutex<Option<Feed>>,
}

struct Feed {
    deliveries: mpsc::Receiver<Result<Vec<Delivery>, PortError>>,
    tasks: JoinSet<()>,
}

/// What the tasks of a source share.
struct Work {
    claims: Arc<dyn InboxClaims>,
    arrivals: Arc<Notify>,
    settings: InboxSettings,
    owner: String,
    held: StdMutex<Held>,
    settled: Notify,
    stop: CancellationToken,
}

/// What is claimed and not settled, in the order in which it is given.
#[derive(Default)]
struct Held {
    last: u64,
    bytes: usize,
    events: VecDeque<HeldEvent>,
}

struct HeldEvent {
    sequence: u64,
    claim: Claimant,
    alone: bool,
    bytes: usize,
}

impl InboxSource {
    pub(super) fn new(claims: Arc<dyn InboxClaims>, arrivals: Arc<Notify>, settings: InboxSettings) -> Self {
        let work = Work {
            claims,
            arrivals,
            settings,
            owner: uuid::Uuid::new_v4().simple().to_string(),
            held: StdMutex::default(),
            settled: Notify::new(),
            stop: CancellationToken::new(),
        };
        Self { work: Arc::new(work), feed: Mutex::default() }
    }
}

impl Feed {
    fn start(work: &Arc<Work>) -> Self {
        // One claim ahead.
        let (out, deliveries) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(work).feed(out));
        tasks.spawn(Arc::clone(work).renew());
        Self { deliveries, tasks }
    }
}

#[async_trait]
impl PulseSource for InboxSource {
    /// After a transient error everything that was given stays held, and is not given again.
    async fn receive(&self) -> Result<Received, PortError> {
        let mut feed = self.feed.lock().await;
        let feed = feed.get_or_insert_with(|| Feed::start(&self.work));
        match feed.deliveries.recv().await {
            Some(deliveries) => deliveries.map(Received::Deliveries),
            None => Err(PortError::permanent("read the inbox", "the task that claims has ended")),
        }
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        if watermark.partition != PARTITION {
            return Ok(());
        }
        let claims: Vec<Claimant> = {
            let held = self.work.held();
            held.events.iter().take_while(|it| it.sequence <= watermark.sequence).map(|it| it.claim).collect()
        };
        if claims.is_empty() {
            return Ok(());
        }
        self.work.claims.settle(&self.work.owner, &claims).await?;
        self.work.held().forget(watermark.sequence);
        self.work.settled.notify_one();
        Ok(())
    }

    async fn is_drained(&self) -> Result<bool, PortError> {
        self.work.claims.is_drained().await
    }

    /// What is not settled waits again at once, without an attempt being counted.
    async fn close(&self) -> Result<(), PortError> {
        self.work.stop.cancel();
        if let Some(Feed { deliveries, mut tasks }) = self.feed.lock().await.take() {
            drop(deliveries);
            while tasks.join_next().await.is_some() {}
        }
        self.work.claims.release(&self.work.owner).await
    }
}

impl Work {
    /// Claims one batch ahead of whoever receives. A task, because a claim that is dropped half-way is known to nobody.
    async fn feed(self: Arc<Self>, out: mpsc::Sender<Result<Vec<Delivery>, PortError>>) {
        let mut pause = SHORTEST_PAUSE;
        // Whoever receives was told that the inbox is there, also where it is empty.
        let mut told = false;
        loop {
            let wanted = async {
                let slot = out.reserve().await.ok()?;
                while !self.held().has_room() {
                    self.settled.notified().await;
                }
                Some(slot)
            };
            let slot = select! {
                () = self.stop.cancelled() => return,
                slot = wanted => slot,
            };
            let Some(slot) = slot else { return };
            match self.claim().await {
                Ok(deliveries) if deliveries.is_empty() && told => drop(slot),
                Ok(deliveries) => {
                    pause = SHORTEST_PAUSE;
                    told = true;
                    slot.send(Ok(deliveries));
                    continue;
                }
                Err(error) => {
                    told = false;
                    slot.send(Err(error));
                    continue;
                }
            }
            pause = pause.min(self.settings.poll_interval);
            select! {
                () = self.stop.cancelled() => return,
                () = self.arrivals.notified() => pause = SHORTEST_PAUSE,
                () = sleep(pause) => pause *= 2,
            }
        }
    }

    async fn claim(&self) -> Result<Vec<Delivery>, PortError> {
        let InboxSettings { lease, attempts_max, retry_after, .. } = self.settings;
        let owner = self.owner.as_str();
        // Nobody else adds to what is held.
        let may_be_alone = self.held().events.is_empty();
        let (events, bytes) = (CLAIM_EVENTS, CLAIM_BYTES);
        let claim = Claim { owner, events, bytes, lease, may_be_alone, attempts_max, retry_after };
        let claimed = self.claims.claim(claim).await?;
        let mut held = self.held();
        Ok(claimed.into_iter().map(|event| delivery(held.hold(&event), event)).collect())
    }

    /// Prolongs the leases of what is held, for as long as it takes to count it.
    async fn renew(self: Arc<Self>) {
        loop {
            select! {
                () = self.stop.cancelled() => return,
                () = sleep(self.settings.lease / RENEWALS) => {}
            }
            let ids: Vec<i64> = self.held().events.iter().map(|event| event.claim.id).collect();
            if ids.is_empty() {
                continue;
            }
            if let Err(error) = self.claims.renew(&self.owner, &ids, self.settings.lease).await {
                // Whoever settles or receives tells that the store is away. A lease that ends meanwhile costs a second
                // count, which is recognised.
                debug!(%error, "leases of the inbox were not renewed");
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn has_room(&self) -> bool {
        self.events.back().is_none_or(|event| !event.alone)
            && self.events.len() + CLAIM_EVENTS as usize <= HELD_EVENTS_MAX
            && self.bytes + CLAIM_BYTES as usize <= HELD_BYTES_MAX
    }

    fn hold(&mut self, event: &Claimed) -> u64 {
        let (claim, bytes) = (Claimant { id: event.id, attempt: event.attempt }, event.body.len());
        self.last += 1;
        self.bytes += bytes;
        self.events.push_back(HeldEvent { sequence: self.last, claim, alone: event.is_alone(), bytes });
        self.last
    }

    fn forget(&mut self, sequence: u64) {
        while let Some(event) = self.events.pop_front_if(|event| event.sequence <= sequence) {
            self.bytes -= event.bytes;
        }
    }
}

fn delivery(sequence: u64, event: Claimed) -> Delivery {
    let Claimed { id, source, event_id, body, envelope, received_at, .. } = event;
    let Envelope { message_id, content_type, routing_key, mut headers } = envelope;
    headers.push((HEADER_EVENT.to_owned(), id.to_string()));
    let message_id = message_id.or_else(|| Some(made_id(&source, &event_id)));
    let envelope = Envelope { message_id, content_type, routing_key, headers };
    Delivery { partition: PARTITION, sequence, body, envelope, received_at, log: None, returns: 0 }
}

/// Always the same for the same event, and like no id that a person would choose.
fn made_id(source: &str, event_id: &str) -> String {
    let hash = content_hash(&[b"inbox", source.as_bytes(), event_id.as_bytes()]);
    format!("{:032x}", u128::from_be_bytes(hash))
}
