//! Opens the stores that the settings name: the one place where a port meets its adapter.

use crate::{
    clock,
    settings::{Accumulator, Counting, Ledger, Stores},
};
use anyhow::Context;
use application::{
    audit::{AuditBooks, AuditTally},
    flush_tally::FlushTally,
    flush_usage::{FlushError, FlushSummary, FlushUsage},
    open_shards::{OpenError, open_shards},
    ports::{
        AccumulatorAudit, AccumulatorShards, ApiKeys, BooksAudit, DeadLetters, GenerationStore, LogAccounts,
        LogPositions, PortError, PulseSink, RecoveryBooks, Registration, RememberedIdentities, ShardRegistry,
        ShardStorage, Suspects, UsageLedger, UsageQueries, UsageReader,
    },
    report_usage::PendingUsage,
    retry::Dependency,
};
use domain::{AccumulatorId, ShardCount};
use infrastructure::{
    inbox::StoredInbox,
    json::JsonLedger,
    postgres::{PostgresLedger, PostgresSettings},
    redis::{IdentityLayout, RedisAccumulator, RedisDurability, RedisSettings},
    sqlite::{EmbeddedSettings, EmbeddedStore, ServiceLock},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};

/// How long a command that is not a mode waits for servers that are away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether they are.
const AWAY_CHECK: Duration = Duration::from_millis(100);
/// Connections to PostgreSQL for all work but questions: the flush, the marks, the inbox in and out, keys and probes.
const LEDGER_CONNECTIONS: u32 = 8;

/// The books.
pub(crate) struct Books {
    /// Writes them.
    pub(crate) ledger: Arc<dyn UsageLedger>,
    /// Remembers the accumulator.
    pub(crate) registry: Arc<dyn ShardRegistry>,
    /// Reads them.
    pub(crate) reader: Arc<dyn UsageReader>,
    /// Answers questions about them.
    pub(crate) queries: Arc<dyn UsageQueries>,
    /// Shows them to an audit.
    pub(crate) audit: Arc<dyn BooksAudit>,
    /// What came over HTTP, where the books are kept in a store that can hold it.
    pub(crate) inbox: Option<Arc<StoredInbox>>,
    /// Who may call over HTTP, where the books are kept in a store that can hold it.
    pub(crate) keys: Option<Arc<dyn ApiKeys>>,
    /// The embedded file, where the books are in it.
    pub(crate) file: Option<Arc<EmbeddedStore>>,
    /// Remembers recoveries from lost storage, where the books are kept in a store that can.
    pub(crate) recoveries: Option<Arc<dyn RecoveryBooks>>,
}

/// The books, and the accumulator before them.
pub(crate) struct Backends {
    /// The books.
    pub(crate) books: Books,
    /// Counts.
    pub(crate) sink: Arc<dyn PulseSink>,
    /// Its shards.
    pub(crate) shards: Arc<dyn AccumulatorShards>,
    /// How far they have counted logs.
    pub(crate) positions: Arc<dyn LogPositions>,
    /// Their generations.
    pub(crate) generations: Arc<dyn GenerationStore>,
    /// Shows the counts to an audit.
    pub(crate) audit: Arc<dyn AccumulatorAudit>,
    /// Remembers single pulses.
    pub(crate) identities: Arc<dyn RememberedIdentities>,
    /// What was received of logs.
    pub(crate) accounts: Arc<dyn LogAccounts>,
    /// Remembers which messages were taken alone.
    pub(crate) suspects: Arc<dyn Suspects>,
    /// How many shards there are.
    pub(crate) shard_count: ShardCount,
    /// What operators call the accumulator.
    pub(crate) sink_name: &'static str,
    /// Both together, for what needs both: its absence is told once.
    pub(crate) dependency: Arc<Dependency>,
    /// What flushes of this program have done.
    pub(crate) flushes: Arc<FlushTally>,
    /// What audits of this program have found.
    pub(crate) audits: Arc<AuditTally>,
    /// The embedded file as the place of what is refused, where it counts.
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
    /// The storage of the shards, where it may be lost apart from the books.
    pub(crate) storage: Option<Arc<dyn ShardStorage>>,
}

impl Ledger {
    /// Opens the books; `migrate` brings their tables and files up to date first.
    pub(crate) async fn open(&self, counting: &Counting, migrate: bool) -> Result<Books, PortError> {
        match self {
            Self::Postgres(url) => {
                let ledger = PostgresLedger::connect(&PostgresSettings {
                    url: url.clone(),
                    max_connections: LEDGER_CONNECTIONS,
                    allow_unsafe_durability: false,
                })
                .await?;
                if migrate {
                    ledger.migrate().await?;
                }
                let (inbox, ledger) = (ledger.inbox(), Arc::new(ledger));
                Ok(Books { recoveries: Some(Arc::clone(&ledger) as _), ..Books::with_inbox(&ledger, inbox) })
            }
            Self::Embedded(file) => Ok(Books::embedded(&embedded(file, counting).await?)),
            Self::Json(folder) => {
                let ledger = JsonLedger::new(folder)?;
                if migrate {
                    ledger.refresh().await?;
                }
                Ok(Books::of(&Arc::new(ledger)))
            }
        }
    }
}

