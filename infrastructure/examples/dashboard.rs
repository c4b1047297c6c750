//! The dashboard on an embedded file with made-up usage, to look at in a browser: `dashboard PORT [empty]`.
//!
//! Log in as `operator` with `operator`. Pulses keep coming in; the file is gone when the program ends.

use application::{
    dead_letters::NamedPlace,
    decode::Decoder,
    flush_usage::FlushUsage,
    open_shards::open_shards,
    overview::GatherOverview,
    ports::{
        Batch, DeadLetter, DeadLetters, Envelope, MockApiKeys, MockBacklog, MockInbox, MockPulseIntake,
        PulseSink,
    },
    report_usage::PendingUsage,
};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Reason, Rejection, Shard,
    ShardCount, TenantId, Timestamp, UsageUnit,
};
use infrastructure::{
    http::{Credentials, Dashboard, HttpLimits, HttpPorts, HttpSettings, HttpState, bind, serve},
    metrics::{MetricSources, Metrics},
    schedule::FlushSchedule,
    sqlite::{EmbeddedLetters, EmbeddedSettings, EmbeddedStore},
};
use std::{env, error::Error, net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HOURS: i32 = 72;

#[expect(clippy::disallowed_methods, reason = "an example has no clock port")]
fn now() -> Timestamp {
    let now = chrono::Utc::now();
    Timestamp::new(now.timestamp(), now.timestamp_subsec_nanos())
}

/// One of many, the same for the same number.
fn pulse(number: u64, hour: HourWindow) -> Result<Pulse> {
    const TENANTS: [&str; 4] =
        ["tenant_xpto", "acme", "<script>alert(1)</script>", "a-tenant-with-a-rather-long-name.example.com"];
    const SKUS: [(&str, &str); 3] = [("SKU-997", "KB"), ("SKU-998", "GB"), ("calls", "request")];
    let mixed = usize::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)?;
    let (sku, unit) = SKUS[mixed % SKUS.len()];
    Ok(Pulse {
        tenant: TenantId::new(TENANTS[mixed / 3 % TENANTS.len()])?,
        product_sku: ProductSku::new(sku)?,
        use_unity: UsageUnit::new(unit)?,
        amount: Amount::parse(&format!("{}.{}", mixed % 9_000 + 1, mixed % 100))?,
        identity: Some(PulseIdentity::Id(number.to_string().into())),
        occurred_at: None,
        hour,
    })
}

async fn fill(store: &Arc<EmbeddedStore>, flush: &FlushUsage) -> Result<u64> {
    let this_hour = HourWindow::of(now()).number();
    let mut number = 0;
    for hour in this_hour - HOURS..this_hour {
        let shape = u64::from((hour % 24).unsigned_abs() * (24 - hour % 24).unsigned_abs()) + 20;
        let pulses: Result<Vec<Pulse>> =
            (number..number + shape * 3).map(|number| pulse(number, HourWindow::from_number(hour))).collect();
        number += shape * 3;
        store.apply(&Batch { shard: Shard(0), number, pulses: pulses?, stretches: Vec::new() }).await?;
        if hour % 12 == 0 {
            flush.run(now()).await?;
        }
    }
    flush.run(now()).await?;
    let letters = [
        (Reason::NotPositive, "used_amount is -3; give an amount greater than zero", &b"{\"id\":\"7\",\"tenant\":\"acme\",\"product_sku\":\"SKU-997\",\"used_amount\":-3,\"use_unity\":\"KB\"}"[..]),
        (Reason::Malformed, "not JSON: expected value at line 1 column 1", b"<script>alert('body')</script>\xff\x00"),
        (Reason::Conflict, "the id 6f1c was counted before with other content", b"{\"id\":\"6f1c\",\"tenant\":\"tenant_xpto\",\"product_sku\":\"SKU-997\",\"used_amount\":308,\"use_unity\":\"KB\"}"),
    ];
    let letters: Vec<DeadLetter> = letters
        .iter()
        .zip(0_u32..)
        .map(|((reason, detail, body), index)| DeadLetter {
            place: None,
            id: format!("{index:032x}"),
            rejection: Rejection::new(*reason, *detail),
            body: body.to_vec(),
            item: (index == 2).then_some(4),
            source: "rabbitmq".to_owned(),
            envelope: Envelope::default(),
            received_at: now(),
        })
        .collect();
    store.publish(&letters).await?;
    Ok(number)
}

