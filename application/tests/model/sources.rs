//! A queue and a log in memory: both give again what was not settled by whoever has died.

use crate::faults::{Call, Faults};
use application::{
    fakes::accumulator::MemoryAccumulator,
    open_log::{LogExtent, Settled, open_log},
    ports::{
        Delivery, Envelope, LogPositions, LogReading, PartitionId, PortError, PulseSource, Received,
        Watermark,
    },
};
use async_trait::async_trait;
use domain::{LogName, Timestamp};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Ready,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// How many deliveries are given at once.
const AT_ONCE: usize = 3;

/// What all readers share.
pub(crate) struct Broker {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    partitions: u64,
    ready: VecDeque<String>,
    unsettled: BTreeMap<(u64, u64), String>,
    log: Vec<String>,
    settled: Option<Settled>,
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Notify::new() }
    }

    pub(crate) fn publish(&self, body: String) {
        self.state.lock().unwrap().ready.push_back(body);
        self.arrived.notify_waiters();
    }

    pub(crate) fn append(&self, body: String) {
        self.state.lock().unwrap().log.push(body);
        self.arrived.notify_waiters();
    }

    /// Whether nothing is ready, nothing is unsettled, and the log is settled to its end.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state.lock().unwrap();
        let settled = state.settled.map_or(0, |settled| settled.next);
        state.ready.is_empty() && state.unsettled.is_empty() && settled == state.log.len() as u64
    }

    /// The channel has ended: what it had not settled is ready again, before everything else.
    fn requeue(&self, partition: u64) {
        let mut state = self.state.lock().unwrap();
        let rest = state.unsettled.split_off(&(partition, 0));
        for ((owner, tag), body) in rest.into_iter().rev() {
            if owner == partition {
                state.ready.push_front(body);
            } else {
                state.unsettled.insert((owner, tag), body);
            }
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    fn open(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.partitions += 1;
        state.partitions
    }
}

fn delivery(partition: u64, sequence: u64, body: &str, log: Option<Arc<LogReading>>) -> Delivery {
    Delivery {
        partition: PartitionId(partition),
        sequence,
        body: body.as_bytes().to_vec(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(1_700_000_000, 0),
        log,
        returns: 0,
    }
}

/// Waits until `take` gives something; the first call of a partition returns at once.
async fn wait_for(
    broker: &Broker,
    is_new: bool,
    take: impl Fn(&mut State) -> Vec<Delivery> + Send,
) -> Result<Received, PortError> {
    loop {
        let arrived = broker.arrived.notified();
        let deliveries = take(&mut broker.state.lock().unwrap());
        if is_new || !deliveries.is_empty() {
            return Ok(Received::Deliveries(deliveries));
        }
        arrived.await;
    }
}

/// One consumer of the queue. Dropped, it leaves what it had not settled to others.
pub(crate) struct QueueSource {
    pub(crate) broker: Arc<Broker>,
    pub(crate) faults: Faults,
    pub(crate) partition: Mutex<Option<(u64, u64)>>,
}

impl Drop for QueueSource {
    fn drop(&mut self) {
        self.leave();
    }
}

impl QueueSource {
    fn leave(&self) {
        let left = self.partition.lock().unwrap().take();
        if let Some((partition, _)) = left {
            self.broker.requeue(partition);
        }
    }
}

#[async_trait]
impl PulseSource for QueueSource {
    async fn receive(&self) -> Result<Received, PortError> {
        let known = *self.partition.lock().unwrap();
        let (partition, _) = known.unwrap_or_else(|| (self.broker.open(), 0));
        if known.is_none() {
            *self.partition.lock().unwrap() = Some((partition, 0));
        }
        let take = |state: &mut State| {
            let mut own = self.partition.lock().unwrap();
            let Some((_, tags)) = own.as_mut() else { return Vec::new() };
            let count = state.ready.len().min(AT_ONCE);
            let bodies: Vec<String> = state.ready.drain(..count).collect();
            let mut deliveries = Vec::with_capacity(count);
            for body in bodies {
                *tags += 1;
                deliveries.push(delivery(partition, *tags, &body, None));
                state.unsettled.insert((partition, *tags), body);
            }
            deliveries
        };
        let receive = wait_for(&self.broker, known.is_none(), take);
        let received = self.faults.strike(Call::Receive, receive, None::<Ready<()>>).await;
        if received.is_err() {
            self.leave();
        }
        received
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        let settle = async {
            let mut state = self.broker.state.lock().unwrap();
            let partition = watermark.partition.0;
            state.unsettled.retain(|(owner, tag), _| *owner != partition || *tag > watermark.sequence);
            Ok(())
        };
        self.faults.strike(Call::Settle, settle, None::<Ready<()>>).await
    }

    async fn close(&self) -> Result<(), PortError> {
        self.leave();
        Ok(())
    }
}

/// One reader of the log, which others may read at the same time without knowing of it.
pub(crate) struct LogSource {
    pub(crate) broker: Arc<Broker>,
    pub(crate) faults: Faults,
    pub(crate) store: Arc<MemoryAccumulator>,
    pub(crate) reading: Mutex<Option<Reading>>,
}

#[derive(Clone)]
pub(crate) struct Reading {
    partition: u64,
    next: u64,
    log: Arc<LogReading>,
}

pub(crate) fn log_name() -> LogName {
    LogName::of(&["model", "log", "0"]).unwrap()
}

impl LogSource {
    /// Begins where the counts prove that everything before is counted.
    async fn open(&self) -> Result<Reading, PortError> {
        let counted = self.store.positions(&log_name()).await?;
        let mut state = self.broker.state.lock().unwrap();
        let extent = LogExtent { begin: 0, end: state.log.len() as u64, settled: state.settled };
        let opened = open_log(log_name(), &counted, extent)
            .map_err(|fault| PortError::permanent("open the log of the model", fault))?;
        state.settled = Some(opened.settled);
        state.partitions += 1;
        Ok(Reading { partition: state.partitions, next: opened.start, log: Arc::new(opened.reading) })
    }
}

#[async_trait]
impl PulseSource for LogSource {
    async fn receive(&self) -> Result<Received, PortError> {
        let known = self.reading.lock().unwrap().clone();
        let is_new = known.is_none();
        if is_new {
            let opened = self.open().await?;
            *self.reading.lock().unwrap() = Some(opened);
        }
        let take = |state: &mut State| {
            let mut reading = self.reading.lock().unwrap();
            let Some(Reading { partition, next, log }) = reading.as_mut() else { return Vec::new() };
            let rest = state.log.iter().skip(usize::try_from(*next).unwrap()).take(AT_ONCE);
            let deliveries: Vec<Delivery> = (*next..)
                .zip(rest)
                .map(|(offset, body)| delivery(*partition, offset, body, Some(Arc::clone(log))))
                .collect();
            *next += deliveries.len() as u64;
            deliveries
        };
        let receive = wait_for(&self.broker, is_new, take);
        let received = self.faults.strike(Call::Receive, receive, None::<Ready<()>>).await;
        if received.is_err() {
            *self.reading.lock().unwrap() = None;
        }
        received
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        let settle = async {
            let mut state = self.broker.state.lock().unwrap();
            if let Some(settled) = state.settled.as_mut() {
                settled.next = settled.next.max(watermark.sequence + 1);
            }
            Ok(())
        };
        self.faults.strike(Call::Settle, settle, None::<Ready<()>>).await
    }

    fn resumes_where_settled(&self) -> bool {
        true
    }

    async fn close(&self) -> Result<(), PortError> {
        *self.reading.lock().unwrap() = None;
        Ok(())
    }
}
