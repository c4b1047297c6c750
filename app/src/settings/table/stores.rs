//! Where counts and events are kept.

use super::Definition;

pub(super) const ARCHIVE: &[Definition] = &[
    Definition {
        name: "CLICKHOUSE_URL",
        default: None,
        allowed: "http://USER:PASSWORD@HOST:PORT/DATABASE, or https:// for TLS",
        example: "http://pulse:pulse@127.0.0.1:8123/pulse",
        secret: true,
        doc: "Where `app --archive` keeps every raw event: the HTTP interface of ClickHouse. The database is made where it does not \
              exist, and is `default` where none is named (docs/archive.md).",
    },
    Definition {
        name: "ARCHIVE_QUEUE",
        default: None,
        allowed: "a name of 1 to 255 bytes, other than RABBITMQ_QUEUE and RABBITMQ_DEAD_LETTER_QUEUE",
        example: "pulses.archive",
        secret: false,
        doc: "The queue that the archive takes messages from, so that the worker has its own copy. It is declared and bound like \
              RABBITMQ_QUEUE. Where it is not set, it is RABBITMQ_QUEUE with `.archive` behind, which RABBITMQ_EXCHANGE must feed.",
    },
    Definition {
        name: "ARCHIVE_GROUP",
        default: None,
        allowed: "a name of 1 to 255 bytes, other than KAFKA_GROUP",
        example: "pulse-ingestor-archive",
        secret: false,
        doc: "The consumer group of the archive. Where it is not set, it is KAFKA_GROUP with `-archive` behind.",
    },
    Definition {
        name: "ARCHIVE_BATCH_SIZE",
        default: Some("4000"),
        allowed: "a whole number from 1 to 32000",
        example: "",
        secret: false,
        doc: "The most events in one insert. ClickHouse likes few and large ones. From RabbitMQ twice as many messages are taken \
              ahead, and held in memory while ClickHouse is away: take less where messages are large.",
    },
    Definition {
        name: "ARCHIVE_BATCH_LINGER",
        default: Some("1s"),
        allowed: "a duration from 0ms to 1m, such as 1s",
        example: "",
        secret: false,
        doc: "How long a batch that is not full waits for more events.",
    },
];

pub(super) const STORES: &[Definition] = &[
    Definition {
        name: "REDIS_URL",
        default: None,
        allowed: "redis://USER:PASSWORD@HOST:PORT/DB, or rediss:// for TLS",
        example: "redis://127.0.0.1:6379",
        secret: true,
        doc: "The Redis that counts, or any server of a Redis Cluster: the others are found by it (docs/scaling.md). Where \
              it is not set, the embedded file counts.",
    },
    Definition {
        name: "REDIS_DURABILITY",
        default: Some("strict"),
        allowed: "strict or at-risk",
        example: "",
        secret: false,
        doc: "`strict` refuses a Redis that could lose what it has acknowledged, or whose settings cannot be read. \
              `at-risk` runs on any, and says so in the log: it is your word that the loss is bearable, or that a \
              managed Redis is safe.",
    },
    Definition {
        name: "REDIS_IDENTITIES",
        default: Some("fast"),
        allowed: "fast or compact",
        example: "",
        secret: false,
        doc: "How Redis keeps the identities that it remembers. `compact` takes a third of the memory for about three \
              times the work of Redis: for long or busy dedupe windows (docs/scaling.md). A change takes hold where the \
              next bucket is opened, by a flush, within PULSE_DEDUPE_WINDOW; any program counts on both.",
    },
    Definition {
        name: "LEDGER_URL",
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
        default: Some("pulse.db"),
        allowed: "the path of a file",
        example: "",
        secret: false,
        doc: "The embedded file (SQLite): it counts where no REDIS_URL is set, and keeps the totals where no LEDGER_URL \
              is set. Flag: --db.",
    },
    Definition {
        name: "DEAD_LETTER_RETENTION",
        default: Some("30d"),
        allowed: "a duration from 1h to 36500d, such as 30d",
        example: "",
        secret: false,
        doc: "How long the embedded file keeps dead letters; the cron, --standalone and `app flush` remove older ones. On RabbitMQ a \
              policy and on Kafka the topic's own setting does that (docs/dead-letters.md).",
    },
];
