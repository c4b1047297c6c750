//! What a ledger promises about writing.

use super::{
    ACCUMULATOR, FreshBooks, SHARD, assert_books, assert_refused, key, parts, read, registered, row, sealed,
    total, write, write_until_known,
};
use crate::ports::{
    FlushReceipt, PortError, PortErrorKind, SealedGeneration, ShardRegistry, UsageFilter, UsageLedger,
    UsageRow, UsageRows,
};
use domain::{AccumulatorId, Shard, ShardCount, UsageTotal};
use futures_util::{StreamExt, future, stream};

/// All of it is there afterwards, for another process too, and other shards are where they were.
pub async fn a_generation_is_booked_with_its_rows_and_its_watermark(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "307", 2), row(2, "0.9", 1)];
    let first = sealed(SHARD, 1, &rows);
    let receipt = write(&ledger, &first, &rows).await;
    assert_eq!(receipt, FlushReceipt { total: total("307.9", 3), rows: 2, written: true });
    assert_books(&books.open().await, &[0, 0, 1, 0], &rows).await;
    let registration = ledger.registration().await.expect("it can be read").expect("it is there");
    assert_eq!(registration.records.iter().map(|record| record.flushed).collect::<Vec<_>>(), [0, 0, 1, 0]);
}

/// The record of the first time is the answer, and the rows are not even asked for.
pub async fn a_repetition_reads_and_writes_nothing(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "307", 2), row(2, "0.9", 1)];
    let (first, second) = (sealed(SHARD, 1, &rows), sealed(SHARD, 2, &rows));
    write(&ledger, &first, &rows).await;
    write(&ledger, &second, &rows).await;
    let again = books.open().await.write(&first, unreadable()).await.expect("it is known");
    assert_eq!(again, FlushReceipt { total: first.total, rows: 2, written: false });
    assert_books(&ledger, &[0, 0, 2, 0], &[row(1, "614", 4), row(2, "1.8", 2)]).await;
}

/// Rows that nobody may read.
fn unreadable() -> UsageRows<'static> {
    stream::poll_fn(|_| panic!("the rows of a generation that is booked are not read")).boxed()
}

/// Neither another amount nor another count passes for the same generation.
pub async fn a_repetition_with_another_total_is_refused(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "307", 2)];
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    for other in [row(1, "307.000000001", 2), row(1, "307", 3)] {
        assert_refused(ledger.write(&sealed(SHARD, 1, &[other]), unreadable()).await);
    }
    assert_books(&ledger, &[0, 0, 1, 0], &rows).await;
}

/// Neither a missing nano nor a missing pulse is accepted, and nothing of it stays.
pub async fn rows_that_miss_the_sealed_total_are_refused(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "307", 2), row(2, "1", 1)];
    let generation = sealed(SHARD, 1, &rows);
    for wrong in [row(2, "1.000000001", 1), row(2, "0.999999999", 1), row(2, "1", 2), row(2, "1", 0)] {
        assert_refused(ledger.write(&generation, parts(&[rows[0].clone(), wrong])).await);
    }
    assert_refused(ledger.write(&generation, parts(&rows[..1])).await);
    assert_refused(ledger.write(&generation, parts(&[])).await);
    assert_books(&ledger, &[0; 4], &[]).await;
    assert!(write(&ledger, &generation, &rows).await.written);
    assert_books(&ledger, &[0, 0, 1, 0], &rows).await;
}

/// Generations are written from 1 on, without a gap.
pub async fn a_generation_out_of_order_is_refused(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows = [row(1, "1", 1)];
    for generation in [0, 2] {
        assert_refused(ledger.write(&sealed(SHARD, generation, &rows), parts(&rows)).await);
    }
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    assert_refused(ledger.write(&sealed(SHARD, 3, &rows), parts(&rows)).await);
    assert_books(&ledger, &[0, 0, 1, 0], &rows).await;
    write(&ledger, &sealed(SHARD, 2, &rows), &rows).await;
    assert_books(&ledger, &[0, 0, 2, 0], &[row(1, "2", 2)]).await;
}

/// Books take nothing from an accumulator or a shard that they do not know.
pub async fn a_generation_of_a_stranger_is_refused(books: &impl FreshBooks) {
    let rows = [row(1, "1", 1)];
    let unregistered = books.open().await;
    assert_refused(unregistered.write(&sealed(SHARD, 1, &rows), parts(&rows)).await);
    let ledger = registered(books).await;
    let stranger =
        SealedGeneration { accumulator: AccumulatorId::from_bytes([8; 16]), ..sealed(SHARD, 1, &rows) };
    assert_refused(ledger.write(&stranger, parts(&rows)).await);
    assert_refused(ledger.write(&sealed(Shard(4), 1, &rows), parts(&rows)).await);
    assert_books(&ledger, &[0; 4], &[]).await;
}

