//! What is answered, and that the page for operators explains it all.

use super::*;
use application::overview::GatherArchive;
use application::{
    audit::{AuditReport, AuditTally, CheckKind, CheckReport, Finding, Verdict},
    flush_usage::FlushSummary,
    ports::{
        ArchivedEvent, Backlog, EventArchive, FlushRecord, LogAccount, LogBalance, MockAccumulatorShards,
        MockBacklog, MockGenerationStore, MockLogAccounts, MockRefusedPulses, MockUsageQueries,
        RefusedPulses, SealedGeneration, ShardCounts, ShardState,
    },
};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, Shard, ShardCount, UsageTotal};
use std::collections::BTreeSet;

const NOW: Timestamp = Timestamp::new(1_768_048_200, 0);
const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([1; 16]);

/// Of a shard with an active generation of 5 pulses, and one of 7 that was sealed 40 s ago.
fn overview(waiting: Result<u64, &'static str>) -> GatherOverview {
    let mut shards = MockAccumulatorShards::new();
    shards.expect_inspect().returning(|_| {
        Ok(Some(ShardState {
            accumulator: ACCUMULATOR,
            shards: ShardCount::ONE,
            generation: 2,
            sequence: 9,
            recovery: 0,
            deleted: 0,
            active: UsageTotal { pulses: 5, ..UsageTotal::default() },
            counts: ShardCounts { duplicates: 6, ..ShardCounts::default() },
        }))
    });
    let mut generations = MockGenerationStore::new();
    generations.expect_sealed().returning(|shard, generation| {
        Ok(Some(SealedGeneration {
            accumulator: ACCUMULATOR,
            shard,
            generation,
            recovery: 0,
            total: UsageTotal { pulses: 7, ..UsageTotal::default() },
            sealed_at: Timestamp::new(NOW.seconds() - 40, 0),
            positions: Vec::new(),
        }))
    });
    let mut queries = MockUsageQueries::new();
    queries.expect_flushes().returning(|_| {
        let at = Timestamp::new(NOW.seconds() - 3_600, 0);
        let total = UsageTotal::default();
        let flush = FlushRecord {
            shard: Shard(0),
            generation: 1,
            total,
            rows: 1,
            sealed_at: at,
            started_at: at,
            flushed_at: at,
        };
        Ok(vec![flush])
    });
    let mut backlog = MockBacklog::new();
    backlog.expect_waiting().returning(move || waiting.map_err(|text| PortError::transient("ask", text)));
    let mut refused = MockRefusedPulses::new();
    refused.expect_count().returning(|| Ok(3));
    GatherOverview {
        accumulator: "redis".to_owned(),
        ledger: "ledger".to_owned(),
        shards: Arc::new(shards),
        shard_count: ShardCount::ONE,
        generations: Arc::new(generations),
        queries: Arc::new(queries),
        backlogs: vec![("RabbitMQ".to_owned(), Arc::new(backlog) as Arc<dyn Backlog>)],
        refused: vec![("RabbitMQ".to_owned(), Arc::new(refused) as Arc<dyn RefusedPulses>)],
        part_limit: Duration::from_secs(2),
    }
}

/// Of a log that lacks three pulses, and of another that is two ahead.
fn accounts() -> MockLogAccounts {
    let mut accounts = MockLogAccounts::new();
    accounts.expect_balances().returning(|| {
        let balance = |partition: &str, received, taken| LogBalance {
            log: LogName::of(&["kafka", "c", "t", partition]).unwrap(),
            account: LogAccount { next: 9, received, refused: 1 },
            taken,
        };
        Ok(vec![balance("0", 10, 6), balance("1", 10, 11)])
    });
    accounts
}

fn metrics(waiting: Result<u64, &'static str>) -> Metrics {
    let flushes = FlushTally::default();
    flushes.flushed(
        &FlushSummary { generations: 1, rows: 12, pulses: 34 },
        Duration::from_millis(1_500),
        NOW,
    );
    let audits = AuditTally::default();
    let check = |kind, verdict| CheckReport { kind, left: String::new(), right: String::new(), verdict };
    let broken = Verdict::Broken(vec![Finding::new("a row is missing")], 1);
    let checks = vec![check(CheckKind::Rows, broken), check(CheckKind::Booked, Verdict::Holds)];
    audits.audited(&AuditReport { at: NOW, checks });
    let unknown = vec![check(CheckKind::Rows, Verdict::Unknown("redis is away".to_owned()))];
    audits.audited(&AuditReport { at: NOW, checks: unknown });
    let metrics = Metrics::new(MetricSources {
        overview: overview(waiting),
        accounts: Arc::new(accounts()),
        audits: Some(Arc::new(audits)),
        tally: Some(Arc::default()),
        flushes: Some(Arc::new(flushes)),
        dependencies: vec![Arc::new(Dependency::new("redis or ledger"))],
        redis_at_risk: Some(true),
        version: "1.2.3",
        now: || NOW,
    });
    metrics.note_letters("rabbitmq", Wish::Replay { force: false }, 2);
    metrics
}

