//! The settings: read once, checked all together, and typed from here on.

mod archive;
mod environment;
mod fault;
mod http;
mod read;
mod reference;
mod stores;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use archive::Archive;
pub(crate) use environment::Environment;
pub(crate) use fault::{Fault, Faults};
pub(crate) use http::Http;
pub(crate) use reference::{env_example, markdown};
pub(crate) use stores::{Accumulator, Ledger, Stores, shown_url};

use crate::mappings::{self, NotFound};
use application::{
    decode::{Anonymous, Decoder, Dedupe, Format},
    ingest::Limits,
};
use domain::ShardCount;
use infrastructure::{
    inbox::InboxSettings,
    rabbitmq::{QueueType, RabbitmqSettings},
    schedule::FlushSchedule,
};
use read::{Reader, amqp_name, duration, number, server_url};
use secrecy::{ExposeSecret, SecretString};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use stores::LedgerChoice;
use tracing_subscriber::EnvFilter;

/// What is declared beside a stream has its name in front.
const STREAM_NAME_MAX: usize = 200;
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const CENTURY: Duration = Duration::from_hours(24 * 36_500);

/// Everything that can be set. Which of it a mode needs, the mode says.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the worker takes messages from; not empty.
    pub(crate) sources: Vec<SourceKind>,
    /// How messages are read and batched.
    pub(crate) intake: Intake,
    /// What counts, and for how long it is remembered.
    pub(crate) counting: Counting,
    /// What comes over HTTP.
    pub(crate) inbox: InboxChoice,
    /// The broker, where one is configured.
    rabbitmq: Option<RabbitmqSettings>,
    /// The topic, where brokers are configured.
    kafka: Option<Kafka>,
    /// Where raw events are kept.
    pub(crate) archive: Archive,
    /// The Redis, where one is configured.
    redis: Option<Redis>,
    /// The ledger, where one is configured.
    ledger: Option<LedgerChoice>,
    /// The embedded file.
    pub(crate) embedded: PathBuf,
    /// How long it keeps dead letters.
    pub(crate) letter_retention: Duration,
    /// The HTTP API.
    pub(crate) http: Http,
    /// What is logged, and how.
    pub(crate) log: Log,
}

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A RabbitMQ queue.
    Rabbitmq,
    /// A Kafka topic.
    Kafka,
    /// What came over HTTP, in the store of the ledger.
    Inbox,
}

/// A topic that pulses are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kafka {
    /// `HOST:PORT`, several separated by commas.
    pub(crate) brokers: String,
    /// The topic.
    pub(crate) topic: String,
    /// The consumer group.
    pub(crate) group: String,
    /// The topic for what is refused.
    pub(crate) dead_letter_topic: String,
}

/// How messages are read and batched.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// What the messages are.
    pub(crate) format: Format,
    /// The most pulses in a batch: 1 to 4,000.
    pub(crate) batch_size: usize,
    /// How long a batch waits to become full.
    pub(crate) batch_linger: Duration,
    /// The most pulses in a message.
    pub(crate) items_max: usize,
    /// How long a stop may take.
    pub(crate) drain_timeout: Duration,
}

/// What counts, and for how long it is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    /// The shards of an accumulator in Redis.
    pub(crate) shards: ShardCount,
    /// Whether pulses that nothing identifies count.
    pub(crate) accept_anonymous: bool,
    /// What pulses of a log are known by.
    pub(crate) dedupe: Dedupe,
    /// For how long an identity is remembered at least.
    pub(crate) dedupe_window: Duration,
    /// How old a pulse may be; `None` for any age.
    pub(crate) age_max: Option<Duration>,
    /// How far ahead of the clock a pulse may be.
    pub(crate) ahead_max: Duration,
    /// When to flush.
    pub(crate) flush_schedule: FlushSchedule,
    /// When to audit.
    pub(crate) audit_schedule: AuditSchedule,
}

/// How the inbox is read and how long it keeps what is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboxChoice {
    /// How it is read.
    pub(crate) reading: InboxSettings,
    /// How long events are kept after they were counted.
    pub(crate) retention: Duration,
}

/// A Redis that counts.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// `redis://…` with credentials.
    pub(crate) url: SecretString,
    /// Whether a Redis that may lose what it acknowledged is refused.
    pub(crate) strict: bool,
    /// Whether the next bucket of identities takes less memory, and more work.
    pub(crate) compact: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// In the syntax of `EnvFilter`.
    pub(crate) level: String,
    /// One JSON object a line, instead of lines for people.
    pub(crate) json: bool,
    /// Where spans go, where they are exported.
    pub(crate) export: Option<Export>,
}

