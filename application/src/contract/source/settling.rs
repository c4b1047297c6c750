//! Settling: what comes again, and what does not.

use super::{
    PartitionId, PulseSource, SourceFixture, bodies, close, numbered, set, set_of, settle, settle_all, take,
    within,
};

/// A program that stops before it settled leaves everything to the next one.
pub async fn what_was_not_settled_comes_again(fixture: &impl SourceFixture) {
    let messages = numbered(0..10);
    fixture.put(messages.clone()).await;
    for _ in 0..3 {
        let source = fixture.source().await;
        assert_eq!(set(&take(&source, 10).await), set_of(&messages));
        close(&source).await;
    }
}

/// After a lost connection the same handle gives it again, in a partition that was never there before.
pub async fn what_was_not_settled_comes_again_after_a_cut(fixture: &impl SourceFixture) {
    let messages = numbered(0..10);
    fixture.put(messages.clone()).await;
    let source = fixture.source().await;
    let mut partitions = Vec::new();
    for _ in 0..3 {
        let deliveries = take(&source, 10).await;
        assert_eq!(set(&deliveries), set_of(&messages));
        assert!(!partitions.contains(&deliveries[0].partition), "partitions are never used again");
        partitions.push(deliveries[0].partition);
        fixture.cut().await;
        let error = within(source.receive()).await.expect_err("the connection was cut");
        assert!(error.is_transient(), "{error}");
    }
    close(&source).await;
}

/// What was settled is gone for every later reader.
pub async fn what_was_settled_does_not_come_again(fixture: &impl SourceFixture) {
    fixture.put(numbered(0..10)).await;
    let source = fixture.source().await;
    settle_all(&source, &take(&source, 10).await).await;
    close(&source).await;
    fixture.put(numbered(10..11)).await;
    let source = fixture.source().await;
    assert_eq!(bodies(&take(&source, 1).await), [b"10"]);
    close(&source).await;
}

/// One watermark stands for all deliveries up to it and for none above it.
pub async fn a_watermark_settles_everything_below_it(fixture: &impl SourceFixture) {
    let messages = numbered(0..10);
    fixture.put(messages.clone()).await;
    let source = fixture.source().await;
    let deliveries = take(&source, 10).await;
    settle_all(&source, &deliveries[..7]).await;
    close(&source).await;
    let source = fixture.source().await;
    assert_eq!(set(&take(&source, 3).await), set_of(&messages[7..]));
    close(&source).await;
}

/// Watermarks may be repeated and may come late: the connection stays as it is, and nothing is unsettled.
pub async fn settling_twice_or_back_changes_nothing(fixture: &impl SourceFixture) {
    fixture.put(numbered(0..5)).await;
    let source = fixture.source().await;
    let deliveries = take(&source, 5).await;
    let partition = deliveries[0].partition;
    for settled in [4, 4, 2, 5, 1, 5] {
        settle_all(&source, &deliveries[..settled]).await;
    }
    fixture.put(numbered(5..6)).await;
    let later = take(&source, 1).await;
    assert_eq!((bodies(&later), later[0].partition), (vec![&b"5"[..]], partition));
    settle_all(&source, &later).await;
    close(&source).await;
    fixture.put(numbered(6..7)).await;
    let source = fixture.source().await;
    assert_eq!(bodies(&take(&source, 1).await), [b"6"]);
    close(&source).await;
}

/// A watermark from before a cut is no longer of use, does no harm, and is no error.
///
/// Where it overtakes the cut it may settle what it names. So it is only checked on a partition that is known to be gone.
pub async fn settling_a_partition_that_is_gone_does_nothing(fixture: &impl SourceFixture) {
    let messages = numbered(0..4);
    fixture.put(messages.clone()).await;
    let source = fixture.source().await;
    let gone = take(&source, 4).await;
    fixture.cut().await;
    let error = within(source.receive()).await.expect_err("the connection was cut");
    assert!(error.is_transient(), "{error}");
    settle_all(&source, &gone).await;
    assert_eq!(set(&take(&source, 4).await), set_of(&messages));
    settle_all(&source, &gone).await;
    close(&source).await;
    let source = fixture.source().await;
    assert_eq!(set(&take(&source, 4).await), set_of(&messages), "the late watermark settled nothing");
    close(&source).await;
}

/// Also before anything was received.
pub async fn settling_nothing_that_was_ever_there_succeeds(fixture: &impl SourceFixture) {
    let source = fixture.source().await;
    settle(&source, PartitionId(7), 7).await;
    close(&source).await;
}
