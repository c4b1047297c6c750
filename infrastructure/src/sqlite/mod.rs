//! The embedded twin: accumulator and ledger in one SQLite file, exact under `kill -9` like the servers.
//!
//! Every step is one transaction that takes the write lock first (`BEGIN IMMEDIATE`) and reads what it needs inside, so
//! that several processes may use one file at the same time. WAL with `synchronous=FULL`: what returned is on the disk.
//!
//! - `sink`, with `batch` and `identities`: counts batches (`PulseSink`).
//! - `logs`: how far logs were counted (`LogPositions`); `log_accounts`: what was received of them (`LogAccounts`).
//! - `shards`: makes shards and says where they stand (`AccumulatorShards`).
//! - `generations`, with `sweep`: seals, reads and deletes (`GenerationStore`).
//! - `ledger`, `registry`, `reader`, `queries`: the books (`UsageLedger`, `ShardRegistry`, `UsageReader`, `UsageQueries`).
//! - `dead_letters`: what was refused (`DeadLetters`); `letters`: people who go through it (`LetterPlace`).
//! - `inbox`, with `inbox_claims`: events on their way to be counted (`Inbox`); `api_keys`: who may call (`ApiKeys`).
//! - `suspects`: which messages were taken alone (`Suspects`).
//! - `audit`, `audit_books`: show counts and books to an audit (`AccumulatorAudit`, `BooksAudit`).
//! - `file`: the connections; `fault`: what is worth trying again; `service_lock`: one long-running service a file.

mod amount;
mod api_keys;
mod audit;
mod audit_books;
mod batch;
mod bulk;
mod dead_letters;
mod fault;
mod file;
mod generations;
mod identities;
mod inbox;
mod inbox_claims;
mod ledger;
mod letters;
mod log_accounts;
mod logs;
mod queries;
mod reader;
mod registry;
mod service_lock;
mod settings;
mod shards;
mod sink;
mod suspects;
mod sweep;
mod time;

pub use letters::EmbeddedLetters;
pub use service_lock::ServiceLock;

use application::ports::{PortError, ShardMark};
use domain::{AccumulatorId, Shard};
use file::File;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Where the embedded file is and how it is kept.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The file; its folder must be there. `-wal` and `-shm` beside it belong to it.
    pub path: PathBuf,
    /// How long a copy of a pulse is known for one.
    pub dedupe_window: Duration,
    /// How long a step waits for another process that is writing, before it fails as transient: at most 24 days.
    pub busy_timeout: Duration,
}

impl EmbeddedSettings {
    /// The file with the defaults: 48 hours, and 10 seconds.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            dedupe_window: Duration::from_hours(48),
            busy_timeout: Duration::from_secs(10),
        }
    }
}

/// Accumulator, ledger and dead letters in one file. One value stands for one run of a program.
#[derive(Debug)]
pub struct EmbeddedStore {
    file: File,
    dedupe_window: Duration,
    /// Whose batch numbers these are.
    writer: [u8; 16],
    seen: Mutex<BTreeMap<Shard, Seen>>,
}

/// How far this program has seen a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    accumulator: AccumulatorId,
    generation: u64,
    sequence: u64,
}

impl EmbeddedStore {
    /// Opens the file, makes it where it is missing, and brings its schema up to date.
    ///
    /// Several processes may do so at once; it does not ask for the [`Self::lock_service`].
    ///
    /// # Errors
    /// Transient while another process holds the file for longer than the `busy_timeout`. Permanent where the file is no
    /// database, or one of another program or of a newer version of this one, or where it may not be written.
    pub async fn open(settings: &EmbeddedSettings) -> Result<Self, PortError> {
        let file = File::open(settings).await?;
        Ok(Self {
            file,
            dedupe_window: settings.dedupe_window,
            writer: uuid::Uuid::new_v4().into_bytes(),
            seen: Mutex::default(),
        })
    }

    /// Takes the place of the one long-running service on the file, held until the value is dropped or the process ends.
    ///
    /// # Errors
    /// Permanent where another process holds it, with its process id and the remedy.
    pub fn lock_service(path: &Path) -> Result<ServiceLock, PortError> {
        ServiceLock::take(path)
    }

    /// Finishes with the file: moves what is in the `-wal` into it, if no other process has it open.
    pub async fn close(&self) {
        self.file.close().await;
    }

    fn seen(&self, shard: Shard) -> Option<Seen> {
        self.seen_shards().get(&shard).copied()
    }

    fn see(&self, shard: Shard, seen: Seen) {
        let mut shards = self.seen_shards();
        let entry = shards.entry(shard).or_insert(seen);
        // Calls on one shard may end in another order than they committed.
        if (entry.generation, entry.sequence) < (seen.generation, seen.sequence) {
            *entry = seen;
        }
    }

    fn seen_marks(&self) -> Vec<ShardMark> {
        let mark = |(shard, seen): (&Shard, &Seen)| ShardMark {
            shard: *shard,
            generation: seen.generation,
            sequence: seen.sequence,
            recovery: 0,
        };
        self.seen_shards().iter().map(mark).collect()
    }

    fn seen_shards(&self) -> MutexGuard<'_, BTreeMap<Shard, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