/// The collector of spans.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// Its URL, without the path of spans.
    pub(crate) endpoint: String,
    /// The name under which this program's spans are found.
    pub(crate) service: String,
}

impl Settings {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// All faults at once.
    pub(crate) fn load(environment: &Environment) -> Result<Self, Faults> {
        let mut reader = Reader::new(environment);
        let settings = Self::read(&mut reader);
        reader.finish(settings)
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let mut settings = Self {
            sources: reader.required("PULSE_SOURCES", source_list),
            intake: Intake {
                format: read_format(reader),
                batch_size: reader.required("PULSE_BATCH_SIZE", number(1..=4_000)),
                batch_linger: reader
                    .required("PULSE_BATCH_LINGER", duration(Duration::ZERO..=Duration::from_secs(1))),
                items_max: reader.required("PULSE_MESSAGE_ITEMS_MAX", number(1..=100_000)),
                drain_timeout: reader
                    .required("PULSE_DRAIN_TIMEOUT", duration(Duration::from_secs(1)..=10 * MINUTE)),
            },
            counting: Counting {
                shards: reader.required("PULSE_SHARDS", |text| {
                    number(1..=ShardCount::MAX)(text).and_then(ShardCount::new)
                }),
                accept_anonymous: reader
                    .required("PULSE_ANONYMOUS", one_of([("accept", true), ("reject", false)])),
                dedupe: reader.optional("PULSE_DEDUPE", dedupe).unwrap_or(Dedupe::Both),
                dedupe_window: reader.required("PULSE_DEDUPE_WINDOW", duration(HOUR..=35 * DAY)),
                age_max: reader.optional("PULSE_AGE_MAX", duration(HOUR..=CENTURY)),
                ahead_max: reader.required("PULSE_AHEAD_MAX", duration(Duration::ZERO..=CENTURY)),
                flush_schedule: reader.required("FLUSH_SCHEDULE", schedule),
                audit_schedule: reader.required("AUDIT_SCHEDULE", audit_schedule),
            },
            inbox: InboxChoice::read(reader),
            rabbitmq: read_rabbitmq(reader),
            kafka: Kafka::read(reader),
            archive: Archive::read(reader),
            redis: Redis::read(reader),
            ledger: LedgerChoice::read(reader),
            embedded: reader.required("PULSE_DB", |text| Some(PathBuf::from(text))),
            letter_retention: reader.required("DEAD_LETTER_RETENTION", duration(HOUR..=CENTURY)),
            http: Http::read(reader),
            log: Log {
                level: reader.required("LOG_LEVEL", log_level),
                json: reader.required("LOG_FORMAT", one_of([("pretty", false), ("json", true)])),
                export: read_export(reader),
            },
        };
        settings.http.limits.drain_timeout = settings.intake.drain_timeout;
        if settings.sources.contains(&SourceKind::Kafka) && !cfg!(feature = "kafka") {
            let remedy = "names kafka, and this build has no Kafka: build it with `--features kafka`";
            reader.fault("PULSE_SOURCES", remedy);
        }
        settings.check_archive(reader);
        if settings.counting.dedupe == Dedupe::Offset
            && !settings.sources.iter().any(|kind| settings.is_log(*kind))
        {
            let fault = "is offset, and PULSE_SOURCES names no log: a queue has no offsets, unless \
                         RABBITMQ_QUEUE_TYPE is stream";
            reader.fault("PULSE_DEDUPE", fault);
        }
        if let (None, Some(LedgerChoice::Embedded(file))) = (&settings.redis, &settings.ledger)
            && reader.is_set("PULSE_DB")
            && *file != settings.embedded
        {
            reader.fault(
                "PULSE_DB",
                "names another file than LEDGER_URL: without Redis one file holds all, set only one",
            );
        }
        settings
    }

    /// The broker, for a caller that cannot do without.
    ///
    /// # Errors
    /// Names what is lacking, and `instead` as the way out.
    pub(crate) fn broker(&self, caller: &str, instead: &str) -> Result<&RabbitmqSettings, Fault> {
        self.rabbitmq.as_ref().ok_or_else(|| Fault::lacking("RABBITMQ_URL", caller, instead))
    }

