//! Where messages come from.

use super::Definition;

pub(super) const RABBITMQ: &[Definition] = &[
    Definition {
        name: "RABBITMQ_URL",
        default: None,
        allowed: "amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS",
        example: "amqp://guest:guest@127.0.0.1:5672/%2f",
        secret: true,
        doc: "The broker. Characters of the user, the password and the virtual host that mean something in a URL are \
              percent-encoded; the virtual host `/` is `%2f`.",
    },
    Definition {
        name: "RABBITMQ_QUEUE",
        default: Some("pulses"),
        allowed: "a name of 1 to 255 bytes",
        example: "",
        secret: false,
        doc: "The queue that pulses are taken from. It is declared where it does not exist.",
    },
    Definition {
        name: "RABBITMQ_QUEUE_TYPE",
        default: Some("quorum"),
        allowed: "quorum, classic or stream",
        example: "",
        secret: false,
        doc: "The type that the queue is declared with. `quorum` is replicated, and faster here even on a single node; \
              `classic` is for brokers where the queue exists as one. `stream` is a log: every pulse is known by its offset, \
              with or without an id, and one worker at a time reads it while the others wait. Dead letters then go to a \
              quorum queue. Without a retention of yours it keeps everything.",
    },
    Definition {
        name: "RABBITMQ_EXCHANGE",
        default: None,
        allowed: "a name of 1 to 255 bytes",
        example: "usage",
        secret: false,
        doc: "A topic exchange to bind the queue to; it is declared where it does not exist. Where it is not set, \
              pulses reach the queue by its name through the default exchange.",
    },
    Definition {
        name: "RABBITMQ_BINDING",
        default: Some("#"),
        allowed: "a routing key pattern of 1 to 255 bytes, such as #.event.*",
        example: "",
        secret: false,
        doc: "Which routing keys of RABBITMQ_EXCHANGE reach the queue. Means nothing where no exchange is set.",
    },
    Definition {
        name: "RABBITMQ_PREFETCH",
        default: Some("4000"),
        allowed: "a whole number from 1 to 65535",
        example: "",
        secret: false,
        doc: "The most messages that a worker holds without having settled them; of a stream, without having taken them. They are spread over the shards, so below \
              4000 batches get small; less saves memory where messages are large. It counts messages, \
              PULSE_BATCH_SIZE counts pulses.",
    },
    Definition {
        name: "RABBITMQ_DEAD_LETTER_QUEUE",
        default: Some("pulses.dead"),
        allowed: "a name of 1 to 255 bytes, other than RABBITMQ_QUEUE",
        example: "",
        secret: false,
        doc: "The queue for what is refused: original bytes, with the reason in the headers. It is declared where it \
              does not exist.",
    },
];

pub(super) const KAFKA: &[Definition] = &[
    Definition {
        name: "KAFKA_BROKERS",
        default: None,
        allowed: "HOST:PORT, or several separated by commas",
        example: "127.0.0.1:9092",
        secret: false,
        doc: "The brokers to begin with; they name the others.",
    },
    Definition {
        name: "KAFKA_TOPIC",
        default: Some("pulses"),
        allowed: "the name of a topic: 1 to 249 letters, digits, dots, underscores and hyphens",
        example: "",
        secret: false,
        doc: "The topic that pulses are taken from. Order within a tenant holds where the producer keys by tenant.",
    },
    Definition {
        name: "KAFKA_GROUP",
        default: Some("pulse-ingestor"),
        allowed: "a name of 1 to 255 bytes",
        example: "",
        secret: false,
        doc: "The consumer group whose members, the workers, share the partitions. A new group reads the topic from its \
              beginning; what was counted by its place already is recognised.",
    },
    Definition {
        name: "KAFKA_DEAD_LETTER_TOPIC",
        default: Some("pulses.dead"),
        allowed: "the name of a topic other than KAFKA_TOPIC",
        example: "",
        secret: false,
        doc: "The topic for what is refused: original bytes and key, with the reason and the original place in the headers.",
    },
];

pub(super) const INBOX: &[Definition] = &[
    Definition {
        name: "INBOX_POLL_INTERVAL",
        default: Some("1s"),
        allowed: "a duration from 10ms to 1m, such as 1s",
        example: "",
        secret: false,
        doc: "The longest pause between two looks at an empty inbox. While there is work there is no pause, and what this \
              process stores itself is seen at once.",
    },
    Definition {
        name: "INBOX_LEASE",
        default: Some("1m"),
        allowed: "a duration from 1s to 1h, such as 1m",
        example: "",
        secret: false,
        doc: "How long the events that a worker has are kept from others after it was last heard of. A worker that stops \
              gives them back at once; after a crash they wait for this long.",
    },
    Definition {
        name: "INBOX_ATTEMPTS_MAX",
        default: Some("10"),
        allowed: "a whole number from 4 to 1000",
        example: "",
        secret: false,
        doc: "After so many claims that ended without an answer, because the worker crashed, an event has failed. It waits \
              longer before each, and from the fourth on it is claimed alone. `app webhooks retry` sends it round again.",
    },
    Definition {
        name: "INBOX_RETENTION",
        default: Some("7d"),
        allowed: "a duration from 1h to 36500d, such as 7d",
        example: "",
        secret: false,
        doc: "How long events are kept after they were counted. For so long a repetition is recognised as the same event \
              by its event id; failed ones are kept until a person has dealt with them. The cron removes them hourly, and so does `app flush`.",
    },
];
