//! Settles deliveries up to the first that is not finished, many with one call.

use super::{
    accounts::Accounts,
    effect::Effect,
    in_flight::{Finished, Unsettled},
    shard_writer::SettledLog,
};
use crate::{
    crash_point,
    ports::{PartitionId, PortError, PulseSource},
    retry::Dependency,
};
use futures_util::future::try_join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often logs are settled: what is finished meanwhile comes again after a crash, and is recognised.
const LOGS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Settler<E> {
    pub(super) source: Arc<dyn PulseSource>,
    pub(super) dependency: Arc<Dependency>,
    pub(super) unsettled: Arc<Unsettled>,
    pub(super) writers: Vec<Arc<E>>,
    pub(super) accounts: Accounts,
    /// Cancelled when nothing is left that could finish a delivery.
    pub(super) drained: CancellationToken,
}

impl<E: Effect> Settler<E> {
    /// Settles until all work is done, then closes the source.
    pub(super) async fn run(self) -> Result<(), PortError> {
        let (mut last, mut logs, mut due) = (false, BTreeMap::new(), Instant::now());
        while !last {
            tokio::select! {
                () = self.unsettled.changed() => {}
                () = self.drained.cancelled() => last = true,
                () = sleep_until(due), if !logs.is_empty() => {}
            }
            for finished in self.unsettled.advance() {
                if finished.log.is_some() {
                    postpone(&mut logs, finished);
                } else {
                    self.settle(&finished).await?;
                }
            }
            if !logs.is_empty() && (last || due <= Instant::now()) {
                self.settle_logs(std::mem::take(&mut logs)).await?;
                due = Instant::now() + LOGS_EVERY;
            }
        }
        self.dependency.hold(|| self.source.close()).await
    }

    /// The account first, because a source that is settled gives nothing again; then every shard: a log that is settled is proven by each of them, also those that got nothing of it.
    async fn settle_logs(&self, logs: BTreeMap<PartitionId, Finished>) -> Result<(), PortError> {
        let settled = |finished: &Finished| {
            let reading = Arc::clone(finished.log.as_ref()?);
            Some(SettledLog { reading, last: finished.watermark.sequence })
        };
        for finished in logs.values() {
            self.accounts.settle(finished).await?;
        }
        let settled: Vec<SettledLog> = logs.values().filter_map(settled).collect();
        try_join_all(self.writers.iter().map(|writer| writer.pass(&settled))).await?;
        for finished in logs.values() {
            self.settle(finished).await?;
        }
        Ok(())
    }

    async fn settle(&self, finished: &Finished) -> Result<(), PortError> {
        let point = if finished.log.is_some() { "offset_commit" } else { "ack_mid" };
        let settle = || crash_point::within(point, self.source.settle(finished.watermark));
        crash_point::hit("ack_before");
        self.dependency.hold(settle).await?;
        crash_point::hit("ack_after");
        self.unsettled.settled(finished);
        Ok(())
    }
}

fn postpone(logs: &mut BTreeMap<PartitionId, Finished>, mut finished: Finished) {
    if let Some(earlier) = logs.remove(&finished.watermark.partition) {
        finished.take_in(earlier);
    }
    logs.insert(finished.watermark.partition, finished);
}
