//! What every ledger does: books, registry and reader.
//!
//! `ledger_contract!` makes a test of each promise.
#![expect(
    clippy::missing_panics_doc,
    reason = "a promise that is broken panics: that is what the suite is for"
)]

mod shard_registry;
mod usage_ledger;
mod usage_reader;

pub use {shard_registry::*, usage_ledger::*, usage_reader::*};

use crate::ports::{
    FlushReceipt, PortError, SealedGeneration, ShardRegistry, UsageFilter, UsageLedger, UsageReader,
    UsageRow, UsageRows,
};
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, ShardCount, TenantId, Timestamp, TotalAmount, UsageKey,
    UsageTotal, UsageUnit,
};
use futures_util::{StreamExt, TryStreamExt, stream};

/// Empty books of one test.
pub trait FreshBooks {
    /// A handle on the books.
    type Ledger: UsageLedger + ShardRegistry + UsageReader;

    /// A handle like that of another process: every call gives one more on the same books.
    fn open(&self) -> impl Future<Output = Self::Ledger> + Send;

    /// Whether these books take products of this name; all do but those that name files by them.
    fn takes_sku(&self, _sku: &str) -> bool {
        true
    }
}

/// Makes a test of each promise of a ledger. The expression is a future of [`FreshBooks`], asked for once a test.
#[macro_export]
macro_rules! ledger_contract {
    ($fresh:expr) => {
        $crate::ledger_contract! { $fresh =>
            a_generation_is_booked_with_its_rows_and_its_watermark
            a_repetition_reads_and_writes_nothing
            a_repetition_with_another_total_is_refused
            rows_that_miss_the_sealed_total_are_refused
            a_generation_out_of_order_is_refused
            a_generation_of_a_stranger_is_refused
            of_writers_at_the_same_time_one_writes
            shards_add_to_one_hour_at_the_same_time
            amounts_add_up_to_the_last_digit
            an_hour_that_would_overflow_is_refused
            names_are_kept_whatever_they_hold
            hours_of_all_years_are_kept
            a_stream_that_fails_leaves_nothing
            an_empty_generation_is_booked
            many_rows_in_many_parts_are_booked
            the_first_registration_stands
            registrations_at_the_same_time_agree
            a_shard_once_made_stays_made
            marks_never_go_back
            totals_come_in_the_order_of_their_keys
            every_filter_holds
            a_filter_that_nothing_passes_gives_nothing
            a_snapshot_does_not_move
            books_without_a_registration_are_empty
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::ledger::$promise(&fresh).await;
            }
        )*
    };
}

const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);
pub(super) const SHARD: Shard = Shard(2);
const SEALED_AT: Timestamp = Timestamp::new(1_768_046_400, 250_000_000);

/// A ledger that knows [`ACCUMULATOR`] with four shards.
pub(super) async fn registered<B: FreshBooks>(books: &B) -> B::Ledger {
    let ledger = books.open().await;
    let shards = ShardCount::new(4).expect("four is a count");
    ledger.register(ACCUMULATOR, shards).await.expect("it registers");
    ledger
}

pub(super) fn key(tenant: &str, sku: &str, unit: &str, hour: i32) -> UsageKey {
    UsageKey {
        tenant: TenantId::new(tenant).expect("a tenant"),
        product_sku: ProductSku::new(sku).expect("a product"),
        use_unity: UsageUnit::new(unit).expect("a unit"),
        hour: HourWindow::from_number(hour),
    }
}

/// Of tenant `t`, product `s` and unit `u`.
fn row(hour: i32, amount: &str, pulses: u64) -> UsageRow {
    UsageRow { key: key("t", "s", "u", hour), total: total(amount, pulses) }
}

pub(super) fn total(amount: &str, pulses: u64) -> UsageTotal {
    UsageTotal { amount: TotalAmount::parse(amount).expect("an amount"), pulses }
}

/// The generation that these rows are all of.
pub(super) fn sealed(shard: Shard, generation: u64, rows: &[UsageRow]) -> SealedGeneration {
    let total =
        rows.iter().fold(UsageTotal::default(), |sum, row| sum.checked_add(row.total).expect("a small sum"));
    SealedGeneration {
        accumulator: ACCUMULATOR,
        shard,
        generation,
        recovery: 0,
        total,
        sealed_at: SEALED_AT,
        positions: Vec::new(),
    }
}

/// The rows in parts of a few.
fn parts(rows: &[UsageRow]) -> UsageRows<'static> {
    stream::iter(rows.to_vec()).chunks(3).map(Ok).boxed()
}

pub(super) async fn write(
    ledger: &impl UsageLedger,
    sealed: &SealedGeneration,
    rows: &[UsageRow],
) -> FlushReceipt {
    ledger.write(sealed, parts(rows)).await.expect("the generation is written")
}

/// As a flush does it: a transient error is tried again.
async fn write_until_known(
    ledger: &impl UsageLedger,
    sealed: &SealedGeneration,
    rows: &[UsageRow],
) -> Result<FlushReceipt, PortError> {
    const TRIES: usize = 20;
    for _ in 1..TRIES {
        match ledger.write(sealed, parts(rows)).await {
            Err(error) if error.is_transient() => {}
            known => return known,
        }
    }
    ledger.write(sealed, parts(rows)).await
}

async fn read(ledger: &impl UsageReader, filter: &UsageFilter) -> Vec<UsageRow> {
    let snapshot = ledger.usage(filter).await.expect("the books can be read");
    snapshot.rows.try_concat().await.expect("the rows can be read")
}

/// The books are these rows, and these generations are the last written.
async fn assert_books(ledger: &impl UsageReader, flushed: &[u64], rows: &[UsageRow]) {
    let snapshot = ledger.usage(&UsageFilter::default()).await.expect("the books can be read");
    let booked = snapshot.rows.try_concat().await.expect("the rows can be read");
    assert_eq!((snapshot.flushed.as_slice(), booked.as_slice()), (flushed, rows));
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, PortError>) {
    let error = result.expect_err("it is refused");
    assert!(!error.is_transient(), "a refusal is permanent: {error}");
}