    /// The broker, where one is configured.
    pub(crate) fn rabbitmq(&self) -> Option<&RabbitmqSettings> {
        self.rabbitmq.as_ref()
    }

    /// Whether a source keeps its messages, each at its place.
    fn is_log(&self, kind: SourceKind) -> bool {
        match kind {
            SourceKind::Kafka => true,
            SourceKind::Rabbitmq => {
                self.rabbitmq.as_ref().is_some_and(|broker| broker.queue_type == QueueType::Stream)
            }
            SourceKind::Inbox => false,
        }
    }

    /// The topic, for a caller that cannot do without.
    ///
    /// # Errors
    /// Names what is lacking, and `instead` as the way out.
    pub(crate) fn kafka(&self, caller: &str, instead: &str) -> Result<&Kafka, Fault> {
        self.kafka.as_ref().ok_or_else(|| Fault::lacking("KAFKA_BROKERS", caller, instead))
    }

    /// The topic, where brokers are configured.
    #[cfg(feature = "kafka")]
    pub(crate) const fn kafka_where_configured(&self) -> Option<&Kafka> {
        self.kafka.as_ref()
    }

    /// The topic, where it is among the sources.
    pub(crate) fn kafka_source(&self) -> Option<&Kafka> {
        self.kafka.as_ref().filter(|_| self.sources.contains(&SourceKind::Kafka))
    }

    /// What to make of messages whose pulses go to this ledger.
    pub(crate) fn decoder(&self, ledger: &Ledger) -> Decoder {
        Decoder {
            format: self.intake.format.clone(),
            anonymous: if self.counting.accept_anonymous { Anonymous::Accept } else { Anonymous::Reject },
            dedupe: self.counting.dedupe,
            items_max: self.intake.items_max,
            age_max: self.counting.age_max,
            ahead_max: self.counting.ahead_max,
            sku_rule: ledger.sku_rule(),
        }
    }

    /// The bounds of the engine.
    pub(crate) fn limits(&self) -> Limits {
        let Intake { batch_size, batch_linger, drain_timeout, .. } = self.intake;
        Limits { batch_size, batch_linger, drain_timeout, until_idle: None }
    }
}

fn read_rabbitmq(reader: &mut Reader<'_>) -> Option<RabbitmqSettings> {
    let url = reader.optional("RABBITMQ_URL", server_url(&["amqp", "amqps"]));
    let queue = reader.required("RABBITMQ_QUEUE", amqp_name);
    let queue_type = reader.required(
        "RABBITMQ_QUEUE_TYPE",
        one_of([
            ("quorum", QueueType::Quorum),
            ("classic", QueueType::Classic),
            ("stream", QueueType::Stream),
        ]),
    );
    let exchange = reader.optional("RABBITMQ_EXCHANGE", amqp_name);
    let binding = Some(reader.required("RABBITMQ_BINDING", amqp_name)).filter(|_| exchange.is_some());
    let prefetch = reader.required("RABBITMQ_PREFETCH", number(1..=u16::MAX));
    let dead_letter_queue = reader.required("RABBITMQ_DEAD_LETTER_QUEUE", amqp_name);
    if queue_type == QueueType::Stream && queue.len() > STREAM_NAME_MAX {
        reader.fault("RABBITMQ_QUEUE", "is too long: the name of a stream has 200 bytes at most");
    }
    if dead_letter_queue == queue {
        reader.fault(
            "RABBITMQ_DEAD_LETTER_QUEUE",
            "is the same queue as RABBITMQ_QUEUE: what is refused would come again",
        );
    }
    if exchange.is_none() && reader.is_set("RABBITMQ_BINDING") {
        reader
            .fault("RABBITMQ_BINDING", "means nothing without RABBITMQ_EXCHANGE: set that too, or remove it");
    }
    Some(RabbitmqSettings { url: url?, queue, queue_type, exchange, binding, prefetch, dead_letter_queue })
}

impl Kafka {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let brokers = reader.optional("KAFKA_BROKERS", broker_list);
        let topic = reader.required("KAFKA_TOPIC", topic_name);
        let group = reader.required("KAFKA_GROUP", amqp_name);
        let dead_letter_topic = reader.required("KAFKA_DEAD_LETTER_TOPIC", topic_name);
        if dead_letter_topic == topic {
            reader.fault(
                "KAFKA_DEAD_LETTER_TOPIC",
                "is the same topic as KAFKA_TOPIC: what is refused would come again",
            );
        }
        Some(Self { brokers: brokers?, topic, group, dead_letter_topic })
    }
}