impl Books {
    fn embedded(store: &Arc<EmbeddedStore>) -> Self {
        Self { file: Some(Arc::clone(store)), ..Self::with_inbox(store, store.inbox()) }
    }

    fn with_inbox<B>(books: &Arc<B>, inbox: StoredInbox) -> Self
    where
        B: UsageLedger + ShardRegistry + UsageReader + UsageQueries + BooksAudit + ApiKeys,
    {
        Self { inbox: Some(Arc::new(inbox)), keys: Some(Arc::clone(books) as _), ..Self::of(books) }
    }

    /// Books in a store that holds nothing else.
    fn of<B: UsageLedger + ShardRegistry + UsageReader + UsageQueries + BooksAudit>(books: &Arc<B>) -> Self {
        Self {
            inbox: None,
            keys: None,
            file: None,
            recoveries: None,
            queries: Arc::clone(books) as _,
            audit: Arc::clone(books) as _,
            ledger: Arc::clone(books) as _,
            registry: Arc::clone(books) as _,
            reader: Arc::clone(books) as _,
        }
    }
}

impl Backends {
    /// Opens both; `migrate` brings the tables of the books up to date first.
    pub(crate) async fn open(stores: &Stores, counting: &Counting, migrate: bool) -> Result<Self, PortError> {
        match (&stores.accumulator, &stores.ledger) {
            (Accumulator::Redis(redis), ledger) => {
                let books = ledger.open(counting, migrate).await?;
                let accumulator = RedisAccumulator::connect(&RedisSettings {
                    durability: if redis.strict { RedisDurability::Strict } else { RedisDurability::AtRisk },
                    identities: if redis.compact { IdentityLayout::Compact } else { IdentityLayout::Fast },
                    ..RedisSettings::new(redis.url.clone(), counting.shards, counting.dedupe_window)
                })
                .await?;
                let accumulator = Arc::new(accumulator);
                let storage: Arc<dyn ShardStorage> = Arc::clone(&accumulator) as _;
                let backends = Self::of(&accumulator, books, counting.shards, stores.sink_name(), None);
                Ok(Self { storage: Some(storage), ..backends })
            }
            (Accumulator::Embedded(file), ledger) => {
                let store = embedded(file, counting).await?;
                let books = if ledger.file() == Some(file) {
                    Books::embedded(&store)
                } else {
                    ledger.open(counting, migrate).await?
                };
                let dead_letters: Arc<dyn DeadLetters> = Arc::clone(&store) as _;
                Ok(Self::of(&store, books, ShardCount::ONE, stores.sink_name(), Some(dead_letters)))
            }
        }
    }

    fn of<A>(
        accumulator: &Arc<A>,
        books: Books,
        shard_count: ShardCount,
        sink_name: &'static str,
        dead_letters: Option<Arc<dyn DeadLetters>>,
    ) -> Self
    where
        A: PulseSink
            + AccumulatorShards
            + GenerationStore
            + LogPositions
            + AccumulatorAudit
            + RememberedIdentities
            + LogAccounts
            + Suspects,
    {
        Self {
            books,
            sink: Arc::clone(accumulator) as _,
            shards: Arc::clone(accumulator) as _,
            positions: Arc::clone(accumulator) as _,
            generations: Arc::clone(accumulator) as _,
            audit: Arc::clone(accumulator) as _,
            identities: Arc::clone(accumulator) as _,
            accounts: Arc::clone(accumulator) as _,
            suspects: Arc::clone(accumulator) as _,
            shard_count,
            sink_name,
            dependency: Arc::new(dependency(sink_name)),
            flushes: Arc::default(),
            audits: Arc::default(),
            dead_letters,
            storage: None,
        }
    }

    /// As [`Self::open`], waiting for servers that are away.
    pub(crate) async fn open_held(stores: &Stores, counting: &Counting) -> anyhow::Result<Self> {
        let opened = dependency(stores.sink_name()).hold(|| Self::open(stores, counting, true)).await;
        opened.with_context(|| format!("cannot open {stores}"))
    }

