//! What the dashboard and the metrics look at.

use crate::backends::Backends;
use application::{
    overview::GatherOverview,
    ports::{Backlog, Inbox, PortError, RefusedPulses},
};
use async_trait::async_trait;
use infrastructure::rabbitmq::{QueueType, RabbitmqObserver, RabbitmqSettings};
use std::{sync::Arc, time::Duration};

/// How long each part may take to answer.
const PART_LIMIT: Duration = Duration::from_secs(2);

/// A look at these stores, and at the broker where there is one.
pub(crate) fn overview(backends: &Backends, broker: Option<&RabbitmqSettings>) -> GatherOverview {
    let mut backlogs: Vec<(String, Arc<dyn Backlog>)> = Vec::new();
    if let Some(inbox) = &backends.books.inbox {
        backlogs.push(("inbox".to_owned(), Arc::new(InboxBacklog(Arc::clone(inbox) as _))));
    }
    let mut refused: Vec<(String, Arc<dyn RefusedPulses>)> = Vec::new();
    if let Some(file) = &backends.books.file {
        refused.push(("embedded file".to_owned(), Arc::clone(file) as _));
    }
    if let Some(broker) = broker {
        let observer = Arc::new(RabbitmqObserver::new(broker.clone()));
        // A stream keeps what was counted: how much of it waits, the broker cannot say.
        if broker.queue_type != QueueType::Stream {
            backlogs.push(("rabbitmq".to_owned(), Arc::clone(&observer) as _));
        }
        refused.push((format!("rabbitmq {}", broker.dead_letter_queue), observer));
    }
    GatherOverview {
        accumulator: backends.sink_name.to_owned(),
        ledger: "ledger".to_owned(),
        shards: Arc::clone(&backends.shards),
        shard_count: backends.shard_count,
        generations: Arc::clone(&backends.generations),
        queries: Arc::clone(&backends.books.queries),
        backlogs,
        refused,
        part_limit: PART_LIMIT,
    }
}

/// What waits in the inbox.
struct InboxBacklog(Arc<dyn Inbox>);

#[async_trait]
impl Backlog for InboxBacklog {
    async fn waiting(&self) -> Result<u64, PortError> {
        Ok(self.0.depth().await?.received)
    }
}