async fn keep_coming(store: Arc<EmbeddedStore>, mut number: u64) -> Result<()> {
    loop {
        // Some of them again.
        let pulses: Result<Vec<Pulse>> =
            (number - 10..number + 140).map(|number| pulse(number, HourWindow::of(now()))).collect();
        number += 140;
        store.apply(&Batch { shard: Shard(0), number, pulses: pulses?, stretches: Vec::new() }).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let is_empty = arguments.next().is_some();
    let folder = tempfile::tempdir()?;
    let store = Arc::new(EmbeddedStore::open(&EmbeddedSettings::new(folder.path().join("pulse.db"))).await?);
    let flush = FlushUsage {
        shards: Arc::clone(&store) as _,
        generations: Arc::clone(&store) as _,
        ledger: Arc::clone(&store) as _,
        registry: Arc::clone(&store) as _,
    };
    open_shards(&*store, &*store, AccumulatorId::from_bytes([7; 16]), ShardCount::ONE, now()).await?;
    let mut backlog = MockBacklog::new();
    let waiting = if is_empty { 0 } else { 1_284 };
    backlog.expect_waiting().returning(move || Ok(waiting));
    let gather = GatherOverview {
        accumulator: "embedded file".to_owned(),
        ledger: "books in the embedded file".to_owned(),
        shards: Arc::clone(&store) as _,
        shard_count: ShardCount::ONE,
        generations: Arc::clone(&store) as _,
        queries: Arc::clone(&store) as _,
        backlogs: vec![("rabbitmq".to_owned(), Arc::new(backlog))],
        refused: vec![("dead letters in the embedded file".to_owned(), Arc::clone(&store) as _)],
        part_limit: Duration::from_secs(2),
    };
    let settings = HttpSettings {
        addr: SocketAddr::from(([127, 0, 0, 1], port)),
        credentials: Credentials {
            username: "operator".to_owned(),
            password: "operator".to_owned().into(),
            jwt_secret: "0123456789abcdef0123456789abcdef".to_owned().into(),
        },
        webhook_secret: None,
        limits: HttpLimits::default(),
    };
    let ports = HttpPorts {
        decoder: Decoder::default(),
        intake: Arc::new(MockPulseIntake::new()),
        queries: Arc::clone(&store) as _,
        pending: Arc::new(PendingUsage {
            registry: Arc::clone(&store) as _,
            shards: Arc::clone(&store) as _,
            generations: Arc::clone(&store) as _,
        }),
        inbox: Arc::new(MockInbox::new()),
        letters: vec![NamedPlace {
            name: "file",
            title: "dead letters in the embedded file".to_owned(),
            place: Arc::new(EmbeddedLetters::new(Arc::clone(&store))),
        }],
        keys: Arc::new(MockApiKeys::new()),
        metrics: Arc::new(Metrics::new(MetricSources {
            audits: None,
            overview: gather.clone(),
            accounts: Arc::new(application::fakes::accumulator::MemoryAccumulator::new(
                Duration::from_hours(48),
            )),
            tally: None,
            flushes: None,
            dependencies: Vec::new(),
            redis_at_risk: None,
            version: "1",
            now,
        })),
        dashboard: Dashboard::new(gather, Some(FlushSchedule::parse("0 0 * * * *")?)),
        now,
    };
    let listener = bind(settings.addr).await?;
    let state = HttpState::new(settings, ports)?;
    let server = serve(listener, state, CancellationToken::new());
    if is_empty {
        server.await;
    } else {
        let number = fill(&store, &flush).await?;
        tokio::select! {
            () = server => {}
            ended = keep_coming(store, number) => ended?,
        }
    }
    Ok(())
}