/// Two crons at once: the generation counts once, and both know that it does.
pub async fn of_writers_at_the_same_time_one_writes(books: &impl FreshBooks) {
    let first = registered(books).await;
    let ledgers = [first, books.open().await, books.open().await, books.open().await];
    let mut expected = UsageTotal::default();
    for generation in 1..=5 {
        let rows: Vec<UsageRow> = (0..50).map(|hour| row(hour, "0.1", 1)).collect();
        let generation = sealed(SHARD, generation, &rows);
        expected = expected.checked_add(generation.total).expect("a small sum");
        let writes = ledgers.iter().map(|writer| write_until_known(writer, &generation, &rows));
        let receipts = future::join_all(writes).await;
        let written: Vec<bool> =
            receipts.iter().map(|receipt| receipt.as_ref().expect("all know").written).collect();
        assert_eq!(written.iter().filter(|written| **written).count(), 1, "{written:?}");
    }
    let booked = read(&ledgers[0], &UsageFilter::default()).await;
    assert_eq!(sealed(SHARD, 1, &booked).total, expected);
}

/// Rows that are new to all, met by all at once, in any order.
pub async fn shards_add_to_one_hour_at_the_same_time(books: &impl FreshBooks) {
    let first = registered(books).await;
    let ledgers = [first, books.open().await, books.open().await, books.open().await];
    let mut rows: Vec<UsageRow> = (0..200).map(|hour| row(hour, "0.000000001", 1)).collect();
    for generation in 1..=2 {
        rows.reverse();
        let writes = ledgers.iter().zip(0..).map(|(writer, shard)| {
            let (generation, rows) = (sealed(Shard(shard), generation, &rows), &rows);
            async move { write_until_known(writer, &generation, rows).await }
        });
        for receipt in future::join_all(writes).await {
            assert!(receipt.expect("all are written").written);
        }
    }
    let expected: Vec<UsageRow> = (0..200).map(|hour| row(hour, "0.000000008", 8)).collect();
    assert_books(&ledgers[0], &[2; 4], &expected).await;
}

/// Far past what a double or 64 bits hold exactly.
pub async fn amounts_add_up_to_the_last_digit(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let cases = [
        ("9007199254740993", "0.000000001", "9007199254740993.000000001"),
        ("0.1", "0.2", "0.3"),
        ("0.999999999", "0.000000001", "1"),
        (
            "18446744073709551616.123456789",
            "18446744073709551616.123456789",
            "36893488147419103232.246913578",
        ),
        ("99999999999999999999999999999", "0.999999999", "99999999999999999999999999999.999999999"),
        ("0", "0", "0"),
        ("9999", "1", "10000"),
        ("10000.0001", "99990000.0000001", "100000000.0001001"),
    ];
    for (generation, pick) in [(1, 0), (2, 1)] {
        // One generation for each case, so that no total of a generation reaches the limit before an hour does.
        for (case, number) in cases.iter().zip(0..) {
            let amount = [case.0, case.1][pick];
            let rows = [UsageRow { key: key("t", "s", "u", number), total: total(amount, 1) }];
            let generation =
                u64::try_from(number).expect("small") + 1 + (generation - 1) * cases.len() as u64;
            write(&ledger, &sealed(SHARD, generation, &rows), &rows).await;
        }
    }
    let expected: Vec<UsageRow> = cases.iter().zip(0..).map(|(case, hour)| row(hour, case.2, 2)).collect();
    assert_books(&ledger, &[0, 0, 2 * cases.len() as u64, 0], &expected).await;
}

/// What `NUMERIC(38,9)` cannot hold is neither rounded nor cut.
pub async fn an_hour_that_would_overflow_is_refused(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let full = [row(1, "99999999999999999999999999999.999999999", 1)];
    write(&ledger, &sealed(SHARD, 1, &full), &full).await;
    let more = [row(0, "5", 1), row(1, "0.000000001", 1)];
    assert_refused(ledger.write(&sealed(SHARD, 2, &more), parts(&more)).await);
    assert_books(&ledger, &[0, 0, 1, 0], &full).await;
}

