//! Takes deliveries from a source, decodes them, and hands their pulses to the lanes.

use super::{
    Tally,
    effect::Effect,
    in_flight::{InFlight, Origin, RouteHandle},
    lane::{LaneItem, LaneSender},
};
use crate::{
    crash_point,
    decode::{Decoder, Item},
    mutation::Mutation,
    ports::{Delivery, PortError, PulseSource, Received, Watermark},
    retry::Dependency,
};
use domain::ShardCount;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// So many pulses are decoded before they are handed on: enough to spare the lanes' queues, few enough to stay small.
const CHUNK_PULSES: usize = 1_000;

pub(super) struct Reader<E: Effect> {
    pub(super) source: Arc<dyn PulseSource>,
    pub(super) decoder: Decoder,
    pub(super) dependency: Arc<Dependency>,
    pub(super) shards: ShardCount,
    pub(super) lanes: Vec<LaneSender<E::Item>>,
    pub(super) route: Arc<RouteHandle>,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: CancellationToken,
    /// Cancelled with the first answer of the source.
    pub(super) opened: CancellationToken,
}

impl<E: Effect> Reader<E> {
    /// Reads until the stop or the end of the source. What was received by then is handed on, whole.
    pub(super) async fn run(self) -> Result<(), PortError> {
        let mut chunk: Vec<Vec<LaneItem<E::Item>>> = self.lanes.iter().map(|_| Vec::new()).collect();
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                received = self.dependency.hold(|| self.source.receive()) => received?,
            };
            self.opened.cancel();
            match received {
                Received::Deliveries(deliveries) => self.dispatch(deliveries, &mut chunk).await,
                Received::End => return Ok(()),
            }
        }
    }

    async fn dispatch(&self, deliveries: Vec<Delivery>, chunk: &mut [Vec<LaneItem<E::Item>>]) {
        self.tally.received(deliveries.len());
        if Mutation::AckFirst.is_on()
            && let Some(Delivery { partition, sequence, .. }) = deliveries.last()
        {
            let _ = self.source.settle(Watermark { partition: *partition, sequence: *sequence }).await;
        }
        let (mut items, mut pulses) = (Vec::new(), 0);
        for delivery in deliveries {
            E::read(&self.decoder, &delivery, &mut items);
            crash_point::hit("decode_done");
            pulses += items.len();
            let in_flight = InFlight::new(delivery, items.len(), &self.route);
            self.route.unsettled.add(Arc::clone(&in_flight));
            for Item { index, bytes, pulse } in items.drain(..) {
                let origin = Origin { in_flight: Arc::clone(&in_flight), item: index, bytes };
                match pulse {
                    Ok(item) => {
                        let lane = usize::from(self.shards.shard_of(E::tenant(&item)).0);
                        chunk[lane].push(LaneItem { item, origin });
                    }
                    Err(rejection) => origin.refuse(rejection).await,
                }
            }
            if pulses >= CHUNK_PULSES {
                self.hand_on(chunk).await;
                pulses = 0;
            }
        }
        self.hand_on(chunk).await;
    }

    async fn hand_on(&self, chunk: &mut [Vec<LaneItem<E::Item>>]) {
        for (lane, items) in self.lanes.iter().zip(chunk) {
            if !items.is_empty() {
                let next = Vec::with_capacity(items.len());
                lane.send(std::mem::replace(items, next)).await;
            }
        }
    }
}
