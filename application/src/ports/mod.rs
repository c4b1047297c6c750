//! The ports: what the use cases need from the world, each a capability and never a technology.
//!
//! A method is one atomic step. Its documentation says what is durable when it returns, and what a repetition does.

mod accumulator;
mod api_keys;
mod archive;
mod audit;
mod backlog;
mod dead_letters;
mod error;
mod identities;
mod inbox;
mod intake;
mod ledger;
mod log_accounts;
mod recovery;
mod source;
mod suspects;

pub use accumulator::{
    AccumulatorShards, Batch, GenerationStore, LogMark, LogPositions, LogStretch, Outcome, PulseSink,
    SealedGeneration, ShardBirth, ShardCounts, ShardState,
};
pub use api_keys::{ApiKey, ApiKeys, Scope};
pub use archive::{ArchivedEvent, EventArchive, EventQueries, FoundEvent};
pub use audit::{
    AccumulatorAudit, AccumulatorBooks, AlteredRow, BooksAudit, BooksCut, FoundRow, RowCount, SealedCut,
    ShardBooks, ShardCut, Stray, TenantSum, TenantSums,
};
pub use backlog::Backlog;
pub use dead_letters::{
    DeadLetter, DeadLetters, LetterPlace, LetterRun, RefusedPulses, Returned, StoredLetter,
};
pub use error::{PortError, PortErrorKind};
pub use identities::{IDENTITIES_MAX, Remembered, RememberedIdentities};
pub use inbox::{Dealt, Inbox, InboxDepth, InboxEntry, InboxEvent, InboxFilter, InboxStatus, Stored};
pub use intake::{IntakeMessage, PulseIntake};
pub use ledger::{
    FlushReceipt, FlushRecord, GroupBy, LedgerPage, LedgerRow, Registration, ShardMark, ShardRecord,
    ShardRegistry, ShardStatus, UsageFilter, UsageLedger, UsageQueries, UsageReader, UsageRow, UsageRows,
    UsageSnapshot, WindowSum,
};
pub use log_accounts::{LogAccount, LogAccounts, LogBalance, LogStep};
pub use recovery::{
    FoundAt, LogSource, Recovery, RecoveryBooks, Remake, ShardHistory, ShardRecovery, ShardStorage,
};
pub use source::{Delivery, Envelope, LogReading, PartitionId, PulseSource, Received, Watermark};
pub use suspects::{SuspectId, Suspects};

#[cfg(any(test, feature = "test-support"))]
pub use {
    accumulator::{MockAccumulatorShards, MockGenerationStore, MockLogPositions, MockPulseSink},
    api_keys::MockApiKeys,
    archive::MockEventQueries,
    audit::{MockAccumulatorAudit, MockBooksAudit},
    backlog::MockBacklog,
    dead_letters::{MockDeadLetters, MockLetterPlace, MockLetterRun, MockRefusedPulses},
    identities::MockRememberedIdentities,
    inbox::MockInbox,
    intake::MockPulseIntake,
    ledger::{MockShardRegistry, MockUsageQueries, MockUsageReader},
    log_accounts::MockLogAccounts,
    recovery::MockLogSource,
    source::MockPulseSource,
    suspects::MockSuspects,
};