#[tokio::test]
async fn what_the_parts_answer_is_told() {
    let text = metrics(Ok(6)).text().await.unwrap();
    for line in [
        "pulse_build_info{version=\"1.2.3\"} 1",
        "pulse_pending_pulses 12",
        "pulse_pending_generations 1",
        "pulse_pending_generation_age_seconds 40",
        "pulse_backlog_messages{source=\"RabbitMQ\"} 6",
        "pulse_dead_letters_messages{place=\"RabbitMQ\"} 3",
        "pulse_dead_letters_replayed_total{place=\"rabbitmq\"} 2",
        "pulse_dead_letters_discarded_total{place=\"rabbitmq\"} 0",
        "pulse_dependency_up{dependency=\"RabbitMQ\"} 1",
        "pulse_dependency_up{dependency=\"ledger\"} 1",
        "pulse_dependency_retries_total{dependency=\"redis or ledger\"} 0",
        "pulse_flush_duration_seconds_bucket{le=\"1\"} 0",
        "pulse_flush_duration_seconds_bucket{le=\"5\"} 1",
        "pulse_flush_duration_seconds_bucket{le=\"+Inf\"} 1",
        "pulse_flush_duration_seconds_sum 1.5",
        "pulse_redis_at_risk 1",
        "pulse_flushed_rows_total 12",
        "pulse_flush_last_success_timestamp_seconds 1768048200",
        "pulse_ledger_last_flush_timestamp_seconds 1768044600",
        "pulse_pulses_rejected_total{reason=\"conflict\"} 0",
        "pulse_apply_duration_seconds_bucket{le=\"0.0005\"} 0",
        "# TYPE pulse_batch_size_pulses histogram",
        "pulse_audits_total{outcome=\"broken\"} 1",
        "pulse_audits_total{outcome=\"unknown\"} 1",
        "pulse_books_hold 0",
        "pulse_audit_broken_checks 1",
        "pulse_audit_last_timestamp_seconds 1768048200",
        "pulse_accumulator_duplicate_pulses_total 6",
        "pulse_log_received_pulses_total 20",
        "pulse_log_refused_pulses_total 2",
        "pulse_log_taken_pulses_total 17",
        "pulse_log_missing_pulses 3",
        "pulse_log_ahead_pulses 2",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_part_that_is_away_is_down_and_the_rest_is_told() {
    let text = metrics(Err("away")).text().await.unwrap();
    assert!(text.contains("pulse_dependency_up{dependency=\"RabbitMQ\"} 0\n"), "{text}");
    assert!(text.contains("pulse_pending_pulses 12\n") && !text.contains("pulse_backlog_messages"), "{text}");
}

struct AwayArchive;

#[async_trait]
impl EventArchive for AwayArchive {
    async fn keep(&self, _: &[ArchivedEvent<'_>]) -> Result<(), PortError> {
        Ok(())
    }

    async fn check(&self) -> Result<(), PortError> {
        Err(PortError::transient("ask", "away"))
    }
}

fn archive_metrics() -> Metrics {
    let GatherOverview { backlogs, refused, part_limit, .. } = overview(Ok(8));
    let (name, archive) = ("clickhouse".to_owned(), Arc::new(AwayArchive));
    Metrics::of_archive(ArchiveMetricSources {
        overview: GatherArchive { name, archive, backlogs, refused, part_limit },
        tally: Arc::default(),
        version: "1.2.3",
    })
}

#[tokio::test]
async fn an_archive_tells_what_it_keeps_and_that_clickhouse_is_away() {
    let metrics = archive_metrics();
    let text = metrics.text().await.unwrap();
    for line in [
        "pulse_archive_events_total 0",
        "pulse_archive_events_rejected_total{reason=\"malformed\"} 0",
        "# TYPE pulse_archive_insert_duration_seconds histogram",
        "pulse_backlog_messages{source=\"RabbitMQ\"} 8",
        "pulse_dependency_up{dependency=\"clickhouse\"} 0",
        "pulse_dependency_up{dependency=\"RabbitMQ\"} 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("pulse_pulses_") && !text.contains("pulse_pending_"), "{text}");
    let up = metrics.dependencies().await.unwrap();
    assert_eq!(up, BTreeMap::from([("RabbitMQ".to_owned(), true), ("clickhouse".to_owned(), false)]));
}

#[tokio::test]
async fn a_dependency_that_answers_is_down_while_a_call_to_it_is_made_again() {
    let dependency = Arc::new(Dependency::new("ledger"));
    let process = MetricSources {
        overview: overview(Ok(6)),
        accounts: Arc::new(accounts()),
        tally: None,
        flushes: None,
        audits: None,
        dependencies: vec![Arc::clone(&dependency)],
        redis_at_risk: None,
        version: "1.2.3",
        now: || NOW,
    };
    let metrics = Metrics::new(process);
    let full = dependency.hold(|| async { Err::<(), _>(PortError::transient("write", "disk full")) });
    tokio::select! {
        _ = full => panic!("it never succeeds"),
        up = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            metrics.dependencies().await
        } => assert!(!up.unwrap()["ledger"]),
    }
    tokio::time::sleep(GOOD_FOR).await;
    assert!(metrics.dependencies().await.unwrap()["ledger"]);
}

#[tokio::test]
async fn the_page_for_operators_explains_every_metric_and_no_other() {
    let text =
        [metrics(Ok(6)), archive_metrics()].map(|metrics| async move { metrics.text().await.unwrap() });
    let text = futures_util::future::join_all(text).await.concat();
    let told: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let page = include_str!("../../../docs/telemetry.md");
    let explained: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `pulse_")?.split('|').map(str::trim);
            let name = line.split('`').nth(1)?;
            Some((name, cells.nth(1)?))
        })
        .collect();
    assert_eq!(explained, told);
}
