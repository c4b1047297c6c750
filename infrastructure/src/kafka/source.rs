//! A topic of Kafka as a source of pulses.

use super::{
    KafkaSettings,
    assignment::Assignment,
    consumer::{Committer, RunningConsumer},
};
use application::ports::{LogPositions, PortError, PulseSource, Received, Watermark};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};
use tokio::{runtime::Handle, task::spawn_blocking};

/// Reads the partitions that the group gives to this member; a partition that is taken away and comes back is a new one.
///
/// Partitions that are taken away are let go of at once: what was in hand is counted all the same, and whoever reads it
/// again finds it counted. Offsets are committed by [`PulseSource::settle`] alone.
pub struct KafkaSource {
    settings: KafkaSettings,
    positions: Arc<dyn LogPositions>,
    numbers: Arc<AtomicU64>,
    running: tokio::sync::Mutex<Option<RunningConsumer>>,
    committer: Mutex<Option<Committer>>,
}

impl KafkaSource {
    /// A source that joins the group at the first call. `positions` are those of the store that counts.
    #[must_use]
    pub fn new(settings: KafkaSettings, positions: Arc<dyn LogPositions>) -> Self {
        Self {
            settings,
            positions,
            numbers: Arc::new(AtomicU64::new(1)),
            running: tokio::sync::Mutex::default(),
            committer: Mutex::default(),
        }
    }

    fn start(&self) -> Result<RunningConsumer, PortError> {
        let Self { settings, positions, numbers, .. } = self;
        let assignment = Assignment::new(&settings.topic, positions, numbers, Handle::current());
        let running = RunningConsumer::start(settings, assignment)?;
        *self.committer.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.committer());
        Ok(running)
    }
}

#[async_trait]
impl PulseSource for KafkaSource {
    async fn receive(&self) -> Result<Received, PortError> {
        const OPERATION: &str = "receive from Kafka";
        let mut running = self.running.lock().await;
        let consumer = match &mut *running {
            Some(consumer) => consumer,
            none => none.insert(self.start()?),
        };
        match consumer.next().await {
            Some(Ok(deliveries)) => Ok(Received::Deliveries(deliveries)),
            failed => {
                if let Some(consumer) = running.take() {
                    consumer.leave().await;
                }
                let ended = || Err(PortError::transient(OPERATION, "the consumer has ended"));
                failed.unwrap_or_else(ended).map(Received::Deliveries)
            }
        }
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(committer) = committer else { return Ok(()) };
        let topic = self.settings.topic.clone();
        spawn_blocking(move || committer.commit(watermark, &topic))
            .await
            .map_err(|error| PortError::permanent("commit an offset to Kafka", error))?
    }

    /// The group's offset is where it begins after any crash.
    fn resumes_where_settled(&self) -> bool {
        true
    }

    async fn close(&self) -> Result<(), PortError> {
        if let Some(consumer) = self.running.lock().await.take() {
            consumer.leave().await;
        }
        Ok(())
    }
}
