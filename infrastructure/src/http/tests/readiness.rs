//! What `/readyz` says of the parts.

use super::*;

/// What `/readyz` answers where the inbox is so deep.
async fn readiness(depth: fn() -> Result<InboxDepth, PortError>) -> Response {
    let mut inbox = MockInbox::new();
    inbox.expect_depth().returning(depth);
    let service = readiness_with(inbox, |_| Ok(None));
    answer(&service, request("GET", "/readyz", None, Body::empty())).await
}

/// Of two shards.
fn readiness_with(inbox: MockInbox, inspect: fn(Shard) -> Result<Option<ShardState>, PortError>) -> Router {
    let mut shards = MockAccumulatorShards::new();
    shards.expect_inspect().returning(inspect);
    let mut registry = MockShardRegistry::new();
    registry.expect_registration().returning(|| {
        Ok(Some(Registration {
            accumulator: AccumulatorId::from_bytes([1; 16]),
            shards: ShardCount::new(2).unwrap(),
            records: Vec::new(),
        }))
    });
    let mut intake = MockPulseIntake::new();
    intake.expect_check().returning(|| Ok(()));
    let pending = PendingUsage {
        registry: Arc::new(registry),
        shards: Arc::new(shards),
        generations: Arc::new(MockGenerationStore::new()),
    };
    let ports =
        HttpPorts { pending: Arc::new(pending), inbox: Arc::new(inbox), intake: Arc::new(intake), ..ports() };
    router(state(ports, HttpLimits::default()))
}

#[tokio::test]
async fn one_shard_that_is_away_is_an_accumulator_that_is_down() {
    let mut inbox = MockInbox::new();
    inbox.expect_depth().returning(|| Ok(InboxDepth::default()));
    let service = readiness_with(inbox, |shard| match shard {
        Shard(0) => Ok(None),
        _ => Err(PortError::transient("ask", "away")),
    });
    let told = answer(&service, request("GET", "/readyz", None, Body::empty())).await;
    assert_eq!(value(told).await["dependencies"][1], json!({"name": "accumulator", "state": "down"}));
}

#[tokio::test]
async fn however_many_ask_whether_it_is_ready_the_parts_are_asked_once_a_second() {
    let mut inbox = MockInbox::new();
    inbox.expect_depth().times(2).returning(|| Ok(InboxDepth::default()));
    let service = readiness_with(inbox, |_| Ok(None));
    for _ in 0..2 {
        let ask = || answer(&service, request("GET", "/readyz", None, Body::empty()));
        for told in futures_util::future::join_all((0..10).map(|_| ask())).await {
            assert_eq!(told.status(), StatusCode::OK);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn who_is_not_ready_says_which_part_is_away() {
    let told = readiness(|| Err(PortError::transient("ask", "away"))).await;
    assert_eq!(told.status(), StatusCode::SERVICE_UNAVAILABLE);
    let told = value(told).await;
    assert_eq!(told["ready"], json!(false));
    assert_eq!(told["dependencies"][2], json!({"name": "intake", "state": "up"}));
    assert_eq!(told["dependencies"][3], json!({"name": "inbox", "state": "down"}));
}

#[tokio::test]
async fn an_inbox_is_stuck_where_what_is_due_waits_and_nothing_is_done() {
    const AGO: fn(i64) -> Option<Timestamp> = |seconds| Some(Timestamp::new(NOW.seconds() - seconds, 0));
    fn depth(oldest: Option<Timestamp>, last_done: Option<Timestamp>) -> InboxDepth {
        InboxDepth { oldest, last_done, ..InboxDepth::default() }
    }
    for (state, told) in [
        ("up", readiness(|| Ok(depth(None, None))).await),
        ("up", readiness(|| Ok(depth(AGO(59), AGO(1_000)))).await),
        ("up", readiness(|| Ok(depth(AGO(1_000), AGO(59)))).await),
        ("stuck", readiness(|| Ok(depth(AGO(61), AGO(61)))).await),
        ("stuck", readiness(|| Ok(depth(AGO(61), None))).await),
    ] {
        let ready = told.status() == StatusCode::OK;
        let told = value(told).await;
        assert_eq!(told["dependencies"][3], json!({"name": "inbox", "state": state}));
        assert_eq!(ready, state == "up");
    }
}
