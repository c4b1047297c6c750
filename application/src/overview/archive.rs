//! What an archive depends on, in one look.

use super::{Named, Unavailable, health, part};
use crate::ports::{Backlog, EventArchive, RefusedPulses};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};

/// The use case.
pub struct GatherArchive {
    /// What operators call the archive.
    pub name: String,
    /// Where events are kept.
    pub archive: Arc<dyn EventArchive>,
    /// The sources by their names, as far as they can be asked.
    pub backlogs: Vec<(String, Arc<dyn Backlog>)>,
    /// The dead letters by the names of their places.
    pub refused: Vec<(String, Arc<dyn RefusedPulses>)>,
    /// How long each part may take to answer.
    pub part_limit: Duration,
}

/// What all parts answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOverview {
    /// Whether events can be kept.
    pub archive: Named<()>,
    /// How many messages wait in each source.
    pub waiting: Vec<Named<u64>>,
    /// How many letters each place of refused messages holds.
    pub rejected: Vec<Named<u64>>,
}

impl GatherArchive {
    /// Asks all parts at the same time; returns within the limit of a part.
    pub async fn run(&self) -> ArchiveOverview {
        let limit = self.part_limit;
        let archive = part(limit, &self.name, self.archive.check());
        let waiting = self.backlogs.iter().map(|(name, backlog)| part(limit, name, backlog.waiting()));
        let rejected = self.refused.iter().map(|(name, refused)| part(limit, name, refused.count()));
        let (archive, waiting, rejected) = tokio::join!(archive, join_all(waiting), join_all(rejected));
        ArchiveOverview { archive, waiting, rejected }
    }
}

impl ArchiveOverview {
    /// As [`super::Overview::health`].
    pub fn health(&self) -> impl Iterator<Item = (&str, Option<&Unavailable>)> {
        let others = self.waiting.iter().chain(&self.rejected);
        health([self.archive.health()].into_iter().chain(others.map(Named::health)))
    }
}
