//! For how long identities are remembered, by the times that the seals name.

use super::*;
use Outcome::{Counted, Duplicate};

const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);

fn after(time: Timestamp, step: Duration) -> Timestamp {
    let seconds = i64::try_from(step.as_secs()).expect("a century at most");
    let nanos = time.nanos() + step.subsec_nanos();
    Timestamp::new(time.seconds() + seconds + i64::from(nanos / 1_000_000_000), nanos % 1_000_000_000)
}

fn before(time: Timestamp, step: Duration) -> Timestamp {
    Timestamp::new(time.seconds() - i64::try_from(step.as_secs()).expect("a century at most"), time.nanos())
}

/// Seals in steps of one sixteenth of the window, each with a pulse of its own in it, and returns the last time.
async fn flush_for<S>(program: &Program<S>, from: Timestamp, window: Duration, sixteenths: u32) -> Timestamp
where
    S: PulseSink + AccumulatorShards + GenerationStore + LogPositions,
{
    let mut now = from;
    for step in 0..sixteenths {
        now = after(now, window / 16);
        program.apply(&[pulse(&format!("filler-{}-{step}", now.seconds()), "1")]).await;
        program.seal_active(now).await;
    }
    now
}

/// Up to the last flush before the window's end a copy is known.
pub async fn identities_are_known_for_the_whole_window(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let window = fixture.dedupe_window();
    let now = flush_for(&program, START, window, 5).await;
    program.apply(&[pulse("a", "1")]).await;
    flush_for(&program, now, window, 15).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
}

/// Memory is bounded: long after the window a copy counts again.
pub async fn identities_are_forgotten_after_the_window(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1")]).await;
    flush_for(&program, START, fixture.dedupe_window(), 48).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Counted]);
}

/// Nothing was flushed for ten windows: what was applied last may just have been applied.
pub async fn a_missed_flush_forgets_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1")]).await;
    let window = fixture.dedupe_window();
    let now = after(START, window * 10);
    program.seal_active(now).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
    flush_for(&program, now, window, 15).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
}

/// Whether the wrong time stays or is put right.
pub async fn a_clock_that_jumps_ahead_forgets_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let window = fixture.dedupe_window();
    let now = flush_for(&program, START, window, 5).await;
    program.apply(&[pulse("a", "1")]).await;
    let now = flush_for(&program, now, window, 5).await;
    let far = after(now, CENTURY);
    program.seal_active(far).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
    let far = flush_for(&program, far, window, 5).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
    flush_for(&program, before(far, CENTURY), window, 4).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
}

/// To before anything was applied.
pub async fn a_clock_that_jumps_back_forgets_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let window = fixture.dedupe_window();
    let now = flush_for(&program, START, window, 5).await;
    program.apply(&[pulse("a", "1")]).await;
    let now = flush_for(&program, now, window, 5).await;
    let past = before(now, CENTURY);
    program.seal_active(past).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
    flush_for(&program, past, window, 9).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
}

/// The clocks of two programs that flush in turn differ by an eighth of the window.
pub async fn clocks_that_differ_forget_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let window = fixture.dedupe_window();
    let mut now = flush_for(&program, START, window, 5).await;
    program.apply(&[pulse("a", "1")]).await;
    for _ in 0..15 {
        now = flush_for(&program, now, window, 1).await;
        program.seal_active(after(now, window / 8)).await;
    }
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
}

/// A wrong time that was put right does not fill the memory for as long as it was wrong.
pub async fn a_clock_that_jumped_back_forgets_again_in_the_end(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let window = fixture.dedupe_window();
    program.seal_active(after(START, CENTURY)).await;
    program.apply(&[pulse("a", "1")]).await;
    flush_for(&program, START, window, 64).await;
    assert_eq!(program.apply(&[pulse("a", "1")]).await, [Counted]);
}
