//! Which partitions this member of the group reads, and from where on.

use super::error::during;
use application::{
    open_log::{LogExtent, OpenedLog, Settled, open_log},
    ports::{LogPositions, LogReading, PartitionId, PortError},
};
use domain::LogName;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::KafkaResult,
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, time::timeout};
use tracing::info;

const OPERATION: &str = "take over partitions of Kafka";
/// How long each question about a partition may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// One reading of one partition, from its assignment to its revocation.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Never used again: what is late to settle finds nothing.
    pub(super) id: PartitionId,
    pub(super) log: Arc<LogReading>,
    /// What is committed.
    pub(super) settled: Settled,
}

/// The partitions of this member, kept by what the group decides.
pub(super) struct Assignment {
    topic: String,
    positions: Arc<dyn LogPositions>,
    /// Numbers readings over all consumers of the source.
    numbers: Arc<AtomicU64>,
    /// Where the positions are asked for: rebalances are told on the consumer's own thread.
    runtime: Handle,
    readings: Mutex<HashMap<i32, Reading>>,
    fault: Mutex<Option<PortError>>,
    open: AtomicBool,
    rebalances: AtomicU64,
}

impl Assignment {
    pub(super) fn new(
        topic: &str,
        positions: &Arc<dyn LogPositions>,
        numbers: &Arc<AtomicU64>,
        runtime: Handle,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            positions: Arc::clone(positions),
            numbers: Arc::clone(numbers),
            runtime,
            readings: Mutex::default(),
            fault: Mutex::default(),
            open: AtomicBool::new(false),
            rebalances: AtomicU64::new(0),
        }
    }

    fn readings(&self) -> MutexGuard<'_, HashMap<i32, Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reading of a partition; `None` where it was revoked.
    pub(super) fn reading(&self, partition: i32) -> Option<Reading> {
        self.readings().get(&partition).cloned()
    }

    /// The partition of a reading and the reading; `None` where it is over.
    pub(super) fn find(&self, id: PartitionId) -> Option<(i32, Reading)> {
        let readings = self.readings();
        readings
            .iter()
            .find(|(_, reading)| reading.id == id)
            .map(|(partition, reading)| (*partition, reading.clone()))
    }

    pub(super) fn committed(&self, id: PartitionId, settled: Settled) {
        if let Some(reading) = self.readings().values_mut().find(|reading| reading.id == id) {
            reading.settled = settled;
        }
    }

    /// Whether the group has given this member its partitions, be they none.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// How often the group has decided anew: what was paused before may not be all that is assigned now.
    pub(super) fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Acquire)
    }

    /// What went wrong in a rebalance, once.
    pub(super) fn take_fault(&self) -> Option<PortError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: PortError) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Opens the readings of partitions that were assigned, and says where they begin. Of one that was never read the group
    /// is told first where it begins.
    fn open(
        &self,
        consumer: &BaseConsumer<Self>,
        assigned: &TopicPartitionList,
    ) -> Result<TopicPartitionList, PortError> {
        let mut starts = TopicPartitionList::new();
        if assigned.count() == 0 {
            return Ok(starts);
        }
        let Some(cluster) = consumer.client().fetch_cluster_id(QUESTION_LIMIT) else {
            return Err(PortError::transient(OPERATION, "the cluster did not tell its id"));
        };
        let kafka = |error| during(OPERATION, error);
        let committed = consumer.committed_offsets(assigned.clone(), QUESTION_LIMIT).map_err(kafka)?;
        let mut begun = TopicPartitionList::new();
        for element in committed.elements() {
            element.error().map_err(kafka)?;
            let partition = element.partition();
            let known = settled_of(&element)?;
            let OpenedLog { start, settled, reading } =
                self.open_partition(consumer, &cluster, partition, known)?;
            if known.is_none() {
                add_settled(&mut begun, &self.topic, partition, settled)?;
            }
            let from = i64::try_from(start).map_err(|error| PortError::permanent(OPERATION, error))?;
            starts.add_partition_offset(&self.topic, partition, Offset::Offset(from)).map_err(kafka)?;
            let id = PartitionId(self.numbers.fetch_add(1, Ordering::Relaxed));
            info!(log = %reading.log, start, "reads a partition");
            self.readings().insert(partition, Reading { id, log: Arc::new(reading), settled });
        }
        if begun.count() > 0 {
            consumer.commit(&begun, CommitMode::Sync).map_err(kafka)?;
        }
        Ok(starts)
    }

    fn open_partition(
        &self,
        consumer: &BaseConsumer<Self>,
        cluster: &str,
        partition: i32,
        settled: Option<Settled>,
    ) -> Result<OpenedLog, PortError> {
        let name = log_name(cluster, &self.topic, partition)?;
        let extent = consumer.fetch_watermarks(&self.topic, partition, QUESTION_LIMIT);
        let (begin, end) = extent.map_err(|error| during(OPERATION, error))?;
        let (begin, end) = (offset(begin)?, offset(end)?);
        let positions = async { timeout(QUESTION_LIMIT, self.positions.positions(&name)).await };
        let positions = self.runtime.block_on(positions);
        let positions = positions.map_err(|error| PortError::transient(OPERATION, error))??;
        open_log(name, &positions, LogExtent { begin, end, settled })
            .map_err(|fault| PortError::permanent(OPERATION, fault))
    }

    fn note(&self, result: KafkaResult<()>) {
        if let Err(error) = result {
            self.fail(during(OPERATION, error));
        }
    }
}

