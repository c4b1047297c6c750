//! Compact buckets: split as they grow, beside fast ones, dropped in steps, counted again.

use super::{ACCUMULATOR, START, WINDOW, batch, opened_in, pulse, settings};
use IdentityLayout::{Compact, Fast};
use application::ports::{
    AccumulatorAudit, AccumulatorShards, FoundAt, GenerationStore, Outcome, PulseSink, Remake,
    RememberedIdentities, ShardCut, ShardRecovery, ShardStorage,
};
use domain::{Shard, Timestamp};
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    test_servers::redis::RedisServer,
};
use std::sync::atomic::{AtomicU64, Ordering};

const META: &str = "pulse:{0}:meta";
const SHARD: Shard = Shard(0);

/// Programs that take turns on one shard.
struct Programs {
    server: RedisServer,
    compact: RedisAccumulator,
    fast: RedisAccumulator,
    /// How many batches there were.
    batches: AtomicU64,
    /// How many quarters of the window have passed.
    quarters: AtomicU64,
}

impl Programs {
    /// The shard's first bucket is of that layout.
    async fn start(first: IdentityLayout) -> Self {
        let server = RedisServer::start();
        let first_of_all = opened_in(&server, first).await;
        let (compact, fast) = (opened_in(&server, Compact).await, opened_in(&server, Fast).await);
        drop(first_of_all);
        Self { server, compact, fast, batches: 0.into(), quarters: 0.into() }
    }

    const fn of(&self, layout: IdentityLayout) -> &RedisAccumulator {
        match layout {
            Compact => &self.compact,
            Fast => &self.fast,
        }
    }

    /// The outcome of each of the numbers as a pulse, in batches of a size; all of them must be the same.
    async fn count(
        &self,
        layout: IdentityLayout,
        numbers: std::ops::Range<u32>,
        size: usize,
        amount: &str,
    ) -> Outcome {
        let mut all = Vec::new();
        for first in numbers.clone().step_by(size) {
            let end = numbers.end.min(first + u32::try_from(size).unwrap());
            let pulses = (first..end).map(|n| pulse(Some(format!("id-{n}")), "s", amount)).collect();
            let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
            all.extend(self.of(layout).apply(&batch(0, number, pulses)).await.unwrap());
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }

    /// A seal a quarter of the window after the one before.
    async fn seal(&self, layout: IdentityLayout) {
        let quarters = self.quarters.fetch_add(1, Ordering::Relaxed) + 1;
        let now = START.seconds() + i64::try_from(WINDOW.as_secs() / 4 * quarters).unwrap();
        let generation = self.of(layout).inspect(SHARD).await.unwrap().unwrap().generation;
        self.of(layout).seal(SHARD, generation, Timestamp::new(now, 0)).await.unwrap();
    }

    /// The next bucket is opened, by a program of the layout.
    async fn next_bucket(&self, layout: IdentityLayout) {
        self.seal(layout).await;
        self.seal(layout).await;
    }

    async fn cut(&self) -> ShardCut {
        AccumulatorAudit::cut(&self.fast, SHARD).await.unwrap().unwrap()
    }

    /// What an audit compares.
    async fn assert_identities_add_up(&self) {
        let cut = self.cut().await;
        let counts = cut.state.counts;
        let there = cut.identities + cut.identities_dropped + cut.identities_lost + counts.anonymous;
        assert_eq!(there, counts.counted, "{cut:?}");
        assert_eq!(self.fast.strays().await.unwrap(), []);
    }

    fn meta(&self, field: &str) -> Option<String> {
        self.server.command(&["HGET", META, field])
    }

    fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.server.command(&["KEYS", pattern]);
        keys.sort();
        keys
    }

    fn lengths(&self, pattern: &str) -> Vec<u64> {
        self.keys(pattern).iter().map(|key| self.server.command(&["HLEN", key])).collect()
    }
}

