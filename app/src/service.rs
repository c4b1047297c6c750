//! The modes: what runs until it is stopped.

use crate::{
    api::{self, Api},
    audit,
    backends::{Backends, lock_service},
    cli::Modes,
    clock,
    overview::overview,
    print_pulses::{STALL_LIMIT, print_pulses},
    recover,
    retention::remove_old_hourly,
    settings::{Accumulator, AuditSchedule, Faults, Http, Kafka, Settings, SourceKind, Stores, shown_url},
};
use anyhow::Context;
use application::{
    decode::{Decoder, Format},
    ingest::{AppliedPulse, IngestPulses, Limits, Route, Tally},
    open_log::CountedAndSettled,
    ports::{Inbox, LogPositions, PulseSource},
    retry::Dependency,
};
use domain::AccumulatorId;
use infrastructure::{
    http::{Credentials, bind, serve_metrics},
    inbox::InboxSettings,
    metrics::{MetricSources, Metrics},
    rabbitmq::{QueueType, RabbitmqDeadLetters, RabbitmqSettings, RabbitmqSource, RabbitmqStreamSource},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the ledger is told how far the shards were seen.
const MARKS_EVERY: Duration = Duration::from_secs(10);
/// How long the last marks may take at the end.
const LAST_MARKS_LIMIT: Duration = Duration::from_secs(2);
/// How often a flush that should end looks whether it may.
const STOP_CHECK: Duration = Duration::from_millis(50);
const INSTEAD: &str = "use --standalone, which needs no server";

/// Runs the modes until `stop`, or until nothing comes any more where that was asked for.
///
/// # Errors
/// [`Faults`] where a setting is lacking; otherwise why a mode could not go on. All modes end with the first that fails.
pub(crate) async fn run(modes: Modes, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let plan = Plan::new(modes, &settings)?;
    let _locks = lock_service(&plan.stores)?;
    plan.tell(modes, &settings);
    let opened = select! {
        () = stop.cancelled() => return Ok(()),
        opened = open(&plan, &settings) => opened?,
    };
    let (backends, accumulator) = opened;
    let mut tasks = JoinSet::new();
    let tally = Arc::new(Tally::default());
    let broker = settings.rabbitmq().filter(|_| settings.sources.contains(&SourceKind::Rabbitmq));
    let overview = overview(&backends, broker, settings.kafka_source());
    let (marks, removal) = (Arc::new(Dependency::new("ledger")), Arc::new(Dependency::new("inbox")));
    let letters = Arc::new(Dependency::new("dead letters"));
    let metrics = Arc::new(Metrics::new(MetricSources {
        overview: overview.clone(),
        accounts: Arc::clone(&backends.accounts),
        tally: plan.works.then(|| Arc::clone(&tally)),
        flushes: plan.flushes.then(|| Arc::clone(&backends.flushes)),
        audits: (plan.flushes && matches!(settings.counting.audit_schedule, AuditSchedule::At(_)))
            .then(|| Arc::clone(&backends.audits)),
        dependencies: [&backends.dependency, &marks, &removal, &letters].map(Arc::clone).into(),
        redis_at_risk: match &plan.stores.accumulator {
            Accumulator::Redis(redis) => Some(!redis.strict),
            Accumulator::Embedded(_) => None,
        },
        version: env!("CARGO_PKG_VERSION"),
        now: clock::now,
    }));
    tell_metrics(&settings.http, Arc::clone(&metrics), &stop, &mut tasks).await?;
    if plan.serves {
        let credentials = match (plan.credentials, &backends.books.file) {
            (None, Some(file)) => api::own_credentials(&settings, file).await?,
            (credentials, _) => credentials.context("the API has no credentials")?,
        };
        let decoder = settings.decoder(&plan.stores.ledger);
        let api = Api { decoder, credentials, broker, overview, metrics };
        api::start(api, &settings, &backends, stop.clone(), &mut tasks).await?;
    }
    let service = Arc::new(Service { backends, settings, tally, stop });

    // Without a source there is nothing to wait for, unless somebody asked for the end.
    if !plan.sources.is_empty() || modes.until_idle.is_some() {
        let route =
            |source: &Source| source.route(service.settings.decoder(&plan.stores.ledger), &service.backends);
        let routes = plan.sources.iter().map(route).collect::<Result<_, _>>()?;
        let applied = modes.print_pulses.then(|| {
            // One batch of each lane may wait.
            let (applied, batches) = mpsc::channel(usize::from(service.backends.shard_count.get()));
            tasks.spawn(print_pulses(batches, tokio::io::stdout(), STALL_LIMIT));
            applied
        });
        tasks.spawn(Arc::clone(&service).work(routes, modes.until_idle, applied));
    }
    if let Some(accumulator) = accumulator {
        tasks.spawn(Arc::clone(&service).report_marks(accumulator, marks));
    }
    if plan.flushes {
        tasks.spawn(Arc::clone(&service).flush_on_schedule());
        if let AuditSchedule::At(schedule) = service.settings.counting.audit_schedule.clone() {
            let (backends, stop) = (service.backends.audit_books(), service.stop.clone());
            let tally = Arc::clone(&service.backends.audits);
            tasks.spawn(audit::on_schedule(backends, schedule, tally, stop));
        }
        spawn_removals(&mut tasks, &service, removal, letters);
    }
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.context("a task of the program ended abnormally").flatten();
        if ended.is_err() && result.is_ok() {
            service.stop.cancel();
            result = ended;
        }
    }
    if let Some(accumulator) = accumulator {
        service.report_last_marks(accumulator).await;
    }
    if result.is_err() {
        recover::tell_loss(&service.backends, &service.settings).await;
    }
    result
}

