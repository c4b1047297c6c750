//! The contract suites, each test on a file of its own.

use crate::{WINDOW, open};
use application::contract::{accumulator::AccumulatorFixture, ledger::FreshBooks, suspects::FreshMarks};
use async_trait::async_trait;
use domain::ShardCount;
use infrastructure::sqlite::EmbeddedStore;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;

struct FreshFile {
    folder: TempDir,
    shards: u16,
}

impl FreshFile {
    fn new(shards: u16) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), shards }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pulse.db")
    }
}

#[async_trait]
impl AccumulatorFixture for FreshFile {
    type Store = EmbeddedStore;

    fn shards(&self) -> ShardCount {
        ShardCount::new(self.shards).unwrap()
    }

    fn dedupe_window(&self) -> Duration {
        WINDOW
    }

    async fn first(&self) -> Arc<EmbeddedStore> {
        Arc::new(open(&self.path()).await)
    }

    async fn second(&self) -> Option<Arc<EmbeddedStore>> {
        Some(Arc::new(open(&self.path()).await))
    }
}

impl FreshBooks for FreshFile {
    type Ledger = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        open(&self.path()).await
    }
}

impl FreshMarks for FreshFile {
    type Marks = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        open(&self.path()).await
    }
}

mod suspects {
    use super::*;
    application::suspects_contract!(std::future::ready(FreshFile::new(1)));
}

mod an_accumulator_of_one_shard {
    use super::*;
    application::accumulator_contract!(FreshFile::new(1));
}

mod an_accumulator_of_four_shards {
    use super::*;
    application::accumulator_contract!(FreshFile::new(4));
}

mod a_ledger {
    use super::*;
    application::ledger_contract!(std::future::ready(FreshFile::new(1)));
}

mod questions {
    use super::*;
    application::queries_contract!(std::future::ready(FreshFile::new(1)));
}