#[tokio::test]
async fn very_many_identities_are_spread_over_small_parts_and_each_of_them_is_known() {
    const IDS: u32 = 60_000;
    let on = Programs::start(Compact).await;
    assert_eq!(on.count(Compact, 0..500, 50, "1").await, Outcome::Counted);
    assert_eq!(on.count(Compact, 500..40_000, 4_000, "1").await, Outcome::Counted);
    assert_eq!(on.count(Fast, 40_000..IDS, 1_000, "1").await, Outcome::Counted);
    let lengths = on.lengths("pulse:{0}:ids:1:*");
    assert_eq!(lengths.iter().sum::<u64>(), u64::from(IDS));
    assert_eq!(lengths.len(), 60_000 / 48);
    assert!(lengths.iter().filter(|length| **length > 128).count() < 10, "{lengths:?}");
    let encoding: String = on.server.command(&["OBJECT", "ENCODING", "pulse:{0}:ids:1:700"]);
    assert_eq!(encoding, "listpack");
    assert_eq!(on.count(Compact, 0..IDS, 3_999, "1").await, Outcome::Duplicate);
    assert_eq!(on.count(Fast, 0..IDS, 1_234, "2").await, Outcome::Conflict);
    assert_eq!(on.cut().await.identities, u64::from(IDS));
    on.assert_identities_add_up().await;
}

#[tokio::test]
async fn a_part_that_has_become_a_table_is_still_known_and_split() {
    let on = Programs::start(Compact).await;
    on.count(Compact, 0..40, 40, "1").await;
    // As if Redis packed next to nothing.
    on.server.config_set("hash-max-listpack-entries", "4");
    on.count(Compact, 40..6_000, 700, "1").await;
    let encoding: String = on.server.command(&["OBJECT", "ENCODING", "pulse:{0}:ids:1:3"]);
    assert_eq!(encoding, "hashtable");
    assert_eq!(on.count(Fast, 0..6_000, 1_000, "1").await, Outcome::Duplicate);
    on.assert_identities_add_up().await;
}

#[tokio::test]
async fn copies_and_conflicts_are_found_in_buckets_of_both_layouts() {
    let on = Programs::start(Fast).await;
    on.count(Compact, 0..300, 100, "1").await;
    on.next_bucket(Compact).await;
    on.count(Fast, 300..900, 100, "1").await;
    on.next_bucket(Fast).await;
    on.count(Compact, 900..1_500, 100, "1").await;
    let list = on.meta("bucket_layouts").unwrap();
    let of_all: Vec<_> = list.split(',').map(|bucket| bucket.ends_with('c')).collect();
    assert_eq!(of_all, [false, true, false], "{list}");
    for layout in [Compact, Fast] {
        assert_eq!(on.count(layout, 0..1_500, 1_500, "1").await, Outcome::Duplicate);
        assert_eq!(on.count(layout, 0..1_500, 1_500, "2").await, Outcome::Conflict);
    }
    on.next_bucket(Compact).await;
    for layout in [Fast, Compact] {
        assert_eq!(on.count(layout, 300..1_500, 1_500, "1").await, Outcome::Duplicate);
        assert_eq!(on.count(layout, 300..1_500, 1_500, "2").await, Outcome::Conflict);
    }
    on.assert_identities_add_up().await;
}

#[tokio::test]
async fn the_layout_changes_with_the_next_bucket_and_back() {
    let on = Programs::start(Fast).await;
    on.count(Compact, 0..100, 100, "1").await;
    on.seal(Compact).await;
    assert_eq!(on.meta("buckets").as_deref(), Some("1@0"), "nothing was opened");
    on.seal(Compact).await;
    // Nobody who knows of one layout only may go on with half of the list.
    assert_eq!(on.meta("buckets"), None);
    on.count(Fast, 100..200, 100, "1").await;
    assert_eq!(on.lengths("pulse:{0}:ids:2").len(), 0);
    assert_eq!(on.lengths("pulse:{0}:ids:2:*").iter().sum::<u64>(), 100);
    for round in 2..8 {
        on.next_bucket(Fast).await;
        on.count(Compact, round * 100..(round + 1) * 100, 100, "1").await;
        on.assert_identities_add_up().await;
    }
    assert_eq!(on.meta("bucket_layouts"), None);
    let list = on.meta("buckets").unwrap();
    assert!(!list.contains('c') && list.split(',').count() > 2, "{list}");
    assert_eq!(on.keys("pulse:{0}:ids:*:*"), Vec::<String>::new());
    assert_eq!((on.meta("parts:2"), on.meta("ids:2")), (None, None));
    assert!(on.cut().await.identities_dropped >= 200);
}

