//! What every handler can reach.

use super::{HttpSettings, auth::Authority, dashboard::Dashboard, health::Readiness};
use crate::metrics::Metrics;
use application::{
    dead_letters::{NamedPlace, Wish},
    decode::Decoder,
    populate::PopulateRuns,
    ports::{ApiKeys, Inbox, PortError, PulseIntake, UsageQueries},
    report_usage::PendingUsage,
};
use domain::Timestamp;
use std::{ops::Deref, sync::Arc};
use tokio::sync::Semaphore;

/// The ports that the handlers call.
pub struct HttpPorts {
    /// What to make of messages.
    pub decoder: Decoder,
    /// Takes pulses.
    pub intake: Arc<dyn PulseIntake>,
    /// Answers questions about the books.
    pub queries: Arc<dyn UsageQueries>,
    /// Where what is not flushed is found.
    pub pending: Arc<PendingUsage>,
    /// Keeps webhooks.
    pub inbox: Arc<dyn Inbox>,
    /// The places of dead letters.
    pub letters: Vec<NamedPlace>,
    /// Keeps the keys of services.
    pub keys: Arc<dyn ApiKeys>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// What the pages for people look at.
    pub dashboard: Dashboard,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct HttpState(Arc<Shared>);

/// What [`HttpState`] derefs to.
pub struct Shared {
    /// The settings.
    pub settings: HttpSettings,
    /// The ports.
    pub ports: HttpPorts,
    /// Who may do what.
    pub authority: Authority,
    /// Runs of made-up pulses; whoever serves stops them.
    pub(super) populate: PopulateRuns,
    /// Places for bodies of pulses.
    pub(super) ingests: Arc<Semaphore>,
    /// What `/readyz` saw last.
    pub(super) readiness: Readiness,
}

impl HttpState {
    /// Ties the settings and the ports together.
    ///
    /// # Errors
    /// Permanent where the credentials cannot be used.
    pub fn new(settings: HttpSettings, ports: HttpPorts) -> Result<Self, PortError> {
        let authority = Authority::new(&settings.credentials)?;
        let ingests = Arc::new(Semaphore::new(settings.limits.ingests_max));
        for place in &ports.letters {
            ports.metrics.note_letters(place.name, Wish::Discard, 0);
        }
        let populate = PopulateRuns::new(ports.decoder.clone(), Arc::clone(&ports.intake), ports.now);
        Ok(Self(Arc::new(Shared {
            settings,
            ports,
            authority,
            populate,
            ingests,
            readiness: Readiness::default(),
        })))
    }
}

impl Deref for HttpState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
