//! Deliveries between receipt and settlement, and the watermark below which all are finished.

use crate::ports::{Delivery, PartitionId, Watermark};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, mpsc};

use super::refusals::Refused;

/// A delivery of which some pulses may not be finished.
pub(super) struct InFlight {
    pub(super) delivery: Delivery,
    unfinished: AtomicUsize,
    unsettled: Arc<Unsettled>,
    refuse: mpsc::Sender<Refused>,
}

impl InFlight {
    pub(super) fn new(
        delivery: Delivery,
        items: usize,
        unsettled: &Arc<Unsettled>,
        refuse: &mpsc::Sender<Refused>,
    ) -> Arc<Self> {
        Arc::new(Self {
            delivery,
            unfinished: AtomicUsize::new(items),
            unsettled: Arc::clone(unsettled),
            refuse: refuse.clone(),
        })
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
    /// The pulse is applied, known, or its dead letter is confirmed. Its settler looks when it is next woken.
    pub(super) fn finish(self) {
        if self.in_flight.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.in_flight.unsettled.changed.notify_one();
        }
    }

    /// Hands the pulse to the source's refusals; waits where they are behind.
    pub(super) async fn refuse(self, rejection: domain::Rejection) {
        let refuse = self.in_flight.refuse.clone();
        // The other end is dropped only when the engine has failed and this task is about to be.
        let _ = refuse.send(Refused { origin: self, rejection }).await;
    }
}

/// The deliveries of one source that are not settled, in the order of their receipt within each partition.
#[derive(Default)]
pub(super) struct Unsettled {
    partitions: Mutex<Vec<(PartitionId, VecDeque<Arc<InFlight>>)>>,
    changed: Notify,
}

impl Unsettled {
    pub(super) fn add(&self, in_flight: Arc<InFlight>) {
        let partition = in_flight.delivery.partition;
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
    pub(super) fn advance(&self) -> Vec<Watermark> {
        let mut partitions = self.partitions.lock().expect("no holder of this lock can panic");
        let mut watermarks = Vec::new();
        for (partition, deliveries) in partitions.iter_mut() {
            let mut last = None;
            while let Some(finished) = deliveries.pop_front_if(|delivery| delivery.is_finished()) {
                last = Some(finished.delivery.sequence);
            }
            watermarks.extend(last.map(|sequence| Watermark { partition: *partition, sequence }));
        }
        partitions.retain(|(_, deliveries)| !deliveries.is_empty());
        watermarks
    }

    pub(super) fn len(&self) -> usize {
        let partitions = self.partitions.lock().expect("no holder of this lock can panic");
        partitions.iter().map(|(_, deliveries)| deliveries.len()).sum()
    }
}