/// Answers on `METRICS_ADDR` until `stop`, where that is set.
pub(crate) async fn tell_metrics(
    http: &Http,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let Some(addr) = http.metrics_addr else { return Ok(()) };
    let listener = bind(addr).await.context("METRICS_ADDR")?;
    let (limits, stop) = (http.limits, stop.clone());
    tasks.spawn(async move {
        serve_metrics(listener, metrics, limits, stop).await;
        Ok(())
    });
    Ok(())
}

/// What removes events and letters that are old enough.
fn spawn_removals(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    service: &Service,
    removal: Arc<Dependency>,
    letters: Arc<Dependency>,
) {
    if let Some(inbox) = &service.backends.books.inbox {
        let (inbox, retention) = (Arc::clone(inbox), service.settings.inbox.retention);
        tasks.spawn(remove_old_hourly(
            "events of the inbox",
            retention,
            removal,
            service.stop.clone(),
            move |before| {
                let inbox = Arc::clone(&inbox);
                async move { inbox.remove_done(before).await }
            },
        ));
    }
    if let Some(file) = &service.backends.books.file {
        let (file, retention) = (Arc::clone(file), service.settings.letter_retention);
        tasks.spawn(remove_old_hourly(
            "dead letters",
            retention,
            letters,
            service.stop.clone(),
            move |before| {
                let file = Arc::clone(&file);
                async move { file.remove_letters(before).await }
            },
        ));
    }
}

/// Opens the stores, and for a worker the shards of its accumulator too.
async fn open(plan: &Plan, settings: &Settings) -> anyhow::Result<(Backends, Option<AccumulatorId>)> {
    let backends = Backends::open_held(&plan.stores, &settings.counting).await?;
    if !plan.works {
        return Ok((backends, None));
    }
    let registration = match backends.open_shards().await {
        Ok(registration) => registration,
        Err(error) => {
            recover::tell_loss(&backends, settings).await;
            return Err(error);
        }
    };
    info!(accumulator = %registration.accumulator, shards = %registration.shards, "ready");
    Ok((backends, Some(registration.accumulator)))
}

/// What the modes and the settings come to.
struct Plan {
    stores: Stores,
    sources: Vec<Source>,
    works: bool,
    flushes: bool,
    serves: bool,
    /// Those of the settings; a standalone service makes its own.
    credentials: Option<Credentials>,
}

impl Plan {
    fn new(modes: Modes, settings: &Settings) -> Result<Self, Faults> {
        let works = modes.worker || modes.standalone;
        let caller = match modes {
            Modes { worker: true, .. } => "app --worker",
            Modes { cron: true, .. } => "app --cron",
            _ => "app --api",
        };
        let stores = if modes.standalone {
            Ok(Stores::embedded(&settings.embedded))
        } else {
            settings.stores(caller, INSTEAD)
        };
        let (mut sources, mut lacking) = (Vec::new(), Vec::new());
        for kind in settings.sources.iter().filter(|_| works) {
            let source = match kind {
                SourceKind::Rabbitmq => settings.broker(caller, INSTEAD).cloned().map(Source::Rabbitmq),
                SourceKind::Kafka => settings.kafka(caller, INSTEAD).cloned().map(Source::Kafka),
                SourceKind::Inbox => Ok(Source::Inbox(settings.inbox.reading)),
            };
            match source {
                Ok(source) => sources.push(source),
                // Beside an embedded file a source is welcome, and not needed.
                Err(_) if modes.standalone => {}
                Err(fault) => lacking.push(fault),
            }
        }
        if !lacking.is_empty() {
            let others = stores.err().map(|faults| faults.0).unwrap_or_default();
            return Err(Faults([lacking, others].concat()));
        }
        if modes.standalone && !settings.sources.contains(&SourceKind::Inbox) {
            sources.push(Source::Inbox(settings.inbox.reading));
        }
        let needs_credentials = modes.api && !modes.standalone;
        let credentials = needs_credentials.then(|| settings.http.credentials("app --api", INSTEAD));
        Ok(Self {
            stores: stores?,
            sources,
            works,
            flushes: modes.cron || modes.standalone,
            serves: modes.api || (modes.standalone && modes.until_idle.is_none()),
            credentials: credentials.transpose()?,
        })
    }

