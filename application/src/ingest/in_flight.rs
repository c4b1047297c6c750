//! Deliveries between receipt and settlement, and the watermark below which all are finished.

use crate::decode::{Decoder, Item};
use crate::ports::{Delivery, LogReading, PartitionId, Watermark};
use domain::{LogPosition, content_hash};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, mpsc};

use super::refusals::Refused;

/// A delivery of which some pulses may not be finished.
pub(super) struct InFlight {
    pub(super) delivery: Delivery,
    unfinished: AtomicUsize,
    verdicts: Verdicts,
    route: Arc<RouteHandle>,
    content: OnceLock<[u8; 16]>,
}

/// What a delivery was read as: pulses and refusals together, and the refusals among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub(super) all: usize,
    pub(super) refused: usize,
}

impl Verdicts {
    pub(super) fn of<T>(items: &[Item<T>]) -> Self {
        Self { all: items.len(), refused: items.iter().filter(|item| item.pulse.is_err()).count() }
    }
}

/// Where what becomes of a source's deliveries is told.
pub(super) struct RouteHandle {
    /// What operators call the source.
    pub(super) source_name: String,
    /// What is made of its messages.
    pub(super) decoder: Decoder,
    pub(super) unsettled: Arc<Unsettled>,
    /// Whether the place in a log is an identity.
    pub(super) by_offset: bool,
    pub(super) refuse: mpsc::Sender<Refused>,
}

impl InFlight {
    pub(super) fn new(delivery: Delivery, verdicts: Verdicts, route: &Arc<RouteHandle>) -> Arc<Self> {
        let (unfinished, route) = (AtomicUsize::new(verdicts.all), Arc::clone(route));
        Arc::new(Self { delivery, unfinished, verdicts, route, content: OnceLock::new() })
    }

    /// The hash of the whole body, computed once.
    pub(super) fn content_hash(&self) -> &[u8; 16] {
        self.content.get_or_init(|| content_hash(&[&self.delivery.body]))
    }

    /// So many pulses are in it, as is known now; none of them is on its way yet.
    pub(super) fn expect(&self, items: usize) {
        self.unfinished.store(items, Ordering::Release);
    }

    fn is_finished(&self) -> bool {
        self.unfinished.load(Ordering::Acquire) == 0
    }
}

/// One pulse of a delivery: where it came from, and the duty to say when it is finished.
pub(super) struct Origin {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) item: Option<u32>,
    pub(super) bytes: Range<usize>,
}

impl Origin {
    /// Where the pulse stands in a log; `None` where that says nothing.
    pub(super) fn place(&self) -> Option<(&LogReading, LogPosition)> {
        let InFlight { delivery, route, .. } = self.in_flight.as_ref();
        let reading = delivery.log.as_deref().filter(|_| route.by_offset)?;
        let items = self.item.unwrap_or_default();
        Some((reading, LogPosition { offset: delivery.sequence, items }))
    }

    /// The source of its delivery.
    pub(super) fn route(&self) -> &RouteHandle {
        &self.in_flight.route
    }

    /// Hands the pulse to the source's refusals; waits where they are behind.
    pub(super) async fn refuse(self, rejection: domain::Rejection) {
        let refuse = self.in_flight.route.refuse.clone();
        // The other end is dropped only when the engine has failed and this task is about to be.
        let _ = refuse.send(Refused { origin: self, rejection }).await;
    }
}

/// These pulses are applied, known, or their dead letters are confirmed. Settlers are woken once for all of them.
pub(super) fn finish_all(origins: impl Iterator<Item = Origin>) {
    let mut finished: Option<Arc<RouteHandle>> = None;
    for Origin { in_flight, .. } in origins {
        if in_flight.unfinished.fetch_sub(1, Ordering::AcqRel) > 1 {
            continue;
        }
        if finished.as_ref().is_none_or(|route| !Arc::ptr_eq(route, &in_flight.route))
            && let Some(other) = finished.replace(Arc::clone(&in_flight.route))
        {
            other.unsettled.changed.notify_one();
        }
    }
    if let Some(route) = finished {
        route.unsettled.changed.notify_one();
    }
}

/// The deliveries of one source that are not settled, in the order of their receipt within each partition.
#[derive(Default)]
pub(super) struct Unsettled {
    partitions: Mutex<Vec<(PartitionId, VecDeque<Arc<InFlight>>)>>,
    changed: Notify,
    count: AtomicUsize,
    /// Nothing is left. The reader alone waits for it.
    emptied: Notify,
}

/// Deliveries that are finished and not settled yet.
pub(super) struct Finished {
    pub(super) watermark: Watermark,
    /// Where the partition is a reading of a log.
    pub(super) log: Option<Arc<LogReading>>,
    /// What was read at each offset of that log, in order.
    pub(super) verdicts: Vec<(u64, Verdicts)>,
    deliveries: usize,
}

impl Finished {
    /// Takes in what was finished of the same partition before.
    pub(super) fn take_in(&mut self, mut earlier: Self) {
        self.deliveries += earlier.deliveries;
        earlier.verdicts.append(&mut self.verdicts);
        self.verdicts = earlier.verdicts;
    }
}

impl Unsettled {
    pub(super) fn add(&self, in_flight: Arc<InFlight>) {
        let partition = in_flight.delivery.partition;
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut partitions = self.partitions.lock().expect("no holder of this lock can panic");
        match partitions.iter_mut().find(|(id, _)| *id == partition) {
            Some((_, deliveries)) => deliveries.push_back(in_flight),
            None => partitions.push((partition, VecDeque::from([in_flight]))),
        }
    }

    /// Waits for a delivery to be finished since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes out what is finished from the front of each partition; says how far that is.
    pub(super) fn advance(&self) -> Vec<Finished> {
        let mut partitions = self.partitions.lock().expect("no holder of this lock can panic");
        let mut finished = Vec::new();
        for (partition, deliveries) in partitions.iter_mut() {
            let (before, mut last, mut verdicts) = (deliveries.len(), None, Vec::new());
            while let Some(delivery) = deliveries.pop_front_if(|delivery| delivery.is_finished()) {
                if delivery.delivery.log.is_some() {
                    verdicts.push((delivery.delivery.sequence, delivery.verdicts));
                }
                last = Some(delivery);
            }
            finished.extend(last.map(|last| Finished {
                watermark: Watermark { partition: *partition, sequence: last.delivery.sequence },
                log: last.delivery.log.clone(),
                verdicts,
                deliveries: before - deliveries.len(),
            }));
        }
        partitions.retain(|(_, deliveries)| !deliveries.is_empty());
        finished
    }

    /// The source was told.
    pub(super) fn settled(&self, finished: &Finished) {
        if self.count.fetch_sub(finished.deliveries, Ordering::Relaxed) == finished.deliveries {
            self.emptied.notify_one();
        }
    }

    /// Waits until the source was told of every delivery.
    pub(super) async fn emptied(&self) {
        while self.len() > 0 {
            self.emptied.notified().await;
        }
    }

    /// How many deliveries the source was not told of.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