    /// Makes or finds the shards, waiting for stores that are away.
    pub(crate) async fn open_shards(&self) -> anyhow::Result<Registration> {
        let proposal = AccumulatorId::from_bytes(uuid::Uuid::new_v4().into_bytes());
        let registry = self.books.registry.as_ref();
        let open = || async {
            match open_shards(registry, self.shards.as_ref(), proposal, self.shard_count, clock::now()).await
            {
                Err(OpenError::Port(error)) if error.is_transient() => Err(error),
                result => Ok(result),
            }
        };
        Ok(self.dependency.hold(open).await??)
    }

    /// One flush, waiting for stores that are away.
    pub(crate) async fn flush(&self) -> anyhow::Result<FlushSummary> {
        let flush = FlushUsage {
            shards: Arc::clone(&self.shards),
            generations: Arc::clone(&self.generations),
            ledger: Arc::clone(&self.books.ledger),
            registry: Arc::clone(&self.books.registry),
        };
        let run = || async {
            match flush.run(clock::now()).await {
                Err(FlushError::Port(error)) if error.is_transient() => Err(error),
                result => Ok(result),
            }
        };
        let start = Instant::now();
        let summary = self.dependency.hold(run).await??;
        self.flushes.flushed(&summary, start.elapsed(), clock::now());
        Ok(summary)
    }

    /// Where what is not flushed is found.
    pub(crate) fn pending(&self) -> PendingUsage {
        PendingUsage {
            registry: Arc::clone(&self.books.registry),
            shards: Arc::clone(&self.shards),
            generations: Arc::clone(&self.generations),
        }
    }

    /// The audit of these stores.
    pub(crate) fn audit_books(&self) -> AuditBooks {
        AuditBooks {
            accumulator_name: self.sink_name.to_owned(),
            registry: Arc::clone(&self.books.registry),
            accumulator: Arc::clone(&self.audit),
            books: Arc::clone(&self.books.audit),
            shard_count: self.shard_count,
        }
    }

    /// Refuses settings that ask for another number of shards than there is.
    pub(crate) async fn check_shard_count(&self) -> anyhow::Result<()> {
        match self.books.registry.registration().await? {
            Some(Registration { shards: stored, .. }) if stored != self.shard_count => {
                Err(OpenError::ShardCount { stored, wanted: self.shard_count }.into())
            }
            _ => Ok(()),
        }
    }
}

/// What a flush and a start depend on, by the name that the logs use.
fn dependency(accumulator: &str) -> Dependency {
    Dependency::new(format!("{accumulator} or ledger"))
}

/// The embedded file.
pub(crate) async fn embedded(file: &Path, counting: &Counting) -> Result<Arc<EmbeddedStore>, PortError> {
    let settings =
        EmbeddedSettings { dedupe_window: counting.dedupe_window, ..EmbeddedSettings::new(file.to_owned()) };
    EmbeddedStore::open(&settings).await.map(Arc::new)
}

/// Takes the place of the one service on the embedded file, where there is one.
///
/// # Errors
/// Where another process has it: says which, and what to do.
pub(crate) fn lock_service(stores: &Stores) -> anyhow::Result<Vec<ServiceLock>> {
    let mut files = [stores.accumulator.file(), stores.ledger.file()];
    if files[0] == files[1] {
        files[1] = None;
    }
    let locks: Result<_, _> = files.into_iter().flatten().map(EmbeddedStore::lock_service).collect();
    Ok(locks?)
}

/// Bounds what waits for servers that are away, for commands that somebody waits for.
pub(crate) async fn patiently<T, E>(work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: Into<anyhow::Error>,
{
    match timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(away_for_too_long()),
    }
}

/// Bounds how long a dependency may be away meanwhile, and not how long the work takes.
pub(crate) async fn while_there<T>(
    dependency: &Dependency,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    select! {
        result = work => result,
        () = away_for(PATIENCE, dependency) => Err(away_for_too_long()),
    }
}

/// Returns when the dependency has been away for so long without a break.
async fn away_for(limit: Duration, dependency: &Dependency) {
    let mut there = Instant::now();
    while there.elapsed() < limit {
        sleep(limit.min(AWAY_CHECK)).await;
        if !dependency.is_away() {
            there = Instant::now();
        }
    }
}

fn away_for_too_long() -> anyhow::Error {
    anyhow::anyhow!("a server was away for more than {} s", PATIENCE.as_secs())
        .context("nothing is lost: repeat the command when it is back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_absence_without_a_break_is_too_long() {
        let limit = Duration::from_millis(300);
        let dependency = Dependency::new("test");
        let there = timeout(3 * limit, away_for(limit, &dependency));
        assert!(there.await.is_err(), "it was never away");

        let away = dependency.hold(|| async { Err::<(), _>(PortError::transient("ask", "away")) });
        select! {
            _ = away => panic!("it never succeeds"),
            gone = timeout(10 * limit, away_for(limit, &dependency)) => assert!(gone.is_ok(), "it is away"),
        }
    }
}
