//! Runs over a mock of the intake.

use super::*;
use crate::ports::MockPulseIntake;
use std::collections::BTreeSet;
use tokio::time::sleep;

const NOW: Timestamp = Timestamp::new(1_768_048_200, 0);
const ORDER: PopulateOrder = PopulateOrder { total_messages: 105, workers_number: 3, buffer_size: 10 };

fn runs(decoder: Decoder, intake: MockPulseIntake) -> PopulateRuns {
    PopulateRuns::new(decoder, Arc::new(intake), || NOW)
}

async fn end_of(runs: &PopulateRuns, id: &str) -> Progress {
    loop {
        let progress = runs.progress(id).unwrap();
        if progress.state != RunState::Running {
            return progress;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// An intake that is away for its first calls, and what it took.
fn intake(away: u64) -> (MockPulseIntake, Arc<Mutex<Vec<IntakeMessage>>>) {
    let (taken, calls) = (Arc::new(Mutex::new(Vec::new())), AtomicU64::new(0));
    let seen = Arc::clone(&taken);
    let mut intake = MockPulseIntake::new();
    intake.expect_take().returning(move |messages| {
        if calls.fetch_add(1, Ordering::Relaxed) < away {
            return Err(PortError::transient("take", "away"));
        }
        seen.lock().unwrap().extend_from_slice(messages);
        Ok(())
    });
    (intake, taken)
}

#[tokio::test(start_paused = true)]
async fn exactly_what_was_ordered_is_taken_also_where_the_intake_is_away_for_a_while() {
    let (intake, taken) = intake(5);
    let runs = runs(Decoder::default(), intake);
    let begun = runs.start(ORDER, "a".into(), 7).unwrap();
    assert_eq!((begun.state, begun.published, begun.ended_at), (RunState::Running, 0, None));
    let end = end_of(&runs, "a").await;
    assert_eq!((end.state, end.published, end.error), (RunState::Done, 105, None));
    assert_eq!((end.started_at, end.ended_at), (NOW, Some(NOW)));
    assert!(end.rate > 0);
    let taken = taken.lock().unwrap();
    let ids: BTreeSet<_> = taken.iter().map(|message| &message.id).collect();
    assert_eq!((taken.len(), ids.len()), (105, 105));
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_and_the_latest_are_remembered() {
    let runs = runs(Decoder::default(), intake(0).0);
    runs.start(ORDER, "0".into(), 0).unwrap();
    assert_eq!(runs.start(ORDER, "x".into(), 1), Err(NotStarted::Busy));
    for number in 1..=PopulateRuns::KEPT_MAX {
        end_of(&runs, &(number - 1).to_string()).await;
        runs.start(ORDER, number.to_string(), number as u64).unwrap();
    }
    assert_eq!(runs.progress("0"), None);
    assert!(runs.progress("1").is_some() && runs.progress("x").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_run_fails_with_the_intake_and_ends_with_the_program() {
    let mut broken = MockPulseIntake::new();
    broken.expect_take().returning(|_| Err(PortError::permanent("take", "broken")));
    let broken = runs(Decoder::default(), broken);
    broken.start(ORDER, "a".into(), 7).unwrap();
    let end = end_of(&broken, "a").await;
    assert_eq!((end.state, end.published), (RunState::Failed, 0));
    assert!(end.error.unwrap().contains("broken"));

    let away = runs(Decoder::default(), intake(u64::MAX).0);
    away.start(ORDER, "a".into(), 7).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(away.progress("a").unwrap().state, RunState::Running);
    away.stop().await;
    assert_eq!(away.progress("a").unwrap().state, RunState::Failed);
    assert_eq!(away.start(ORDER, "b".into(), 8), Err(NotStarted::Stopping));
}

#[tokio::test(start_paused = true)]
async fn an_intake_that_stays_away_ends_the_run() {
    let away = runs(Decoder::default(), intake(u64::MAX).0);
    away.start(ORDER, "a".into(), 7).unwrap();
    let end = end_of(&away, "a").await;
    assert!(end.error.unwrap().contains("away for 60s"));
}

#[tokio::test]
async fn pulses_that_the_engine_would_refuse_are_not_sent() {
    let (intake, taken) = intake(0);
    let decoder = Decoder { age_max: Some(Duration::from_secs(1)), ..Decoder::default() };
    let refused = runs(decoder, intake).start(ORDER, "a".into(), 7);
    assert!(matches!(refused, Err(NotStarted::Refused(_))), "{refused:?}");
    assert!(taken.lock().unwrap().is_empty());
}
