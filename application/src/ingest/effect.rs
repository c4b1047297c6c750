//! What the engine does with what it has read: where counting and archiving differ, and the only place.

use super::{in_flight::Origin, shard_writer::SettledLog};
use crate::{
    decode::{self, Decoder},
    ports::{Delivery, Outcome, PortError},
};
use domain::TenantId;

/// Makes batches of one lane durable.
pub(super) trait Effect: Send + Sync + 'static {
    /// What a batch is made of.
    type Item: Send + 'static;

    /// Reads a message: a verdict for each item in it.
    fn read(decoder: &Decoder, delivery: &Delivery, out: &mut Vec<decode::Item<Self::Item>>);

    /// By whom the items are spread over the lanes.
    fn tenant(item: &Self::Item) -> &TenantId;

    /// Whether a copy of it could not be known.
    fn is_anonymous(item: &Self::Item, origin: &Origin) -> bool;

    /// How many of the first of these make a batch: at least one.
    fn fitting<'a>(items: impl Iterator<Item = (&'a Self::Item, &'a Origin)>) -> usize;

    /// Applies items, each with its origin, as one batch; gives them back with what became of them.
    fn apply(
        &self,
        items: Vec<Self::Item>,
        origins: &[Origin],
    ) -> impl Future<Output = Result<(Vec<Self::Item>, Vec<Outcome>), PortError>> + Send;

    /// Takes notice of what is settled of logs, before their source is told.
    fn pass(&self, settled: &[SettledLog]) -> impl Future<Output = Result<(), PortError>> + Send;
}
