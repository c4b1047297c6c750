//! Takes deliveries from a source, decodes them, and hands their pulses to the lanes.

use super::{
    Tally,
    accounts::Accounts,
    alone::Alone,
    effect::Effect,
    in_flight::{InFlight, Origin, RouteHandle, Verdicts},
    lane::{LaneItem, LaneSender},
};
use crate::{
    crash_point,
    decode::{Decoder, Item},
    mutation::Mutation,
    ports::{Delivery, PartitionId, PortError, PulseSource, Received, Watermark},
    retry::Dependency,
};
use domain::ShardCount;
use std::{collections::HashSet, sync::Arc};
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
    pub(super) alone: Arc<Alone>,
    pub(super) accounts: Accounts,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: CancellationToken,
    /// Cancelled with the first answer of the source.
    pub(super) opened: CancellationToken,
}

impl<E: Effect> Reader<E> {
    /// Reads until the stop or the end of the source. What was received by then is handed on, whole.
    pub(super) async fn run(self) -> Result<(), PortError> {
        let mut chunk: Vec<Vec<LaneItem<E::Item>>> = self.lanes.iter().map(|_| Vec::new()).collect();
        let mut opened = HashSet::new();
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                received = self.dependency.hold(|| self.source.receive()) => received?,
            };
            self.opened.cancel();
            match received {
                Received::Deliveries(deliveries) => {
                    self.open_accounts(&deliveries, &mut opened).await?;
                    self.dispatch(deliveries, &mut chunk).await?;
                }
                Received::End => return Ok(()),
            }
        }
    }

    /// One for each reading of a log, with its first message.
    async fn open_accounts(
        &self,
        deliveries: &[Delivery],
        opened: &mut HashSet<PartitionId>,
    ) -> Result<(), PortError> {
        for delivery in deliveries {
            let Some(reading) = &delivery.log else { continue };
            if !opened.contains(&delivery.partition) {
                self.accounts.open(reading, delivery.sequence).await?;
                opened.insert(delivery.partition);
            }
        }
        Ok(())
    }

    async fn dispatch(
        &self,
        deliveries: Vec<Delivery>,
        chunk: &mut [Vec<LaneItem<E::Item>>],
    ) -> Result<(), PortError> {
        self.tally.received(deliveries.len());
        if Mutation::AckFirst.is_on()
            && let Some(Delivery { partition, sequence, .. }) = deliveries.last()
        {
            let _ = self.source.settle(Watermark { partition: *partition, sequence: *sequence }).await;
        }
        self.alone.tell(&deliveries);
        let (mut items, mut pulses) = (Vec::new(), 0);
        for delivery in deliveries {
            if self.alone.is_suspect(&delivery) {
                self.hand_on(chunk).await;
                pulses = 0;
                if !self.take_alone(delivery, chunk).await? {
                    return Ok(());
                }
                continue;
            }
            self.read(&delivery, &mut items);
            pulses += items.len();
            let in_flight = InFlight::new(delivery, Verdicts::of(&items), &self.route);
            self.route.unsettled.add(Arc::clone(&in_flight));
            self.sort(&in_flight, items.drain(..), chunk).await;
            if pulses >= CHUNK_PULSES {
                self.hand_on(chunk).await;
                pulses = 0;
            }
        }
        self.hand_on(chunk).await;
        Ok(())
    }

    /// Takes a suspect with nothing else of the source in hand, from before it is looked at until it is settled. Says that it
    /// was not taken where the stop came first: neither is anything that came after it, since the source is settled in order.
    async fn take_alone(
        &self,
        delivery: Delivery,
        chunk: &mut [Vec<LaneItem<E::Item>>],
    ) -> Result<bool, PortError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(false),
            () = self.route.unsettled.emptied() => {}
        }
        // However long the one before has taken: nothing that is done one by one is idle.
        self.tally.received(0);
        // In hand before it is known how many pulses it holds, so that nobody takes the wait for the mark for idleness.
        let in_flight = InFlight::new(delivery, Verdicts { all: 1, refused: 0 }, &self.route);
        self.route.unsettled.add(Arc::clone(&in_flight));
        let mut items = Vec::new();
        match self.alone.take(&in_flight.delivery).await? {
            Some(rejection) => items.push(Item::refused(&in_flight.delivery, rejection)),
            None => self.read(&in_flight.delivery, &mut items),
        }
        in_flight.expect(items.len());
        self.sort(&in_flight, items, chunk).await;
        self.hand_on(chunk).await;
        self.route.unsettled.emptied().await;
        self.alone.answered().await?;
        Ok(true)
    }

    fn read(&self, delivery: &Delivery, items: &mut Vec<Item<E::Item>>) {
        crash_point::hit_by("poison", &delivery.body);
        E::read(&self.decoder, delivery, items);
        crash_point::hit("decode_done");
    }

    /// Pulses to the lanes of their tenants, refusals to theirs.
    async fn sort(
        &self,
        in_flight: &Arc<InFlight>,
        items: impl IntoIterator<Item = Item<E::Item>>,
        chunk: &mut [Vec<LaneItem<E::Item>>],
    ) {
        for Item { index, bytes, pulse } in items {
            let origin = Origin { in_flight: Arc::clone(in_flight), item: index, bytes };
            match pulse {
                Ok(item) => {
                    let lane = usize::from(self.shards.shard_of(E::tenant(&item)).0);
                    chunk[lane].push(LaneItem { item, origin });
                }
                Err(rejection) => origin.refuse(rejection).await,
            }
        }
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
