//! Keeps every event in an archive: the engine with other batches.

use super::{
    Engine, IngestError, Limits, Route, Tally, effect::Effect, in_flight::Origin, shard_writer::SettledLog,
};
use crate::{
    decode::{self, Decoder, Event},
    ports::{ArchivedEvent, Delivery, EventArchive, Outcome, PortError},
    retry::Dependency,
    trace,
};
use domain::{PulseIdentity, ShardCount, TenantId};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, field::Empty};

/// The use case: archives what the sources give until it is told to stop.
pub struct ArchiveEvents {
    /// The sources, at least one.
    pub routes: Vec<Route>,
    /// Where events are kept.
    pub archive: Arc<dyn EventArchive>,
    /// What operators call it.
    pub archive_name: String,
    /// Sixteen random bytes that no other run has: events that nothing identifies are told apart by it.
    pub run: [u8; 16],
    /// The bounds; a batch may have up to [`Self::EVENTS_MAX`] events.
    pub limits: Limits,
    /// What was done, for whoever wants to look while it runs.
    pub tally: Arc<Tally>,
}

impl ArchiveEvents {
    /// The most events in a batch.
    pub const EVENTS_MAX: usize = 32_000;
    /// The most bytes of events in a batch; a single event may have more.
    pub const BYTES_MAX: usize = 32 * 1024 * 1024;

    /// As [`super::IngestPulses::run`].
    ///
    /// # Errors
    /// See [`IngestError`]. Whatever the error, nothing was settled that is not durable.
    pub async fn run(self, stop: CancellationToken) -> Result<(), IngestError> {
        let dependency = self.tally.depends_on(self.archive_name);
        let writer =
            ArchiveWriter { archive: self.archive, dependency: Arc::clone(&dependency), run: self.run };
        let engine = Engine {
            routes: self.routes,
            writers: vec![Arc::new(writer)],
            // Few and large batches: there is one lane.
            shards: ShardCount::ONE,
            // An archive has no place for marks and accounts.
            suspects: None,
            accounts: None,
            sink: dependency,
            limits: self.limits.within_bounds(Self::EVENTS_MAX),
            tally: self.tally,
        };
        engine.run(stop).await
    }
}

struct ArchiveWriter {
    archive: Arc<dyn EventArchive>,
    dependency: Arc<Dependency>,
    run: [u8; 16],
}

impl Effect for ArchiveWriter {
    type Item = Event;

    fn read(decoder: &Decoder, delivery: &Delivery, out: &mut Vec<decode::Item<Event>>) {
        decoder.decode_events(delivery, out);
    }

    fn tenant(event: &Event) -> &TenantId {
        &event.tenant
    }

    fn is_anonymous(event: &Event, origin: &Origin) -> bool {
        event.identity.is_none() && origin.in_flight.delivery.log.is_none()
    }

    fn fitting<'a>(events: impl Iterator<Item = (&'a Event, &'a Origin)>) -> usize {
        let mut room = ArchiveEvents::BYTES_MAX;
        let fits = |(place, (_, origin)): &(usize, (&Event, &Origin))| {
            // Each row repeats what its message says about itself.
            let headers = &origin.in_flight.delivery.envelope.headers;
            let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let rest = room.checked_sub(origin.bytes.len() + headers);
            room = rest.unwrap_or_default();
            rest.is_some() || *place == 0
        };
        events.enumerate().take_while(fits).count()
    }

    async fn apply(
        &self,
        events: Vec<Event>,
        origins: &[Origin],
    ) -> Result<(Vec<Event>, Vec<Outcome>), PortError> {
        let batch: Vec<ArchivedEvent<'_>> = events
            .iter()
            .zip(origins)
            .map(|(event, origin)| {
                let delivery = &origin.in_flight.delivery;
                ArchivedEvent {
                    key: key(&self.run, event, origin),
                    event,
                    body: &delivery.body[origin.bytes.clone()],
                    item: origin.item.unwrap_or_default(),
                    delivery,
                    source: &origin.route().source_name,
                    mapping: origin.route().decoder.mapping().map(Arc::as_ref),
                }
            })
            .collect();
        let span = debug_span!("engine.batch.archive", events = batch.len(), trace_ids = Empty);
        trace::link(&span, batch.iter().map(|event| &event.delivery.envelope));
        let keep = async {
            self.dependency.hold(|| self.archive.keep(&batch)).await?;
            debug!("batch archived");
            Ok::<_, PortError>(())
        };
        keep.instrument(span).await?;
        let outcomes = vec![Outcome::Counted; batch.len()];
        Ok((events, outcomes))
    }

    /// The archive knows events by their keys: it has no positions to move.
    async fn pass(&self, _: &[SettledLog]) -> Result<(), PortError> {
        Ok(())
    }
}

/// What copies of an event have in common: its identity within tenant and product, or else its place in a log, or else
/// its delivery in this run; and its bytes, unit and amount, so that two events with one id and other contents are both
/// kept. Its time is not among them: it may be that of its arrival.
fn key(run: &[u8; 16], event: &Event, origin: &Origin) -> u128 {
    let Origin { in_flight, item, bytes } = origin;
    let delivery = &in_flight.delivery;
    let item = item.unwrap_or_default().to_be_bytes();
    let sequence = delivery.sequence.to_be_bytes();
    let partition = delivery.partition.0.to_be_bytes();
    let known_by: [&[u8]; 4] = match (&event.identity, &delivery.log) {
        (Some(PulseIdentity::Id(id)), _) => [b"id", id.as_bytes(), b"", b""],
        (Some(PulseIdentity::Message { id, item: _ }), _) => [b"message", id.as_bytes(), &item, b""],
        (Some(PulseIdentity::CloudEvent { source, id }), _) => {
            [b"cloudevent", source.as_bytes(), id.as_bytes(), b""]
        }
        (None, Some(reading)) => [b"log", reading.log.as_str().as_bytes(), &sequence, &item],
        (None, None) => [run, &partition, &sequence, &item],
    };
    let mut hash = Sha256::new();
    let amount = event.amount.map(|amount| amount.to_string()).unwrap_or_default();
    let what = [event.tenant.as_str(), event.product_sku.as_str(), event.use_unity.as_str(), &amount];
    for part in what.map(str::as_bytes).into_iter().chain(known_by).chain([&delivery.body[bytes.clone()]]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    hash.iter().take(16).fold(0, |key, byte| key << 8 | u128::from(*byte))
}
