//! What is taken in, and how it is counted.

use super::Definition;

pub(super) const WHAT: &[Definition] = &[
    Definition {
        name: "PULSE_SOURCES",
        default: Some("rabbitmq"),
        allowed: "a list of sources separated by commas, each of them rabbitmq, kafka or inbox, none twice",
        example: "",
        secret: false,
        doc: "Where the worker takes messages from. `kafka` is in builds with the feature of that name, as the image is. \
              `inbox` is what came over HTTP and waits beside the ledger; --standalone always reads it.",
    },
    Definition {
        name: "PULSE_FORMAT",
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
        default: Some("1000"),
        allowed: "a whole number from 1 to 4000",
        example: "",
        secret: false,
        doc: "The most pulses that are made durable in one step. More of them share the cost of one sync to disk; each \
              step holds Redis for about 2 µs a pulse.",
    },
    Definition {
        name: "PULSE_BATCH_LINGER",
        default: Some("10ms"),
        allowed: "a duration from 0ms to 1s, such as 5ms",
        example: "",
        secret: false,
        doc: "How long a batch that is not full waits for more pulses. It is the delay that a single pulse sees; \
              batches of several hundred cost Redis a sixth less than batches of a hundred.",
    },
    Definition {
        name: "PULSE_MESSAGE_ITEMS_MAX",
        default: Some("1000"),
        allowed: "a whole number from 1 to 100000",
        example: "",
        secret: false,
        doc: "The most pulses in one message. A message with more goes to the dead letters as a whole, with the reason \
              `too_many_items`.",
    },
    Definition {
        name: "PULSE_DRAIN_TIMEOUT",
        default: Some("30s"),
        allowed: "a duration from 1s to 10m, such as 30s",
        example: "",
        secret: false,
        doc: "How long a stop (SIGTERM, Ctrl-C) may take to finish and settle what is in hand. What is not settled by \
              then comes again at the next start and is recognised.",
    },
];

pub(super) const COUNTING: &[Definition] = &[
    Definition {
        name: "PULSE_ANONYMOUS",
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
        default: None,
        allowed: "id, offset or both",
        example: "both",
        secret: false,
        doc: "What a pulse from Kafka or a stream is known by: its `id`, its place in the partition (`offset`, which costs no memory and \
              needs no id), or `both`, which is what happens where this is not set. With `id`, pulses without one count at \
              least once; with `offset`, the same pulse published twice counts twice. On a queue it is always the id. Change \
              it only after a stop that was clean.",
    },
    Definition {
        name: "PULSE_DEDUPE_WINDOW",
        default: Some("48h"),
        allowed: "a duration from 1h to 35d, such as 48h",
        example: "",
        secret: false,
        doc: "For how long at least a counted pulse is remembered, from the moment it was counted. A copy that comes \
              later than that is counted again. In Redis it costs about 85 bytes a pulse (docs/scaling.md).",
    },
    Definition {
        name: "PULSE_AGE_MAX",
        default: None,
        allowed: "a duration from 1h to 36500d, such as 90d",
        example: "90d",
        secret: false,
        doc: "How old a pulse's own time may be. An older one goes to the dead letters with the reason `too_old`. Any \
              past is accepted where it is not set.",
    },
    Definition {
        name: "PULSE_AHEAD_MAX",
        default: Some("1h"),
        allowed: "a duration from 0s to 36500d, such as 1h",
        example: "",
        secret: false,
        doc: "How far ahead of the clock a pulse's own time may be. One further ahead goes to the dead letters with the \
              reason `too_far_ahead`.",
    },
    Definition {
        name: "FLUSH_SCHEDULE",
        default: Some("0 0 * * * *"),
        allowed: "a cron expression of six fields (second minute hour day month weekday), such as \"0 0 * * * *\"",
        example: "",
        secret: false,
        doc: "When the cron moves what was counted to the ledger, in UTC: by default at every full hour. A flush that \
              was missed is made up for at the start.",
    },
    Definition {
        name: "AUDIT_SCHEDULE",
        default: Some("0 * * * * *"),
        allowed: "a cron expression of six fields, or off",
        example: "",
        secret: false,
        doc: "When the cron proves that the books balance, in UTC: by default every minute. It reads all hourly totals and \
              all that is pending; after each time it rests for nine times as long as that took. A break is logged as an \
              error and told in /metrics (`pulse_books_hold`).",
    },
];
