//! Reads the books as of one moment.

use super::JsonLedger;
use application::ports::{PortError, UsageFilter, UsageReader, UsageRow, UsageSnapshot};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};

const PART_ROWS: usize = 4_000;

#[async_trait]
impl UsageReader for JsonLedger {
    async fn usage(&self, filter: &UsageFilter) -> Result<UsageSnapshot, PortError> {
        let filter = filter.clone();
        self.look("read the books of the JSON ledger", move |state| {
            let flushed = state.flushed();
            let wanted = state.usage.into_iter().filter(move |(key, _)| filter.wants(key));
            let rows = wanted.map(|(key, row)| UsageRow { key, total: row.total });
            Ok(UsageSnapshot { flushed, rows: stream::iter(rows).chunks(PART_ROWS).map(Ok).boxed() })
        })
        .await
    }
}
