//! When an engine ends by itself because nothing comes any more.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_idle_engine_stops_by_itself_with_everything_settled() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let running = Bench::new(Arc::new(ScriptedSink::default()), limits).start();
    sleep(Duration::from_secs(4)).await;
    running.put([one(LEFT, 1)]);
    sleep(Duration::from_secs(4)).await;
    assert!(!running.engine.is_finished(), "four seconds after the last message");
    sleep(Duration::from_secs(2)).await;
    assert!(running.engine.is_finished() && running.closed.is_cancelled());
    assert_eq!(running.settled_up_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_source_is_still_connecting_is_not_idle() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let running = Bench::new(Arc::new(ScriptedSink::default()), limits).start();
    sleep(Duration::from_secs(59)).await;
    assert!(!running.engine.is_finished(), "nobody knows yet what the source holds");
    running.put([one(LEFT, 1)]);
    sleep(Duration::from_secs(6)).await;
    assert!(running.engine.is_finished());
    assert_eq!(running.settled_up_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_source_never_answers_fails_and_names_it() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let running = Bench::new(Arc::new(ScriptedSink::default()), limits).start();
    sleep(Duration::from_secs(70)).await;
    assert!(running.engine.is_finished());
    let error = running.engine.await.unwrap().unwrap_err();
    assert!(matches!(&error, IngestError::NotOpened { source_name } if source_name == "scripted"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_source_holds_something_for_later_is_not_idle() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let running = Bench::new(Arc::new(ScriptedSink::default()), limits).start();
    running.later.store(true, Ordering::Relaxed);
    running.put([]);
    sleep(Duration::from_mins(5)).await;
    assert!(!running.engine.is_finished(), "an event may wait for its next attempt");
    running.put([one(LEFT, 1)]);
    Running::a_second().await;
    running.later.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(3)).await;
    assert!(!running.engine.is_finished(), "four seconds after the last message");
    sleep(Duration::from_secs(2)).await;
    assert!(running.engine.is_finished());
    assert_eq!(running.settled_up_to(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_source_is_open_and_empty_becomes_idle() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let running = Bench::new(Arc::new(ScriptedSink::default()), limits).start();
    sleep(Duration::from_secs(59)).await;
    running.put([]);
    sleep(Duration::from_secs(4)).await;
    assert!(!running.engine.is_finished(), "four seconds after it was opened");
    sleep(Duration::from_secs(2)).await;
    assert!(running.engine.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_engine_with_work_that_is_held_is_not_idle() {
    let limits = Limits { until_idle: Some(Duration::from_secs(5)), ..Limits::default() };
    let sink = held_sink(LEFT);
    let running = Bench::new(Arc::clone(&sink) as _, limits).start();
    running.put([one(LEFT, 1)]);
    sleep(Duration::from_mins(1)).await;
    assert!(!running.engine.is_finished());
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert!(running.engine.is_finished());
}
