//! Messages that came back again and again may be what ends their workers: each is taken alone, and refused where workers
//! ended even so.

use crate::{
    ports::{Delivery, PortError, SuspectId, Suspects},
    retry::Dependency,
};
use domain::{Reason, Rejection, content_hash};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{debug, info};

/// A message that came back so often is a suspect. No more than that: whatever was in hand when a worker ended came back,
/// the guilty one and all others.
const SUSPECT_RETURNS: u32 = 3;
/// So often it may come back from being taken alone. Once could be a kill from outside at that very moment.
const ALONE_MAX: u32 = 3;

/// The suspects of one source.
pub(super) struct Alone {
    source_name: String,
    /// `None` where nothing outlives the worker: then nothing is suspected.
    marks: Option<Arc<dyn Suspects>>,
    /// Where the marks are kept.
    dependency: Arc<Dependency>,
    in_hand: Mutex<Option<SuspectId>>,
}

impl Alone {
    pub(super) const fn new(
        source_name: String,
        marks: Option<Arc<dyn Suspects>>,
        dependency: Arc<Dependency>,
    ) -> Self {
        Self { source_name, marks, dependency, in_hand: Mutex::new(None) }
    }

    pub(super) fn is_suspect(&self, delivery: &Delivery) -> bool {
        self.marks.is_some() && delivery.returns >= SUSPECT_RETURNS
    }

    /// Notes that nothing but the suspect is in hand, before anybody looks at it; says whether it is to be refused unread.
    pub(super) async fn take(&self, delivery: &Delivery) -> Result<Option<Rejection>, PortError> {
        let Some(marks) = &self.marks else { return Ok(None) };
        let suspect = self.id(delivery);
        let ended = self.dependency.hold(|| marks.take(suspect, delivery.returns)).await?;
        self.set_in_hand(Some(suspect));
        if ended < ALONE_MAX {
            debug!(source = self.source_name, returns = delivery.returns, ended, "a suspect is taken alone");
            return Ok(None);
        }
        let detail = format!(
            "ended {ended} workers while nothing else of its source was in hand, {} in all: see why in their last \
             words, mend that, and send it back",
            delivery.returns
        );
        Ok(Some(Rejection::new(Reason::Poison, detail)))
    }

    /// The suspect has its answer.
    pub(super) async fn answered(&self) -> Result<(), PortError> {
        if let (Some(marks), Some(suspect)) = (&self.marks, self.in_hand()) {
            self.dependency.hold(|| marks.clear(suspect)).await?;
            self.set_in_hand(None);
        }
        Ok(())
    }

    /// The worker ends in order and gives the suspect back, if it has one: whatever it ends for, it did not die of that.
    pub(super) async fn give_back(&self) -> Result<(), PortError> {
        match (&self.marks, self.in_hand()) {
            (Some(marks), Some(suspect)) => marks.clear(suspect).await,
            _ => Ok(()),
        }
    }

    /// Says once for all that came together that they are taken one by one.
    pub(super) fn tell(&self, deliveries: &[Delivery]) {
        let suspects = deliveries.iter().filter(|delivery| self.is_suspect(delivery)).count();
        if suspects > 0 {
            info!(source = self.source_name, suspects, "came back often, and are taken one by one");
        }
    }

    fn id(&self, delivery: &Delivery) -> SuspectId {
        let message_id = delivery.envelope.message_id.as_deref().unwrap_or_default();
        SuspectId(content_hash(&[self.source_name.as_bytes(), message_id.as_bytes(), &delivery.body]))
    }

    fn in_hand(&self) -> Option<SuspectId> {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_in_hand(&self, suspect: Option<SuspectId>) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = suspect;
    }
}