pub(super) fn offset(offset: i64) -> Result<u64, PortError> {
    u64::try_from(offset).map_err(|error| PortError::permanent(OPERATION, error))
}

/// A partition as a log.
pub(super) fn log_name(cluster: &str, topic: &str, partition: i32) -> Result<LogName, PortError> {
    let name = LogName::of(&["kafka", cluster, topic, &partition.to_string()]);
    name.ok_or_else(|| PortError::permanent(OPERATION, "the name of the topic is too long"))
}

/// What the group remembers of a partition, as it was committed.
pub(super) fn settled_of(element: &TopicPartitionListElem<'_>) -> Result<Option<Settled>, PortError> {
    match element.offset() {
        Offset::Offset(next) => {
            Ok(Some(Settled { next: offset(next)?, first: first_of(element.metadata()) }))
        }
        _ => Ok(None),
    }
}

/// What stands beside a committed offset, before the number of [`Settled::first`].
const FIRST: &str = "first=";

/// What stands beside a committed offset; 0 where somebody else committed it.
fn first_of(metadata: &str) -> u64 {
    metadata.strip_prefix(FIRST).and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Adds what is to be committed for a partition: the offset, and where the log began beside it, by one atomic step.
pub(super) fn add_settled(
    offsets: &mut TopicPartitionList,
    topic: &str,
    partition: i32,
    settled: Settled,
) -> Result<(), PortError> {
    const OPERATION: &str = "commit an offset to Kafka";
    let next = i64::try_from(settled.next).map_err(|error| PortError::permanent(OPERATION, error))?;
    let mut element = offsets.add_partition(topic, partition);
    element.set_metadata(format!("{FIRST}{}", settled.first));
    element.set_offset(Offset::Offset(next)).map_err(|error| during(OPERATION, error))
}

impl ClientContext for Assignment {}

impl ConsumerContext for Assignment {
    /// Runs on the thread that polls, which waits for it: nothing is delivered before the readings are open.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.rebalances.fetch_add(1, Ordering::AcqRel);
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => match self.open(consumer, partitions) {
                Ok(starts) => {
                    // A partition that was taken away while it was paused would come back paused.
                    let assigned = consumer.incremental_assign(&starts);
                    self.note(assigned.and_then(|()| consumer.resume(&starts)));
                    self.open.store(true, Ordering::Release);
                }
                Err(error) => {
                    // The group waits for an answer; the consumer ends before it delivers anything.
                    self.note(consumer.incremental_assign(partitions));
                    self.fail(error);
                }
            },
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                for element in partitions.elements() {
                    self.readings().remove(&element.partition());
                }
                self.note(consumer.incremental_unassign(partitions));
            }
            other => {
                self.readings().clear();
                self.note(consumer.unassign());
                self.fail(PortError::transient(OPERATION, format!("the rebalance failed: {other:?}")));
            }
        }
    }
}
