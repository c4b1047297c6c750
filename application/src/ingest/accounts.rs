//! Adds up what is received of logs, where it is settled: beside what the shards say that they have taken of them.

use super::in_flight::Finished;
use crate::{
    ports::{LogAccounts, LogReading, LogStep, PortError, PulseSource},
    retry::Dependency,
};
use std::sync::Arc;

/// The accounts of one source.
#[derive(Clone)]
pub(super) struct Accounts {
    /// `None` where nothing can be added up: on a queue, and where messages before the settled ones come again or stay away.
    store: Option<Arc<dyn LogAccounts>>,
    /// Where they are kept.
    dependency: Arc<Dependency>,
    /// Whether the shards take pulses by their places. Otherwise accounts move on, and nothing is added to them.
    by_offset: bool,
}

impl Accounts {
    pub(super) fn new(
        store: Option<&Arc<dyn LogAccounts>>,
        source: &dyn PulseSource,
        dependency: &Arc<Dependency>,
        by_offset: bool,
    ) -> Self {
        let store = store.filter(|_| source.resumes_where_settled()).cloned();
        Self { store, dependency: Arc::clone(dependency), by_offset }
    }

    /// Before anything of the reading is counted: what comes from there on is added to the account.
    pub(super) async fn open(&self, reading: &LogReading, first: u64) -> Result<(), PortError> {
        let Some(store) = &self.store else { return Ok(()) };
        self.dependency.hold(|| store.open(&reading.log, first)).await.map(drop)
    }

    /// What is finished, before anybody else is told that it is settled. What another reading has settled is not added again.
    pub(super) async fn settle(&self, finished: &Finished) -> Result<(), PortError> {
        let (Some(store), Some(reading)) = (&self.store, finished.log.as_deref()) else { return Ok(()) };
        let to = finished.watermark.sequence + 1;
        let first = finished.verdicts.first().map_or(to, |(offset, _)| *offset);
        // One that stands elsewhere says where.
        let stands = self.dependency.hold(|| store.open(&reading.log, first)).await?;
        let Some(mut stands) = stands else { return Ok(()) };
        while stands < to {
            let (mut received, mut refused) = (0, 0);
            for (_, verdicts) in finished.verdicts.iter().filter(|(at, _)| self.by_offset && *at >= stands) {
                received += verdicts.all as u64;
                refused += verdicts.refused as u64;
            }
            let step = LogStep { from: stands, to, received, refused };
            stands = self.dependency.hold(|| store.settle(&reading.log, step)).await?;
        }
        Ok(())
    }
}