impl InboxChoice {
    fn read(reader: &mut Reader<'_>) -> Self {
        let reading = InboxSettings {
            poll_interval: reader
                .required("INBOX_POLL_INTERVAL", duration(Duration::from_millis(10)..=MINUTE)),
            lease: reader.required("INBOX_LEASE", duration(Duration::from_secs(1)..=HOUR)),
            attempts_max: reader.required("INBOX_ATTEMPTS_MAX", number(4..=1_000)),
            ..InboxSettings::default()
        };
        Self { reading, retention: reader.required("INBOX_RETENTION", duration(HOUR..=CENTURY)) }
    }
}

impl Redis {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.optional("REDIS_URL", server_url(&["redis", "rediss"]));
        let strict = reader.required("REDIS_DURABILITY", one_of([("strict", true), ("at-risk", false)]));
        let compact = reader.required("REDIS_IDENTITIES", one_of([("fast", false), ("compact", true)]));
        Some(Self { url: url?, strict, compact })
    }
}

fn read_export(reader: &mut Reader<'_>) -> Option<Export> {
    let endpoint = reader.optional("OTEL_EXPORTER_OTLP_ENDPOINT", server_url(&["http"]));
    let service = reader.required("OTEL_SERVICE_NAME", |text| Some(text.to_owned()));
    Some(Export { endpoint: endpoint?.expose_secret().to_owned(), service })
}

fn source_list(text: &str) -> Option<Vec<SourceKind>> {
    let one = one_of([
        ("rabbitmq", SourceKind::Rabbitmq),
        ("kafka", SourceKind::Kafka),
        ("inbox", SourceKind::Inbox),
    ]);
    let list: Vec<SourceKind> = text.split(',').map(|name| one(name.trim())).collect::<Option<_>>()?;
    let twice = list.iter().enumerate().any(|(place, kind)| list[..place].contains(kind));
    (!twice).then_some(list)
}

fn dedupe(text: &str) -> Option<Dedupe> {
    one_of([("id", Dedupe::Id), ("offset", Dedupe::Offset), ("both", Dedupe::Both)])(text)
}

fn broker_list(text: &str) -> Option<String> {
    let address = |address: &str| {
        let (host, port) = address.trim().rsplit_once(':')?;
        (!host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()).then_some(())
    };
    text.split(',').map(address).collect::<Option<Vec<_>>>().map(|_| text.to_owned())
}

/// The rule of Kafka itself.
fn topic_name(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let named = (1..=249).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != "..";
    named.then(|| text.to_owned())
}

fn one_of<T: Copy, const N: usize>(choices: [(&'static str, T); N]) -> impl Fn(&str) -> Option<T> {
    move |text| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

/// The format; of a mapping every fault is noted.
fn read_format(reader: &mut Reader<'_>) -> Format {
    reader.required("PULSE_FORMAT", format).unwrap_or_else(|faults| {
        for fault in faults {
            reader.fault("PULSE_FORMAT", fault);
        }
        Format::Pulse
    })
}

fn format(text: &str) -> Option<Result<Format, Vec<String>>> {
    Some(match text {
        "pulse" => Ok(Format::Pulse),
        "cloudevents" => Ok(Format::CloudEvents),
        name => match mappings::find(name, Path::new(".")) {
            Ok(mapping) => Ok(Format::Mapping(Arc::new(mapping))),
            Err(NotFound::Faults(faults)) => Err(faults),
            Err(NotFound::Unknown) => return None,
        },
    })
}

/// When the cron audits.
#[derive(Clone, Debug)]
pub(crate) enum AuditSchedule {
    /// Never.
    Off,
    /// At these times.
    At(FlushSchedule),
}

fn audit_schedule(text: &str) -> Option<AuditSchedule> {
    if text == "off" { Some(AuditSchedule::Off) } else { schedule(text).map(AuditSchedule::At) }
}

fn schedule(text: &str) -> Option<FlushSchedule> {
    FlushSchedule::parse(text).ok()
}

/// A level, or a list of `target=level`. A single word that is no level would be taken for a target and silence the rest.
fn log_level(text: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = text
        .split(',')
        .all(|part| part.contains('=') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part.trim())));
    (known && EnvFilter::builder().parse(text).is_ok()).then(|| text.to_owned())
}
