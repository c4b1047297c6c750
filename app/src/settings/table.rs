//! The one table of settings: the check, the reference and `.env.example` are made from it.

/// One setting, as the user sees it.
pub(crate) struct Definition {
    /// The environment variable.
    pub(crate) name: &'static str,
    /// The heading that it stands under.
    pub(crate) group: &'static str,
    /// What it is worth where nobody sets it; `None` where there is no such value.
    pub(crate) default: Option<&'static str>,
    /// What is allowed: follows "must be".
    pub(crate) allowed: &'static str,
    /// A value to show where there is no default.
    pub(crate) example: &'static str,
    /// Whether its value may hold a password, and so is never printed.
    pub(crate) secret: bool,
    /// What it does, in one paragraph.
    pub(crate) doc: &'static str,
}

const WHAT: &str = "What is taken in";
const COUNTING: &str = "Counting";
const RABBITMQ: &str = "RabbitMQ";
const KAFKA: &str = "Kafka";
const INBOX: &str = "Inbox";
const ARCHIVE: &str = "Archive";
const STORES: &str = "Stores";
const HTTP: &str = "HTTP";
const LOGS: &str = "Logs";

/// Every setting, in the order of the reference.
pub(crate) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "PULSE_SOURCES",
        group: WHAT,
        default: Some("rabbitmq"),
        allowed: "a list of sources separated by commas, each of them rabbitmq, kafka or inbox, none twice",
        example: "",
        secret: false,
        doc: "Where the worker takes messages from. `kafka` is in builds with the feature of that name, as the image is. \
              `inbox` is what came over HTTP and waits beside the ledger; --standalone always reads it.",
    },
    Definition {
        name: "PULSE_FORMAT",
        group: WHAT,
        default: Some("pulse"),
        allowed: "pulse, cloudevents, a mapping (event, openmeter, payment, purchase, task or one in the folder mappings), \
                  or the path of a file that ends in .toml",
        example: "",
        secret: false,
        doc: "The format of the messages. `pulse` is the native one: a JSON object, an array of them, or one a line. \
              Messages that say themselves that they are CloudEvents 1.0, by their content type or their headers, are \
              read as such whatever stands here; `cloudevents` is for those whose content type does not say so. A mapping is for messages of another \
              shape: NAME is `mappings/NAME.toml` in the working directory, or else the one of this name that comes \
              with the program (docs/mappings.md).",
    },
    Definition {
        name: "PULSE_SHARDS",
        group: WHAT,
        default: Some("8"),
        allowed: "a whole number from 1 to 1024",
        example: "",
        secret: false,
        doc: "Into how many shards tenants are spread in Redis: each is counted by a lane of its own in the worker. \
              Fixed for the life of an accumulator, which refuses to run with another number. The embedded file has \
              one shard, whatever stands here.",
    },
    Definition {
        name: "PULSE_BATCH_SIZE",
        group: WHAT,
        default: Some("1000"),
        allowed: "a whole number from 1 to 4000",
        example: "",
        secret: false,
        doc: "The most pulses that are made durable in one step. More of them share the cost of one sync to disk; each \
              step holds Redis for about 2 µs a pulse.",
    },
    Definition {
        name: "PULSE_BATCH_LINGER",
        group: WHAT,
        default: Some("10ms"),
        allowed: "a duration from 0ms to 1s, such as 5ms",
        example: "",
        secret: false,
        doc: "How long a batch that is not full waits for more pulses. It is the delay that a single pulse sees; \
              batches of several hundred cost Redis a sixth less than batches of a hundred.",
    },
    Definition {
        name: "PULSE_MESSAGE_ITEMS_MAX",
        group: WHAT,
        default: Some("1000"),
        allowed: "a whole number from 1 to 100000",
        example: "",
        secret: false,
        doc: "The most pulses in one message. A message with more goes to the dead letters as a whole, with the reason \
              `too_many_items`.",
    },
    Definition {
        name: "PULSE_DRAIN_TIMEOUT",
        group: WHAT,
        default: Some("30s"),
        allowed: "a duration from 1s to 10m, such as 30s",
        example: "",
        secret: false,
        doc: "How long a stop (SIGTERM, Ctrl-C) may take to finish and settle what is in hand. What is not settled by \
              then comes again at the next start and is recognised.",
    },
    Definition {
        name: "PULSE_ANONYMOUS",
        group: COUNTING,
        default: Some("accept"),
        allowed: "accept or reject",
        example: "",
        secret: false,
        doc: "What happens to pulses from a queue that carry neither an `id` nor a message id. `accept` counts them at \
              least once, because a redelivered one cannot be recognised; `reject` sends them to the dead letters with \
              the reason `anonymous`.",
    },
    Definition {
        name: "PULSE_DEDUPE",
        group: COUNTING,
        default: None,
        allowed: "id, offset or both",
        example: "both",
        secret: false,
        doc: "What a pulse from Kafka is known by: its `id`, its place in the partition (`offset`, which costs no memory and \
              needs no id), or `both`, which is what happens where this is not set. With `id`, pulses without one count at \
              least once; with `offset`, the same pulse published twice counts twice. On a queue it is always the id. Change \
              it only after a stop that was clean.",
    },
    Definition {
        name: "PULSE_DEDUPE_WINDOW",
        group: COUNTING,
        default: Some("48h"),
        allowed: "a duration from 1h to 35d, such as 48h",
        example: "",
        secret: false,
        doc: "For how long at least a counted pulse is remembered, from the moment it was counted. A copy that comes \
              later than that is counted again. Costs about 30 bytes a pulse.",
    },
    Definition {
        name: "PULSE_AGE_MAX",
        group: COUNTING,
        default: None,
        allowed: "a duration from 1h to 36500d, such as 90d",
        example: "90d",
        secret: false,
        doc: "How old a pulse's own time may be. An older one goes to the dead letters with the reason `too_old`. Any \
              past is accepted where it is not set.",
    },
    Definition {
        name: "PULSE_AHEAD_MAX",
        group: COUNTING,
        default: Some("1h"),
        allowed: "a duration from 0s to 36500d, such as 1h",
        example: "",
        secret: false,
        doc: "How far ahead of the clock a pulse's own time may be. One further ahead goes to the dead letters with the \
              reason `too_far_ahead`.",
    },
    Definition {
        name: "FLUSH_SCHEDULE",
        group: COUNTING,
        default: Some("0 0 * * * *"),
        allowed: "a cron expression of six fields (second minute hour day month weekday), such as \"0 0 * * * *\"",
        example: "",
        secret: false,
        doc: "When the cron moves what was counted to the ledger, in UTC: by default at every full hour. A flush that \
              was missed is made up for at the start.",
    },
    Definition {
        name: "RABBITMQ_URL",
        group: RABBITMQ,
        default: None,
        allowed: "amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS",
        example: "amqp://guest:guest@127.0.0.1:5672/%2f",
        secret: true,
        doc: "The broker. Characters of the user, the password and the virtual host that mean something in a URL are \
              percent-encoded; the virtual host `/` is `%2f`.",
    },
    Definition {
        name: "RABBITMQ_QUEUE",
        group: RABBITMQ,
        default: Some("pulses"),
        allowed: "a name of 1 to 255 bytes",
        example: "",
        secret: false,
        doc: "The queue that pulses are taken from. It is declared where it does not exist.",
    },
    Definition {
        name: "RABBITMQ_QUEUE_TYPE",
        group: RABBITMQ,
        default: Some("quorum"),
        allowed: "quorum or classic",
        example: "",
        secret: false,
        doc: "The type that the queue is declared with. `quorum` is replicated, and faster here even on a single node; \
              `classic` is for brokers where the queue exists as one.",
    },
    Definition {
        name: "RABBITMQ_EXCHANGE",
        group: RABBITMQ,
        default: None,
        allowed: "a name of 1 to 255 bytes",
        example: "usage",
        secret: false,
        doc: "A topic exchange to bind the queue to; it is declared where it does not exist. Where it is not set, \
              pulses reach the queue by its name through the default exchange.",
    },
    Definition {
        name: "RABBITMQ_BINDING",
        group: RABBITMQ,
        default: Some("#"),
        allowed: "a routing key pattern of 1 to 255 bytes, such as #.event.*",
        example: "",
        secret: false,
        doc: "Which routing keys of RABBITMQ_EXCHANGE reach the queue. Means nothing where no exchange is set.",
    },
    Definition {
        name: "RABBITMQ_PREFETCH",
        group: RABBITMQ,
        default: Some("4000"),
        allowed: "a whole number from 1 to 65535",
        example: "",
        secret: false,
        doc: "The most messages that a worker holds without having settled them. They are spread over the shards, so below \
              4000 batches get small; less saves memory where messages are large. It counts messages, \
              PULSE_BATCH_SIZE counts pulses.",
    },
    Definition {
        name: "RABBITMQ_DEAD_LETTER_QUEUE",
        group: RABBITMQ,
        default: Some("pulses.dead"),
        allowed: "a name of 1 to 255 bytes, other than RABBITMQ_QUEUE",
        example: "",
        secret: false,
        doc: "The queue for what is refused: original bytes, with the reason in the headers. It is declared where it \
              does not exist.",
    },
    Definition {
        name: "KAFKA_BROKERS",
        group: KAFKA,
        default: None,
        allowed: "HOST:PORT, or several separated by commas",
        example: "127.0.0.1:9092",
        secret: false,
        doc: "The brokers to begin with; they name the others.",
    },
    Definition {
        name: "KAFKA_TOPIC",
        group: KAFKA,
        default: Some("pulses"),
        allowed: "the name of a topic: 1 to 249 letters, digits, dots, underscores and hyphens",
        example: "",
        secret: false,
        doc: "The topic that pulses are taken from. Order within a tenant holds where the producer keys by tenant.",
    },
    Definition {
        name: "KAFKA_GROUP",
        group: KAFKA,
        default: Some("pulse-ingestor"),
        allowed: "a name of 1 to 255 bytes",
        example: "",
        secret: false,
        doc: "The consumer group whose members, the workers, share the partitions. A new group reads the topic from its \
              beginning; what was counted by its place already is recognised.",
    },
    Definition {
        name: "KAFKA_DEAD_LETTER_TOPIC",
        group: KAFKA,
        default: Some("pulses.dead"),
        allowed: "the name of a topic other than KAFKA_TOPIC",
        example: "",
        secret: false,
        doc: "The topic for what is refused: original bytes and key, with the reason and the original place in the headers.",
    },
    Definition {
        name: "INBOX_POLL_INTERVAL",
        group: INBOX,
        default: Some("1s"),
        allowed: "a duration from 10ms to 1m, such as 1s",
        example: "",
        secret: false,
        doc: "The longest pause between two looks at an empty inbox. While there is work there is no pause, and what this \
              process stores itself is seen at once.",
    },
    Definition {
        name: "INBOX_LEASE",
        group: INBOX,
        default: Some("1m"),
        allowed: "a duration from 1s to 1h, such as 1m",
        example: "",
        secret: false,
        doc: "How long the events that a worker has are kept from others after it was last heard of. A worker that stops \
              gives them back at once; after a crash they wait for this long.",
    },
    Definition {
        name: "INBOX_ATTEMPTS_MAX",
        group: INBOX,
        default: Some("10"),
        allowed: "a whole number from 4 to 1000",
        example: "",
        secret: false,
        doc: "After so many claims that ended without an answer, because the worker crashed, an event has failed. It waits \
              longer before each, and from the fourth on it is claimed alone. `app webhooks retry` sends it round again.",
    },
    Definition {
        name: "INBOX_RETENTION",
        group: INBOX,
        default: Some("7d"),
        allowed: "a duration from 1h to 36500d, such as 7d",
        example: "",
        secret: false,
        doc: "How long events are kept after they were counted. For so long a repetition is recognised as the same event \
              by its event id; failed ones are kept until a person has dealt with them. The cron removes them hourly.",
    },
    Definition {
        name: "CLICKHOUSE_URL",
        group: ARCHIVE,
        default: None,
        allowed: "http://USER:PASSWORD@HOST:PORT/DATABASE, or https:// for TLS",
        example: "http://pulse:pulse@127.0.0.1:8123/pulse",
        secret: true,
        doc: "Where `app --archive` keeps every raw event: the HTTP interface of ClickHouse. The database is made where it does not \
              exist, and is `default` where none is named (docs/archive.md).",
    },
    Definition {
        name: "ARCHIVE_QUEUE",
        group: ARCHIVE,
        default: None,
        allowed: "a name of 1 to 255 bytes, other than RABBITMQ_QUEUE and RABBITMQ_DEAD_LETTER_QUEUE",
        example: "pulses.archive",
        secret: false,
        doc: "The queue that the archive takes messages from, so that the worker has its own copy. It is declared and bound like \
              RABBITMQ_QUEUE. Where it is not set, it is RABBITMQ_QUEUE with `.archive` behind, which RABBITMQ_EXCHANGE must feed.",
    },
    Definition {
        name: "ARCHIVE_GROUP",
        group: ARCHIVE,
        default: None,
        allowed: "a name of 1 to 255 bytes, other than KAFKA_GROUP",
        example: "pulse-ingestor-archive",
        secret: false,
        doc: "The consumer group of the archive. Where it is not set, it is KAFKA_GROUP with `-archive` behind.",
    },
    Definition {
        name: "ARCHIVE_BATCH_SIZE",
        group: ARCHIVE,
        default: Some("4000"),
        allowed: "a whole number from 1 to 32000",
        example: "",
        secret: false,
        doc: "The most events in one insert. ClickHouse likes few and large ones. From RabbitMQ twice as many messages are taken \
              ahead.",
    },
    Definition {
        name: "ARCHIVE_BATCH_LINGER",
        group: ARCHIVE,
        default: Some("1s"),
        allowed: "a duration from 0ms to 1m, such as 1s",
        example: "",
        secret: false,
        doc: "How long a batch that is not full waits for more events.",
    },
    Definition {
        name: "REDIS_URL",
        group: STORES,
        default: None,
        allowed: "redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS",
        example: "redis://127.0.0.1:6379",
        secret: true,
        doc: "The Redis that counts. Where it is not set, the embedded file counts.",
    },
    Definition {
        name: "REDIS_DURABILITY",
        group: STORES,
        default: Some("strict"),
        allowed: "strict or at-risk",
        example: "",
        secret: false,
        doc: "`strict` refuses a Redis that could lose what it has acknowledged, or whose settings cannot be read. \
              `at-risk` runs on any, and says so in the log: it is your word that the loss is bearable, or that a \
              managed Redis is safe.",
    },
    Definition {
        name: "LEDGER_URL",
        group: STORES,
        default: None,
        allowed: "postgres://USER:PASSWORD@HOST:PORT/DATABASE, sqlite://FILE or json:DIR",
        example: "postgres://pulse:pulse@127.0.0.1:5432/pulse",
        secret: true,
        doc: "Where the hourly totals are kept. `sqlite://FILE` is an embedded file. `json:DIR` is a folder with a \
              file for each product, `created.json` = `{\"user_a\":3}`: products whose names cannot name a file are \
              refused as `invalid_field`. Where it is not set, it is PULSE_DB. `DATABASE_URL` is accepted for it.",
    },
    Definition {
        name: "PULSE_DB",
        group: STORES,
        default: Some("pulse.db"),
        allowed: "the path of a file",
        example: "",
        secret: false,
        doc: "The embedded file (SQLite): it counts where no REDIS_URL is set, and keeps the totals where no LEDGER_URL \
              is set. Flag: --db.",
    },
    Definition {
        name: "HTTP_ADDR",
        group: HTTP,
        default: Some("127.0.0.1:8080"),
        allowed: "an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080",
        example: "",
        secret: false,
        doc: "Where the API listens. It speaks plain HTTP: put a proxy with TLS in front of it where others reach it.",
    },
    Definition {
        name: "METRICS_ADDR",
        group: HTTP,
        default: None,
        allowed: "an address and a port, such as 127.0.0.1:9464 or 0.0.0.0:9464",
        example: "127.0.0.1:9464",
        secret: false,
        doc: "Where `/metrics` is answered without a login, for modes without the API, which has it too (docs/telemetry.md).",
    },
    Definition {
        name: "API_USERNAME",
        group: HTTP,
        default: Some("admin"),
        allowed: "a name",
        example: "",
        secret: false,
        doc: "Who may log in.",
    },
    Definition {
        name: "API_PASSWORD",
        group: HTTP,
        default: None,
        allowed: "a PHC string of argon2 ($argon2id$...), or the password itself",
        example: "a-password-for-development",
        secret: true,
        doc: "The password, hashed; not hashed only for development. --standalone makes one at its first start where it \
              is not set, and prints it once.",
    },
    Definition {
        name: "JWT_SECRET",
        group: HTTP,
        default: None,
        allowed: "at least 32 bytes, best of them random",
        example: "replace-it-by-64-random-hexadecimal-digits",
        secret: true,
        doc: "Signs the tokens of logins. All processes with one ledger have the same. --standalone makes one where it is \
              not set.",
    },
    Definition {
        name: "WEBHOOK_SECRET",
        group: HTTP,
        default: None,
        allowed: "a text that the sender of webhooks has too",
        example: "a-long-random-text",
        secret: true,
        doc: "With it the sender signs the body of a webhook (HMAC-SHA256, X-Webhook-Signature). Where it is not set, \
              webhooks are taken from anybody.",
    },
    Definition {
        name: "HTTP_BODY_MAX",
        group: HTTP,
        default: Some("4194304"),
        allowed: "a number of bytes from 1024 to 1073741824",
        example: "",
        secret: false,
        doc: "The most bytes of a body, unpacked.",
    },
    Definition {
        name: "HTTP_HEADERS_MAX",
        group: HTTP,
        default: Some("16384"),
        allowed: "a number of bytes from 8192 to 1048576",
        example: "",
        secret: false,
        doc: "The most bytes of the request line and all headers together.",
    },
    Definition {
        name: "HTTP_TIMEOUT",
        group: HTTP,
        default: Some("30s"),
        allowed: "a duration from 1s to 10m, such as 30s",
        example: "",
        secret: false,
        doc: "How long a request may take, its body included.",
    },
    Definition {
        name: "HTTP_CONNECTIONS_MAX",
        group: HTTP,
        default: Some("1024"),
        allowed: "a whole number from 1 to 100000",
        example: "",
        secret: false,
        doc: "The most connections; more wait to be accepted.",
    },
    Definition {
        name: "HTTP_INGESTS_MAX",
        group: HTTP,
        default: Some("128"),
        allowed: "a whole number from 1 to 10000",
        example: "",
        secret: false,
        doc: "The most bodies of pulses in hand at once; more are answered with 503 and Retry-After. Times HTTP_BODY_MAX, \
              it bounds their memory.",
    },
    Definition {
        name: "LOG_LEVEL",
        group: LOGS,
        default: Some("info"),
        allowed: "off, error, warn, info, debug or trace, or a list such as info,infrastructure=debug",
        example: "",
        secret: false,
        doc: "What is logged, to standard error. Flag: --log-level.",
    },
    Definition {
        name: "LOG_FORMAT",
        group: LOGS,
        default: Some("pretty"),
        allowed: "pretty or json",
        example: "",
        secret: false,
        doc: "`pretty` is for people, `json` one object a line. Flag: --log-format.",
    },
];

/// The name that other programs give to `LEDGER_URL`.
pub(crate) const LEDGER_ALIAS: &str = "DATABASE_URL";

/// Names that belong to us but have no definition here: the alias, and what other parts of the product read.
const RESERVED: &[&str] = &[LEDGER_ALIAS, "METRICS_ADDR"];

/// Every name that is not a typo.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|definition| definition.name).chain(RESERVED.iter().copied())
}

/// The definition of a setting that the program itself asks for.
///
/// # Panics
/// Where the table has no such setting: a mistake in the program, which any start shows.
pub(crate) fn definition(name: &str) -> &'static Definition {
    DEFINITIONS
        .iter()
        .find(|definition| definition.name == name)
        .unwrap_or_else(|| panic!("{name} is missing in the table of settings"))
}