    /// One line that says what runs on what, without secrets.
    fn tell(&self, modes: Modes, settings: &Settings) {
        let names = [
            (modes.worker, "worker"),
            (modes.cron, "cron"),
            (modes.api, "api"),
            (modes.standalone, "standalone"),
        ];
        let names: Vec<&str> = names.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        let sources: Vec<String> = self.sources.iter().map(Source::to_string).collect();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            modes = names.join("+"),
            sources = sources.join(","),
            accumulator = self.stores.accumulator.to_string(),
            ledger = self.stores.ledger.to_string(),
            flush_schedule = self.flushes.then(|| settings.counting.flush_schedule.as_str()),
            dedupe_window = %humantime::format_duration(settings.counting.dedupe_window),
            "starting"
        );
        if modes.standalone && settings.names_servers() {
            warn!("REDIS_URL and LEDGER_URL are not used: --standalone counts in the embedded file");
        }
    }
}

/// Where messages are taken from.
enum Source {
    Rabbitmq(RabbitmqSettings),
    Kafka(Kafka),
    Inbox(InboxSettings),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rabbitmq(broker) => {
                let (url, kind) = (shown_url(&broker.url), broker.queue_type.name());
                write!(formatter, "{url} {kind} queue {}", broker.queue)
            }
            Self::Kafka(kafka) => write!(formatter, "kafka {} topic {}", kafka.brokers, kafka.topic),
            Self::Inbox(_) => formatter.write_str("inbox"),
        }
    }
}

impl Source {
    fn route(&self, decoder: Decoder, backends: &Backends) -> anyhow::Result<Route> {
        match self {
            Self::Rabbitmq(broker) => {
                let (positions, accounts) = (Arc::clone(&backends.positions), Arc::clone(&backends.accounts));
                let positions = Arc::new(CountedAndSettled { positions, accounts });
                Ok(rabbitmq_route(broker, decoder, positions))
            }
            Self::Kafka(kafka) => kafka_route(kafka, decoder, Arc::clone(&backends.positions)),
            // Its events are of one shape, whatever the brokers bring.
            Self::Inbox(reading) => {
                inbox_route(backends, Decoder { format: Format::Pulse, ..decoder }, *reading)
            }
        }
    }
}

/// The queue or the stream of the broker, and its dead letters.
pub(crate) fn rabbitmq_route(
    broker: &RabbitmqSettings,
    decoder: Decoder,
    positions: Arc<dyn LogPositions>,
) -> Route {
    let source: Arc<dyn PulseSource> = match broker.queue_type {
        QueueType::Stream => Arc::new(RabbitmqStreamSource::new(broker.clone(), positions)),
        QueueType::Quorum | QueueType::Classic => Arc::new(RabbitmqSource::new(broker.clone())),
    };
    Route {
        name: "rabbitmq".to_owned(),
        source,
        dead_letters: Arc::new(RabbitmqDeadLetters::new(broker.clone())),
        decoder,
    }
}

/// The topic, and its dead letters.
#[cfg(feature = "kafka")]
pub(crate) fn kafka_route(
    kafka: &Kafka,
    decoder: Decoder,
    positions: Arc<dyn LogPositions>,
) -> anyhow::Result<Route> {
    use infrastructure::kafka::{KafkaDeadLetters, KafkaSettings, KafkaSource};
    let Kafka { brokers, topic, group, dead_letter_topic } = kafka.clone();
    let settings = KafkaSettings { brokers, topic, group, dead_letter_topic };
    Ok(Route {
        name: "kafka".to_owned(),
        dead_letters: Arc::new(KafkaDeadLetters::new(&settings)?),
        source: Arc::new(KafkaSource::new(settings, positions)),
        decoder,
    })
}

