//! The live part in every state.

use super::*;
use application::{
    overview::{Counting, Overview, Rates, Unavailable},
    ports::ShardCounts,
};
use domain::UsageTotal;

const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

fn flush(shard: u16, generation: u64, seconds_ago: i64) -> FlushRecord {
    let at = |millis: u32| Timestamp::new(NOW.seconds() - seconds_ago, millis * 1_000_000);
    FlushRecord {
        shard: Shard(shard),
        generation,
        total: UsageTotal { pulses: 1_000, ..UsageTotal::default() },
        rows: 20,
        sealed_at: at(0),
        started_at: at(10),
        flushed_at: at(250),
    }
}

fn named<T>(name: &str, answer: Part<T>) -> Named<T> {
    Named { name: name.to_owned(), answer }
}

fn look() -> Look {
    let counts = ShardCounts { counted: 1_234_567, duplicates: 89, anonymous: 3 };
    Look {
        overview: Overview {
            counting: named("redis", Ok(Counting { counts, pending: 4_321, ..Counting::default() })),
            flushes: named("postgres", Ok(vec![flush(1, 7, 60), flush(0, 7, 61), flush(1, 6, 3_660)])),
            waiting: vec![named("rabbitmq", Ok(17))],
            rejected: vec![named("pulses.dead", Ok(5))],
        },
        rates: Some(Rates { received: 1_500, counted: 1_490, duplicates: 10 }),
        next_flush: Some(Timestamp::new(NOW.seconds() + 3_540, 0)),
    }
}

#[test]
fn the_live_part_shows_every_figure() {
    insta::assert_snapshot!(fragment(&look(), NOW).into_string().replace("><", ">\n<"));
}

#[test]
fn a_part_that_is_away_is_told_and_the_rest_is_shown() {
    let mut look = look();
    look.overview.counting.answer = Err(Unavailable("inspecting: <refused>".to_owned()));
    look.overview.waiting[0].answer = Err(Unavailable("no answer within 2s".to_owned()));
    look.rates = None;
    let page = fragment(&look, NOW).into_string();
    assert!(page.contains("unavailable: inspecting: &lt;refused&gt;"), "{page}");
    assert!(page.contains("no answer within 2s"));
    // Rate, counted, duplicates, waiting, pending.
    assert_eq!(page.matches("dd class=\"value away\"").count(), 5, "{page}");
    assert!(page.contains("in 59 min") && page.contains(">5</dd>"), "{page}");
}

#[test]
fn an_empty_system_says_what_comes() {
    let mut look = look();
    look.overview.flushes.answer = Ok(Vec::new());
    look.overview.waiting.clear();
    look.next_flush = None;
    let page = fragment(&look, NOW).into_string();
    assert!(page.contains("Nothing was flushed yet") && page.contains(">never</dd>"), "{page}");
    assert!(page.contains("no source with a queue") && page.contains("no schedule is set here"), "{page}");
}

#[test]
fn names_are_escaped() {
    let mut look = look();
    look.overview.waiting[0].name = "<script>".to_owned();
    assert!(!fragment(&look, NOW).into_string().contains("<script>"));
}

#[test]
fn a_run_is_each_shard_once_without_a_gap() {
    let run = Run::last(&[flush(1, 7, 60), flush(0, 7, 61), flush(1, 6, 62)]).unwrap();
    assert_eq!(
        (run.rows, run.pulses, length(run.sealed_at, run.flushed_at)),
        (40, 2_000, "1,250 ms".to_owned())
    );
    assert_eq!(Run::last(&[flush(1, 7, 60), flush(0, 6, 3_660)]).map(|run| run.rows), Some(20));
    assert_eq!(Run::last(&[]), None);
}
