//! Messages that came back often: taken alone, refused only after that, and never for the count itself.

use super::*;
use crate::{
    fakes::suspects::MemorySuspects,
    ports::{MockSuspects, SuspectId, Suspects},
};
use domain::content_hash;

/// One that came back so often.
fn returned(delivery: Delivery, returns: u32) -> Delivery {
    Delivery { returns, ..delivery }
}

fn id(delivery: &Delivery) -> SuspectId {
    SuspectId(content_hash(&[b"scripted", b"", &delivery.body]))
}

fn bench(sink: Arc<dyn PulseSink>, marks: Arc<dyn Suspects>, limits: Limits) -> Bench {
    let mut bench = Bench::new(sink, limits);
    bench.engine.suspects = Some(marks);
    bench
}

/// The ids of the pulses of each batch.
fn batches(sink: &ScriptedSink) -> Vec<Vec<String>> {
    let id = |pulse: &domain::Pulse| {
        format!("{:?}", pulse.identity).chars().filter(char::is_ascii_digit).collect()
    };
    sink.batches.lock().unwrap().iter().map(|batch| batch.pulses.iter().map(id).collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_taken_when_all_before_it_is_settled_and_all_after_it_waits() {
    let (sink, marks) = (held_sink(LEFT), MemorySuspects::default());
    let running = bench(Arc::clone(&sink) as _, Arc::new(marks.clone()), Limits::default()).start();
    running.put([one(LEFT, 1), returned(one(RIGHT, 2), 3), one(RIGHT, 3), returned(one(RIGHT, 4), 2)]);
    Running::a_second().await;
    assert_eq!(batches(&sink), [["1"]], "the first is in hand");
    sink.held.lock().unwrap()[0] = RIGHT.to_owned();
    Running::a_second().await;
    assert_eq!(
        (batches(&sink), running.settled_up_to()),
        (vec![vec!["1".into()], vec!["2".into()]], Some(1))
    );
    assert_eq!(marks.take(id(&one(RIGHT, 2)), 4).await.unwrap(), 1, "it is marked while it is in hand");
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert_eq!(batches(&sink), [vec!["1"], vec!["2"], vec!["3", "4"]], "two returns make no suspect");
    assert_eq!(running.settled_up_to(), Some(4));
    assert_eq!(marks.take(id(&one(RIGHT, 2)), 5).await.unwrap(), 0, "it had its answer, and begins anew");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_ended_three_workers_alone_is_refused_unread_and_all_others_count() {
    let (sink, marks) = (Arc::new(ScriptedSink::default()), MemorySuspects::default());
    let poison = one(LEFT, 2);
    for returns in 3..6 {
        marks.take(id(&poison), returns).await.unwrap();
    }
    let running = bench(Arc::clone(&sink) as _, Arc::new(marks.clone()), Limits::default()).start();
    running.put([1, 2, 3].map(|sequence| returned(one(LEFT, sequence), 6)));
    Running::a_second().await;
    let letters = running.letters.lock().unwrap().clone();
    assert_eq!((letters.len(), &letters[0].body), (1, &poison.body));
    assert_eq!(letters[0].rejection.reason, Reason::Poison);
    assert!(letters[0].rejection.detail.starts_with("ended 3 workers"), "{}", letters[0].rejection);
    assert_eq!(
        (batches(&sink), running.settled_up_to()),
        (vec![vec!["1".into()], vec!["3".into()]], Some(3))
    );
    assert_eq!(marks.take(id(&poison), 7).await.unwrap(), 0, "what is sent back begins anew");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_high_count_alone_refuses_nothing() {
    let (sink, marks) = (Arc::new(ScriptedSink::default()), MemorySuspects::default());
    for returns in [3, 4, 100, u32::MAX] {
        let running = bench(Arc::clone(&sink) as _, Arc::new(marks.clone()), Limits::default()).start();
        running.put((1..=20).map(|sequence| returned(one(LEFT, sequence), returns)));
        Running::a_second().await;
        assert_eq!((running.settled_up_to(), running.letters.lock().unwrap().len()), (Some(20), 0));
        running.end().await.unwrap();
    }
}

/// What is acknowledged is acknowledged in order: nothing after the suspect may be taken where it was not.
#[tokio::test(start_paused = true)]
async fn a_stop_leaves_suspects_that_wait_and_everything_after_them_to_the_source() {
    let sink = held_sink(LEFT);
    let running =
        bench(Arc::clone(&sink) as _, Arc::new(MemorySuspects::default()), Limits::default()).start();
    running.put([one(LEFT, 1), returned(one(RIGHT, 2), 3), one(RIGHT, 3)]);
    Running::a_second().await;
    running.stop.cancel();
    Running::a_second().await;
    sink.held.lock().unwrap().clear();
    let settled = Arc::clone(&running.settled);
    running.end().await.unwrap();
    assert_eq!(batches(&sink), [["1"]]);
    assert_eq!(settled.lock().unwrap().last().map(|watermark| watermark.sequence), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_ends_for_a_fault_of_its_own_does_not_leave_the_suspect_marked() {
    let mut sink = MockPulseSink::new();
    sink.expect_apply().returning(|_| Err(PortError::permanent("count", "the storage is gone")));
    let marks = MemorySuspects::default();
    let running = bench(Arc::new(sink), Arc::new(marks.clone()), Limits::default()).start();
    let suspect = returned(one(LEFT, 1), 3);
    running.put([suspect.clone()]);
    assert!(matches!(running.end().await, Err(IngestError::Port(_))));
    assert_eq!(marks.take(id(&suspect), 4).await.unwrap(), 0);
}

/// A panic is a death, though the program may say its last words.
#[tokio::test(start_paused = true)]
async fn an_engine_in_which_a_task_dies_leaves_the_suspect_marked() {
    let mut sink = MockPulseSink::new();
    sink.expect_apply().returning(|_| panic!("the test's poison"));
    let marks = MemorySuspects::default();
    let running = bench(Arc::new(sink), Arc::new(marks.clone()), Limits::default()).start();
    let suspect = returned(one(LEFT, 1), 3);
    running.put([suspect.clone()]);
    assert!(matches!(running.end().await, Err(IngestError::Task(_))));
    assert_eq!(marks.take(id(&suspect), 4).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_where_marks_cannot_be_made_and_the_engine_is_not_idle() {
    let mut marks = MockSuspects::new();
    let mut away = 40;
    marks.expect_take().returning(move |_, _| {
        away -= 1;
        if away > 0 { Err(PortError::transient("mark", "away")) } else { Ok(0) }
    });
    marks.expect_clear().returning(|_| Ok(()));
    let limits = Limits { until_idle: Some(Duration::from_secs(1)), ..Limits::default() };
    let sink = Arc::new(ScriptedSink::default());
    let running = bench(Arc::clone(&sink) as _, Arc::new(marks), limits).start();
    running.put([returned(one(LEFT, 1), 3), returned(one(LEFT, 2), 3)]);
    sleep(Duration::from_secs(30)).await;
    assert_eq!((batches(&sink).len(), running.engine.is_finished()), (0, false));
    sleep(Duration::from_mins(3)).await;
    assert_eq!((batches(&sink).len(), running.engine.is_finished()), (2, true));
}
