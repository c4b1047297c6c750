//! A stream of RabbitMQ as a source of pulses, for one reader at a time.

use super::{marks::Mark, reading::Reading};
use crate::rabbitmq::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    error::{is_locked, port_error, within},
    source::FIRST_WAIT,
    topology::Topology,
};
use application::ports::{LogPositions, PartitionId, PortError, PulseSource, Received, Watermark};
use async_trait::async_trait;
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tracing::info;

/// How often whoever waits for the stream looks whether it is free.
const LOCK_CHECK: Duration = Duration::from_secs(1);

/// Reads one stream, one consumer at a time, each a partition of its own. Where another reader has the stream, it waits
/// until that one is gone.
///
/// It connects with the first call, and anew after each transient error. One caller receives at a time; settling and
/// receiving may overlap.
pub struct RabbitmqStreamSource {
    settings: RabbitmqSettings,
    positions: Arc<dyn LogPositions>,
    topology: Topology,
    partitions: AtomicU64,
    state: tokio::sync::Mutex<State>,
    /// Whether another reader has the stream.
    waits: AtomicBool,
    settler: Mutex<Option<Arc<Settler>>>,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    /// Connected, and another reader has the stream.
    Waiting(Box<Link>),
    Reading(Box<Reading>),
}

/// Sets the mark that says that something was settled, once.
struct Settler {
    partition: PartitionId,
    channel: Channel,
    is_set: tokio::sync::Mutex<bool>,
}

impl RabbitmqStreamSource {
    /// A source that connects when it is first read from. `positions` are those of the store that counts.
    #[must_use]
    pub fn new(settings: RabbitmqSettings, positions: Arc<dyn LogPositions>) -> Self {
        Self {
            settings,
            positions,
            topology: Topology::default(),
            partitions: AtomicU64::new(1),
            state: tokio::sync::Mutex::default(),
            waits: AtomicBool::new(false),
            settler: Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<Link, PortError> {
        let link = Link::open(&self.settings, "source").await?;
        self.topology.declare_queue(&link, &self.settings).await?;
        self.topology.declare_dead_letters(&link, &self.settings).await?;
        Ok(link)
    }

    async fn lock(&self, link: &Link) -> Result<bool, PortError> {
        lock(link, &self.settings.queue).await
    }

    async fn read(&self, link: Link) -> Result<Box<Reading>, PortError> {
        let partition = PartitionId(self.partitions.fetch_add(1, Ordering::Relaxed));
        let reading = Reading::open(link, &self.settings, self.positions.as_ref(), partition).await?;
        let channel = reading.another_channel().await?;
        let is_set = tokio::sync::Mutex::new(reading.was_settled());
        self.set_settler(Some(Arc::new(Settler { partition: reading.partition(), channel, is_set })));
        self.waits.store(false, Ordering::Release);
        Ok(Box::new(reading))
    }

    /// Goes on from a state to the next deliveries and the state after them. An error leaves nothing open.
    async fn advance(&self, state: &mut State) -> Result<Received, PortError> {
        let mut wait = None;
        loop {
            match state {
                State::Closed => {
                    let link = self.connect().await?;
                    if !self.lock(&link).await? {
                        let stream = self.settings.queue.as_str();
                        info!(stream, "another reader has the stream; this one waits for it");
                        self.waits.store(true, Ordering::Release);
                        *state = State::Waiting(Box::new(link));
                        return Ok(Received::Deliveries(Vec::new()));
                    }
                    *state = State::Reading(self.read(link).await?);
                    wait = Some(FIRST_WAIT);
                }
                State::Waiting(link) => {
                    sleep(LOCK_CHECK).await;
                    if self.lock(link).await?
                        && let State::Waiting(link) = mem::take(state)
                    {
                        *state = State::Reading(self.read(*link).await?);
                    }
                }
                State::Reading(reading) => {
                    let received = match wait {
                        Some(wait) => {
                            timeout(wait, reading.receive()).await.unwrap_or_else(|_| Ok(Vec::new()))
                        }
                        None => reading.receive().await,
                    };
                    return received.map(Received::Deliveries);
                }
            }
        }
    }

    fn settler(&self) -> Option<Arc<Settler>> {
        self.settler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_settler(&self, settler: Option<Arc<Settler>>) {
        *self.settler.lock().unwrap_or_else(PoisonError::into_inner) = settler;
    }
}

/// Takes the stream for this connection, for as long as it lives; false where another one has it.
///
/// The lock is an exclusive queue: the broker deletes it with the connection, also where that dies.
pub(super) async fn lock(link: &Link, stream: &str) -> Result<bool, PortError> {
    const OPERATION: &str = "take a stream of RabbitMQ for this reader";
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let declare = channel.queue_declare(format!("{stream}.reader").into(), options, FieldTable::default());
    match timeout(CALL_LIMIT, declare).await {
        Ok(Ok(_)) => within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await.map(|()| true),
        // The broker has closed the channel.
        Ok(Err(error)) if is_locked(&error) => Ok(false),
        Ok(Err(error)) => Err(port_error(OPERATION, error)),
        Err(_) => Err(PortError::transient(OPERATION, format!("no answer within {CALL_LIMIT:?}"))),
    }
}

#[async_trait]
impl PulseSource for RabbitmqStreamSource {
    async fn receive(&self) -> Result<Received, PortError> {
        let mut state = self.state.lock().await;
        let received = self.advance(&mut state).await;
        if received.is_err() {
            self.set_settler(None);
            *state = State::Closed;
        }
        received
    }

    /// The store of the counts remembers for it how far that is.
    fn resumes_where_settled(&self) -> bool {
        true
    }

    /// Leaves the mark that the stream was settled, once; how far, the store of the counts knows.
    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        let settler = self.settler().filter(|settler| settler.partition == watermark.partition);
        let Some(settler) = settler else { return Ok(()) };
        let mut is_set = settler.is_set.lock().await;
        if *is_set {
            return Ok(());
        }
        match Mark::Settled.set(&settler.channel, &self.settings.queue).await {
            // The channel ended under the call: mostly with its connection, which receiving says. The next reading sets it;
            // until then a start counts from the beginning what the shards know already.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the stream could not be marked as settled");
                self.set_settler(None);
                return Ok(());
            }
            result => result?,
        }
        *is_set = true;
        Ok(())
    }

    /// Not while another reader has the stream: what that one leaves behind is this one's.
    async fn is_drained(&self) -> Result<bool, PortError> {
        Ok(!self.waits.load(Ordering::Acquire))
    }

    async fn close(&self) -> Result<(), PortError> {
        self.set_settler(None);
        if let State::Reading(reading) = mem::take(&mut *self.state.lock().await) {
            reading.close().await;
        }
        Ok(())
    }
}