/// The next seal drops bucket 1, which is compact and has 100 identities; it is made to have very many parts.
async fn about_to_be_dropped() -> Programs {
    let on = Programs::start(Compact).await;
    on.count(Compact, 0..100, 100, "1").await;
    for round in 1..4 {
        on.next_bucket(Compact).await;
        on.count(Compact, round * 100..(round + 1) * 100, 100, "1").await;
    }
    on.seal(Compact).await;
    assert_eq!(on.meta("ids:1").as_deref(), Some("100"));
    let () = on.server.command(&["HSET", META, "parts:1", "300000"]);
    on
}

#[tokio::test]
async fn what_is_left_of_a_dropped_bucket_after_a_crash_is_dropped_by_the_next_seal() {
    let on = about_to_be_dropped().await;
    let left = || on.meta("parts:1").map_or(0, |parts| parts.parse::<u32>().unwrap());
    tokio::select! {
        biased;
        () = async { while left() == 300_000 { tokio::task::yield_now().await } } => {}
        () = on.seal(Compact) => panic!("it was dropped in one step"),
    }
    assert!(left() > 0, "it was dropped in one step");
    let cut = on.cut().await;
    assert_eq!((cut.identities, cut.identities_dropped), (400, 0));
    on.assert_identities_add_up().await;
    // It is not looked for there any more.
    assert_eq!(on.count(Compact, 0..1, 1, "1").await, Outcome::Counted);

    on.seal(Fast).await;
    assert_eq!(left(), 0);
    let cut = on.cut().await;
    assert_eq!((cut.identities, cut.identities_dropped), (301, 100));
    on.assert_identities_add_up().await;
    on.seal(Fast).await;
    assert_eq!((on.meta("parts:1"), on.meta("ids:1")), (None, None));
    let list = on.meta("bucket_layouts").unwrap();
    assert!(!list.split(',').any(|bucket| bucket.starts_with("1@")), "{list}");
}

#[tokio::test]
async fn an_identity_that_is_missing_when_its_bucket_is_dropped_stays_missing() {
    let on = about_to_be_dropped().await;
    remove_one(&on, "pulse:{0}:ids:1:0");
    on.seal(Compact).await;
    let cut = on.cut().await;
    assert_eq!(cut.identities + cut.identities_dropped + 1, cut.state.counts.counted);
}

fn remove_one(on: &Programs, key: &str) {
    // Digests are no text: a script finds and removes one.
    let script = "return redis.call('HDEL', KEYS[1], redis.call('HKEYS', KEYS[1])[1])";
    let removed: u64 = on.server.command(&["EVAL", script, "1", key]);
    assert_eq!(removed, 1);
}

#[tokio::test]
async fn identities_that_are_missing_or_made_up_are_counted() {
    let on = Programs::start(Compact).await;
    on.count(Compact, 0..30_000, 3_000, "1").await;
    on.next_bucket(Compact).await;
    on.count(Compact, 30_000..60_000, 3_000, "1").await;
    let all = on.cut().await.identities;
    assert_eq!(all, 60_000);
    for key in ["pulse:{0}:ids:1:0", "pulse:{0}:ids:1:623", "pulse:{0}:ids:2:100", "pulse:{0}:ids:2:624"] {
        let before = on.cut().await.identities;
        remove_one(&on, key);
        assert_eq!(on.cut().await.identities, before - 1, "{key}");
    }
    let () = on.server.command(&["HSET", "pulse:{0}:ids:1:7", "0123456789abcdef", "abcdef"]);
    assert_eq!(on.cut().await.identities, all - 3);
    let part = on.lengths("pulse:{0}:ids:2:9")[0];
    let _: u64 = on.server.command(&["DEL", "pulse:{0}:ids:2:9"]);
    assert_eq!(on.cut().await.identities, all - 3 - part);
}

