//! Streams after counts were lost: the marks are set back, and the stream is read again.

use super::{Counted, Stream, halt, put, settle, some, take};
use application::{
    ports::{
        LogMark, LogSource, PulseSource, Registration, ShardCounts, ShardHistory, ShardRecord, ShardState,
        ShardStatus,
    },
    recover::{FoundShard, LogReturn, plan},
};
use domain::{AccumulatorId, LogPosition, Shard, ShardCount, UsageTotal};
use infrastructure::rabbitmq::RabbitmqStreamMarks;

/// What a recovery makes of a stream that two shards, as they are by then, have counted so far.
async fn planned(marks: &RabbitmqStreamMarks, counted: [(u64, u32); 2]) -> Vec<LogReturn> {
    let logs = marks.extents().await.unwrap();
    let (accumulator, shards) = (AccumulatorId::from_bytes([1; 16]), ShardCount::new(2).unwrap());
    let record =
        |shard| ShardRecord { shard, status: ShardStatus::Created, seen: (1, 1), flushed: 0, recovery: 0 };
    let known = Registration { accumulator, shards, records: shards.shards().map(record).collect() };
    let found = counted.map(|(offset, items)| FoundShard {
        state: Some(ShardState {
            accumulator,
            shards,
            generation: 1,
            sequence: 1,
            recovery: 0,
            deleted: 0,
            active: UsageTotal::default(),
            counts: ShardCounts::default(),
        }),
        positions: logs
            .iter()
            .map(|(log, _)| LogMark { log: log.clone(), position: LogPosition { offset, items } })
            .collect(),
    });
    let history = |shard| ShardHistory {
        shard,
        recovered: 0,
        pulses: 0,
        sealed_at: None,
        positions: Vec::new(),
        seen_at: None,
    };
    let plan = plan(&known, &known, &found, &[history(Shard(0)), history(Shard(1))], &logs).unwrap();
    assert_eq!((plan.shards.len(), plan.remarks), (0, Vec::<String>::new()));
    plan.logs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_shard_knows_nothing_of_any_more_is_read_again() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let marks = RabbitmqStreamMarks::new(stream.place.settings.clone());
    assert!(marks.extents().await.unwrap().is_empty(), "it was never settled");
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[9]).await;

    assert_eq!(
        planned(&marks, [(10, 0), (4, 0)]).await,
        [],
        "it is read from where the shards are by itself"
    );
    let back = planned(&marks, [(10, 0), (0, 0)]).await;
    assert_eq!((back.len(), back[0].lost, back[0].to.next), (1, None, 0));
    let error = marks.move_to(&back[0].log, back[0].to).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("stop all workers"), "{error}");
    source.close().await.unwrap();

    let lost = Counted::at((10, 0), (0, 0));
    let source = stream.reader_of(&lost);
    let error = halt(&source).await;
    assert!(error.contains("app recover"), "{error}");
    source.close().await.unwrap();
    for _ in 0..2 {
        marks.move_to(&back[0].log, back[0].to).await.unwrap();
    }
    let source = stream.reader_of(&lost);
    let taken = take(&source, 10).await;
    assert_eq!((taken[0].sequence, taken[0].log.as_ref().unwrap().after), (0, 0));
    settle(&source, &taken[9]).await;
    source.close().await.unwrap();
    assert_eq!(planned(&marks, [(10, 0), (10, 0)]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_has_let_go_of_is_given_up_where_that_is_agreed_to() {
    let stream = Stream::new();
    stream.declare_trimmed().await;
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[9]).await;
    source.close().await.unwrap();
    stream.put_large(200).await;
    let marks = RabbitmqStreamMarks::new(stream.place.settings.clone());
    let back = planned(&marks, [(10, 0), (4, 2)]).await;
    let begin = back[0].to.next;
    assert!(begin > 10, "it was trimmed");
    assert_eq!(back[0].lost, Some((4, begin)));
    marks.move_to(&back[0].log, back[0].to).await.unwrap();
    let source = stream.reader_of(&Counted::at((10, 0), (4, 2)));
    assert_eq!(some(&source).await[0].sequence, begin);
    source.close().await.unwrap();
}