/// The settings refuse it before.
#[cfg(not(feature = "kafka"))]
pub(crate) fn kafka_route(_: &Kafka, _: Decoder, _: Arc<dyn LogPositions>) -> anyhow::Result<Route> {
    anyhow::bail!("this build has no Kafka (feature kafka)")
}

/// The inbox of the ledger, as a source.
fn inbox_route(backends: &Backends, decoder: Decoder, reading: InboxSettings) -> anyhow::Result<Route> {
    let inbox = backends.books.inbox.as_ref();
    let inbox =
        inbox.context("this ledger has no inbox: set LEDGER_URL to PostgreSQL or an embedded file")?;
    Ok(Route {
        name: "inbox".to_owned(),
        source: Arc::new(inbox.source(reading)),
        dead_letters: Arc::clone(inbox) as _,
        decoder,
    })
}

struct Service {
    backends: Backends,
    settings: Settings,
    tally: Arc<Tally>,
    stop: CancellationToken,
}

impl Service {
    async fn work(
        self: Arc<Self>,
        routes: Vec<Route>,
        until_idle: Option<Duration>,
        applied: Option<mpsc::Sender<Vec<AppliedPulse>>>,
    ) -> anyhow::Result<()> {
        let engine = IngestPulses {
            routes,
            sink: Arc::clone(&self.backends.sink),
            sink_name: self.backends.sink_name.to_owned(),
            shards: self.backends.shard_count,
            suspects: Some(Arc::clone(&self.backends.suspects)),
            accounts: Some(Arc::clone(&self.backends.accounts)),
            limits: Limits { until_idle, ..self.settings.limits() },
            tally: Arc::clone(&self.tally),
            applied,
        };
        let result = engine.run(self.stop.clone()).await;
        let done = self.tally.snapshot();
        info!(
            messages = done.messages,
            counted = done.counted,
            duplicates = done.duplicates,
            anonymous = done.anonymous,
            rejected = done.rejected_total(),
            "ingestion ended"
        );
        result?;
        if !self.stop.is_cancelled() {
            self.flush_or_stop().await?;
            self.stop.cancel();
        }
        Ok(())
    }

    async fn flush_on_schedule(self: Arc<Self>) -> anyhow::Result<()> {
        let mut ticks = self.settings.counting.flush_schedule.start().await?;
        // The first one makes up for what was missed while nothing ran.
        loop {
            self.flush_or_stop().await?;
            select! {
                () = self.stop.cancelled() => return Ok(()),
                tick = ticks.next() => tick.context("the schedule has stopped")?,
            }
        }
    }

    /// A flush; once the program is to stop, it may take the drain timeout, and no time at all where it waits for a
    /// store that is away. The next flush goes on from wherever it was.
    async fn flush_or_stop(&self) -> anyhow::Result<()> {
        select! {
            biased;
            flushed = self.backends.flush() => flushed.map(|_| ()),
            () = self.flush_must_end() => {
                warn!("a flush was left unfinished: the next one goes on from there");
                Ok(())
            }
        }
    }

    async fn flush_must_end(&self) {
        self.stop.cancelled().await;
        let end = Instant::now() + self.settings.intake.drain_timeout;
        while Instant::now() < end && !self.backends.dependency.is_away() {
            sleep(STOP_CHECK).await;
        }
    }

    /// Leaves in the ledger how far the shards were seen, by which a rollback is noticed that happens while nobody runs.
    async fn report_marks(
        self: Arc<Self>,
        accumulator: AccumulatorId,
        dependency: Arc<Dependency>,
    ) -> anyhow::Result<()> {
        let Backends { books, shards, .. } = &self.backends;
        let mut ticks = interval(MARKS_EVERY);
        loop {
            select! {
                () = self.stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            select! {
                () = self.stop.cancelled() => return Ok(()),
                reported = dependency.hold(|| async {
                    books.registry.mark_seen(accumulator, &shards.marks()).await
                }) => reported?,
            }
        }
    }

    /// The marks once more, as far as the ledger answers: the next start then notices any rollback in between.
    async fn report_last_marks(&self, accumulator: AccumulatorId) {
        let marks = self.backends.shards.marks();
        let report = self.backends.books.registry.mark_seen(accumulator, &marks);
        match timeout(LAST_MARKS_LIMIT, report).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the last marks were not left in the ledger"),
            Err(_) => warn!("the last marks were not left in the ledger: it did not answer"),
        }
    }
}