#[tokio::test]
async fn keys_beyond_the_parts_of_a_bucket_are_strays() {
    let on = Programs::start(Compact).await;
    on.count(Compact, 0..100, 100, "1").await;
    assert_eq!(on.fast.strays().await.unwrap(), []);
    for key in ["pulse:{0}:ids:1", "pulse:{0}:ids:1:3", "pulse:{0}:ids:2:0", "pulse:{0}:ids:1:x"] {
        let () = on.server.command(&["HSET", key, "a", "b"]);
        let strays = on.fast.strays().await.unwrap();
        assert_eq!(strays.iter().map(|stray| stray.name.as_str()).collect::<Vec<_>>(), [key]);
        let _: u64 = on.server.command(&["DEL", key]);
    }
}

#[tokio::test]
async fn what_is_remembered_of_an_identity_is_found_in_buckets_of_both_layouts() {
    let on = Programs::start(Fast).await;
    let pulses: Vec<_> = ["old", "new", "none"].map(|id| pulse(Some(id.into()), "s", "1")).into();
    let key = ACCUMULATOR.identity_key();
    let digests: Vec<_> =
        pulses.iter().map(|pulse| key.digest(&pulse.tenant, pulse.identity.as_ref().unwrap())).collect();
    assert_eq!(on.compact.remembered(SHARD, &digests).await.unwrap(), []);
    on.fast.apply(&batch(0, 1, vec![pulses[0].clone()])).await.unwrap();
    on.next_bucket(Compact).await;
    on.fast.apply(&batch(0, 2, vec![pulses[1].clone()])).await.unwrap();
    on.batches.store(2, Ordering::Relaxed);
    // Enough others that it has a part of its own.
    on.count(Fast, 0..5_000, 1_000, "1").await;
    let found = on.fast.remembered(SHARD, &digests).await.unwrap();
    assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1]);
    assert!(found.iter().all(|(place, remembered)| remembered.content == key.fingerprint(&pulses[*place])));
    let opened = Timestamp::new(START.seconds() + i64::try_from(WINDOW.as_secs() / 2).unwrap(), 0);
    assert_eq!((found[0].1.after, found[0].1.until), (None, Some(opened)));
    assert_eq!((found[1].1.after, found[1].1.until), (Some(opened), None));
}

#[tokio::test]
async fn a_recovery_removes_every_part_of_an_old_copy() {
    for layout in [Fast, Compact] {
        let on = Programs::start(Compact).await;
        on.count(Compact, 0..20_000, 4_000, "1").await;
        on.next_bucket(Fast).await;
        on.count(Compact, 20_000..20_100, 100, "1").await;
        let at = on.cut().await.state;
        let recovery = ShardRecovery {
            accumulator: ACCUMULATOR,
            shards: at.shards,
            shard: SHARD,
            number: 1,
            found: Some(FoundAt { recovery: 0, generation: at.generation, sequence: at.sequence }),
            remake: Remake::Anew,
            generation: 9,
            sequence: 100,
            counted: 25_000,
            positions: Vec::new(),
            flushed: 8,
            seen: (9, 99),
        };
        let settings = RedisSettings { identities: layout, ..settings(&on.server, 1) };
        let program = RedisAccumulator::connect(&settings).await.unwrap();
        assert!(program.restore(&recovery, START).await.unwrap());
        assert_eq!(on.keys("*"), [META], "{layout:?}");
        on.assert_identities_add_up().await;
        // Whatever was known counts again, in a bucket of the layout, and under another number.
        program.inspect(SHARD).await.unwrap();
        let again = batch(0, 1, vec![pulse(Some("id-7".into()), "s", "1")]);
        assert_eq!(program.apply(&again).await.unwrap(), [Outcome::Counted]);
        assert_eq!(program.apply(&batch(0, 2, again.pulses)).await.unwrap(), [Outcome::Duplicate]);
        let expected = if layout == Fast { "pulse:{0}:ids:3" } else { "pulse:{0}:ids:3:0" };
        assert_eq!(on.keys("pulse:{0}:ids:*"), [expected]);
        on.assert_identities_add_up().await;
    }
}