/// Names are bytes: nothing in them is a separator, an escape or the same as something else.
pub async fn names_are_kept_whatever_they_hold(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let long = "\u{1f600}".repeat(64);
    let names = [
        "a:b",
        "}{",
        "*?[",
        "\\N",
        "\\.",
        "\\",
        "\"",
        "'",
        "''; drop table hourly_usage; --",
        "$1",
        "%s",
        ",",
        "{NULL}",
        "null",
        " ",
        "a ",
        "a",
        "A",
        "\u{e9}",
        "e\u{301}",
        "\u{df}",
        "ss",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{a0}",
        "\u{202e}abc",
        &long,
    ];
    let mut rows: Vec<UsageRow> = Vec::new();
    for name in names {
        rows.push(UsageRow { key: key(name, "s", "u", 1), total: total("1", 1) });
        if books.takes_sku(name) {
            rows.push(UsageRow { key: key("t", name, "u", 1), total: total("1", 1) });
        }
        rows.push(UsageRow { key: key("t", "s", name, 1), total: total("1", 1) });
    }
    // The same bytes, cut at other places.
    rows.push(UsageRow { key: key("ab", "c", "d", 1), total: total("1", 1) });
    rows.push(UsageRow { key: key("a", "bc", "d", 1), total: total("1", 1) });
    for generation in 1..=2 {
        write(&ledger, &sealed(SHARD, generation, &rows), &rows).await;
    }
    rows.sort_by(|left, right| left.key.cmp(&right.key));
    let twice: Vec<UsageRow> = rows.into_iter().map(|row| UsageRow { total: total("2", 2), ..row }).collect();
    assert_books(&ledger, &[0, 0, 2, 0], &twice).await;
}

/// From the first hour of the year 0 to the last of the year 9999, which is what RFC 3339 can name.
pub async fn hours_of_all_years_are_kept(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows: Vec<UsageRow> =
        [-17_268_672, -1, 0, 1, 70_389_527].into_iter().map(|hour| row(hour, "0.5", 1)).collect();
    write(&ledger, &sealed(SHARD, 1, &rows), &rows).await;
    assert_books(&ledger, &[0, 0, 1, 0], &rows).await;
}

/// The error of the rows is the error of the write, and nothing of them stays.
pub async fn a_stream_that_fails_leaves_nothing(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let rows: Vec<UsageRow> = (0..3_000).map(|hour| row(hour, "1", 1)).collect();
    let generation = sealed(SHARD, 1, &rows);
    let failures: [fn() -> PortError; 2] =
        [|| PortError::transient("read", "away"), || PortError::permanent("read", "lost")];
    for (failure, kind) in failures.into_iter().zip([PortErrorKind::Transient, PortErrorKind::Permanent]) {
        let failing =
            parts(&rows[..2_000]).chain(stream::iter([Err(failure())])).chain(parts(&rows[2_000..]));
        let error = ledger.write(&generation, failing.boxed()).await.expect_err("the rows fail");
        assert_eq!((error.kind(), error.to_string()), (kind, failure().to_string()));
    }
    assert_books(&ledger, &[0; 4], &[]).await;
    assert!(write(&ledger, &generation, &rows).await.written);
    assert_books(&books.open().await, &[0, 0, 1, 0], &rows).await;
}

/// It has a record like any other, so that the next one follows it.
pub async fn an_empty_generation_is_booked(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let receipt = write(&ledger, &sealed(SHARD, 1, &[]), &[]).await;
    assert_eq!(receipt, FlushReceipt { total: UsageTotal::default(), rows: 0, written: true });
    assert!(!write(&ledger, &sealed(SHARD, 1, &[]), &[]).await.written);
    let rows = [row(1, "1", 1)];
    write(&ledger, &sealed(SHARD, 2, &rows), &rows).await;
    assert_books(&ledger, &[0, 0, 2, 0], &rows).await;
}

/// Some parts are empty; some rows are new and some are not.
pub async fn many_rows_in_many_parts_are_booked(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let shuffled = |numbers: std::ops::Range<i32>| -> Vec<UsageRow> {
        let mut rows: Vec<UsageRow> = numbers
            .map(|number| UsageRow {
                key: key(&format!("tenant-{}", number % 97), &format!("sku-{}", number % 13), "u", number),
                total: total("1.5", 2),
            })
            .collect();
        rows.sort_by_key(|row| row.key.hour.number().wrapping_mul(-1_640_531_527));
        rows
    };
    let (first, second) = (shuffled(0..12_000), shuffled(6_000..18_000));
    for (rows, generation) in [(&first, 1), (&second, 2)] {
        let parts =
            stream::iter(rows.clone()).chunks(1_000).flat_map(|part| stream::iter([vec![], part])).map(Ok);
        let receipt = ledger.write(&sealed(SHARD, generation, rows), parts.boxed()).await;
        assert_eq!(receipt.expect("it is written").rows, 12_000);
    }
    let booked = read(&ledger, &UsageFilter::default()).await;
    assert_eq!(booked.len(), 18_000);
    assert!(booked.is_sorted_by(|left, right| left.key < right.key));
    for row in booked {
        let expected =
            if (6_000..12_000).contains(&row.key.hour.number()) { total("3", 4) } else { total("1.5", 2) };
        assert_eq!(row.total, expected, "{:?}", row.key);
    }
    // Registered again, it is still the same accumulator.
    let known = ledger.register(ACCUMULATOR, ShardCount::ONE).await.expect("it is known");
    assert_eq!(known.records[2].flushed, 2);
}
