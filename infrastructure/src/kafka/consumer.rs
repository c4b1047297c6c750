//! The consumer and the thread that polls it: it keeps its place in the group however slowly its messages are taken.

use super::{
    KafkaSettings,
    assignment::{Assignment, add_settled},
    envelope::{arrived, envelope},
    error::{during, is_replaced, mends_itself},
};
use application::{
    open_log::Settled,
    ports::{Delivery, PortError, Watermark},
};
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::BorrowedMessage,
};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::debug;

const OPERATION: &str = "receive from Kafka";
/// How long a poll waits for a message: also how long a stop may take to be noticed.
const POLL: Duration = Duration::from_millis(100);
/// The most messages that are handed over at once.
const BATCH_MESSAGES: usize = 500;
/// How many such batches wait for whoever receives.
const BATCHES_WAITING: usize = 2;
/// How long whoever receives may be behind before the partitions are paused and only the group is served: pausing throws
/// away what was fetched ahead.
const PATIENCE: Duration = Duration::from_secs(1);

type Batch = Result<Vec<Delivery>, PortError>;

/// A member of the group, from its joining to its leaving.
pub(super) struct RunningConsumer {
    batches: mpsc::Receiver<Batch>,
    /// Held by the thread alone, which leaves the group as it ends.
    consumer: Weak<BaseConsumer<Assignment>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RunningConsumer {
    /// Joins the group.
    pub(super) fn start(settings: &KafkaSettings, assignment: Assignment) -> Result<Self, PortError> {
        let mut config = settings.client();
        config
            .set("group.id", &settings.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            // A member that died is replaced after this.
            .set("session.timeout.ms", "10000")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Every reading begins at an offset that was checked; where Kafka has none there, nothing may be skipped.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("queued.min.messages", "2000")
            // Once so many wait, the client asks again after this; by default after a second, which idles a full topic away.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.message.max.bytes", "1048576");
        let kafka = |error| during("join the group at Kafka", error);
        let consumer: BaseConsumer<Assignment> = config.create_with_context(assignment).map_err(kafka)?;
        consumer.subscribe(&[&settings.topic]).map_err(kafka)?;
        let consumer = Arc::new(consumer);
        let (send, batches) = mpsc::channel(BATCHES_WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let (weak, is_stopped) = (Arc::downgrade(&consumer), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("kafka".to_owned()).spawn(move || {
            if let Err(error) = poll(&consumer, &send, &is_stopped) {
                // Whoever receives may be gone, or behind: it sees the error after what it has not taken yet.
                let _ = send.blocking_send(Err(error));
            }
        });
        let thread = thread.map_err(|error| PortError::permanent(OPERATION, error))?;
        Ok(Self { batches, consumer: weak, stop, thread: Some(thread) })
    }

    /// The next messages; `None` where the thread has ended.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// A way to commit that does not wait for messages.
    pub(super) fn committer(&self) -> Committer {
        Committer(Weak::clone(&self.consumer))
    }

    /// Leaves the group and waits for it.
    pub(super) async fn leave(mut self) {
        self.stop.store(true, Ordering::Release);
        self.batches.close();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, there is nothing left to leave.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for RunningConsumer {
    /// The thread ends by itself within a moment, and leaves the group.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Polls until the stop, or until something fails: then the next consumer begins anew.
fn poll(
    consumer: &BaseConsumer<Assignment>,
    send: &mpsc::Sender<Batch>,
    stop: &AtomicBool,
) -> Result<(), PortError> {
    let mut batch: Vec<Delivery> = Vec::new();
    let (mut paused, mut open) = (None, false);
    while !stop.load(Ordering::Acquire) {
        // What has come already is handed on before anything is waited for.
        let wait = if batch.is_empty() || paused.is_some() { POLL } else { Duration::ZERO };
        let message = consumer.poll(wait);
        if let Some(error) = consumer.context().take_fault() {
            return Err(error);
        }
        let idle = message.is_none();
        match message {
            Some(Ok(message)) => batch.extend(delivery(consumer, &message)?),
            Some(Err(error)) if mends_itself(&error) => debug!(%error, "the client goes on by itself"),
            Some(Err(error)) => return Err(during(OPERATION, error)),
            None => {}
        }
        if idle && !open && consumer.context().is_open() {
            // The source is open, and there is nothing at the moment.
            open = true;
            if batch.is_empty() && matches!(send.try_send(Ok(Vec::new())), Err(TrySendError::Closed(_))) {
                return Ok(());
            }
        }
        if batch.is_empty() || !(idle || batch.len() >= BATCH_MESSAGES) {
            continue;
        }
        let patience = if paused.is_some() { Duration::ZERO } else { PATIENCE };
        match hand_on(send, std::mem::take(&mut batch), patience, stop) {
            Ok(()) => resume(consumer, &mut paused)?,
            Err(TrySendError::Full(back)) => {
                batch = back.unwrap_or_default();
                // Also those that were assigned since.
                pause(consumer, &mut paused)?;
            }
            Err(TrySendError::Closed(_)) => return Ok(()),
        }
    }
    Ok(())
}

/// Hands a batch on, or gives it back where nobody has room for it in time.
fn hand_on(
    send: &mpsc::Sender<Batch>,
    batch: Vec<Delivery>,
    patience: Duration,
    stop: &AtomicBool,
) -> Result<(), TrySendError<Batch>> {
    let until = Instant::now() + patience;
    let mut handed = send.try_send(Ok(batch));
    while let Err(TrySendError::Full(batch)) = handed {
        if Instant::now() >= until || stop.load(Ordering::Acquire) {
            return Err(TrySendError::Full(batch));
        }
        std::thread::sleep(Duration::from_millis(1));
        handed = send.try_send(batch);
    }
    handed
}

/// Pauses all partitions, once after each rebalance: `paused` says after which.
fn pause(consumer: &BaseConsumer<Assignment>, paused: &mut Option<u64>) -> Result<(), PortError> {
    let kafka = |error| during(OPERATION, error);
    let rebalances = consumer.context().rebalances();
    if *paused != Some(rebalances) {
        consumer.pause(&consumer.assignment().map_err(kafka)?).map_err(kafka)?;
        *paused = Some(rebalances);
    }
    Ok(())
}

fn resume(consumer: &BaseConsumer<Assignment>, paused: &mut Option<u64>) -> Result<(), PortError> {
    if paused.take().is_some() {
        let kafka = |error| during(OPERATION, error);
        consumer.resume(&consumer.assignment().map_err(kafka)?).map_err(kafka)?;
    }
    Ok(())
}

/// The message as a delivery; `None` where its partition was revoked and it is late.
fn delivery(
    consumer: &BaseConsumer<Assignment>,
    message: &BorrowedMessage<'_>,
) -> Result<Option<Delivery>, PortError> {
    let Some(reading) = consumer.context().reading(message.partition()) else { return Ok(None) };
    let sequence = u64::try_from(message.offset()).map_err(|error| PortError::permanent(OPERATION, error))?;
    Ok(Some(Delivery {
        partition: reading.id,
        sequence,
        body: message.payload().map(<[u8]>::to_vec).unwrap_or_default(),
        envelope: envelope(message),
        received_at: arrived(message),
        log: Some(reading.log),
        returns: 0,
    }))
}

/// Commits offsets of a consumer, as long as it is there.
#[derive(Clone)]
pub(super) struct Committer(Weak<BaseConsumer<Assignment>>);

impl Committer {
    /// Commits that everything up to the watermark is settled, and waits for the answer. Does nothing where the partition
    /// is no longer this member's. Blocks.
    pub(super) fn commit(&self, watermark: Watermark, topic: &str) -> Result<(), PortError> {
        const OPERATION: &str = "commit an offset to Kafka";
        let Some(consumer) = self.0.upgrade() else { return Ok(()) };
        let Some((partition, reading)) = consumer.context().find(watermark.partition) else { return Ok(()) };
        let next = watermark.sequence.checked_add(1);
        let next = next.ok_or_else(|| PortError::permanent(OPERATION, "there is no such offset"))?;
        if reading.settled.next >= next {
            return Ok(());
        }
        let settled = Settled { next, ..reading.settled };
        let mut offsets = TopicPartitionList::new();
        add_settled(&mut offsets, topic, partition, settled)?;
        match consumer.commit(&offsets, CommitMode::Sync) {
            // Whoever reads the partition since then settles it.
            Err(error) if error.rdkafka_error_code().is_some_and(is_replaced) => Ok(()),
            Err(error) => Err(during(OPERATION, error)),
            Ok(()) => {
                consumer.context().committed(watermark.partition, settled);
                Ok(())
            }
        }
    }
}
