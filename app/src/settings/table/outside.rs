//! What is seen of the program from outside.

use super::Definition;

pub(super) const HTTP: &[Definition] = &[
    Definition {
        name: "HTTP_ADDR",
        default: Some("127.0.0.1:8080"),
        allowed: "an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080",
        example: "",
        secret: false,
        doc: "Where the API listens. It speaks plain HTTP: put a proxy with TLS in front of it where others reach it.",
    },
    Definition {
        name: "METRICS_ADDR",
        default: None,
        allowed: "an address and a port, such as 127.0.0.1:9464 or 0.0.0.0:9464",
        example: "127.0.0.1:9464",
        secret: false,
        doc: "Where `/metrics`, `/healthz` and `/readyz` are answered without a login, for modes without the API, which has \
              them too (docs/telemetry.md).",
    },
    Definition {
        name: "API_USERNAME",
        default: Some("admin"),
        allowed: "a name",
        example: "",
        secret: false,
        doc: "Who may log in.",
    },
    Definition {
        name: "API_PASSWORD",
        default: None,
        allowed: "a PHC string of argon2 ($argon2id$...), or the password itself",
        example: "a-password-for-development",
        secret: true,
        doc: "The password, hashed; not hashed only for development. --standalone makes one at its first start where it \
              is not set, and prints it once.",
    },
    Definition {
        name: "JWT_SECRET",
        default: None,
        allowed: "at least 32 bytes, best of them random",
        example: "replace-it-by-64-random-hexadecimal-digits",
        secret: true,
        doc: "Signs the tokens of logins. All processes with one ledger have the same. --standalone makes one where it is \
              not set.",
    },
    Definition {
        name: "WEBHOOK_SECRET",
        default: None,
        allowed: "a text that the sender of webhooks has too",
        example: "a-long-random-text",
        secret: true,
        doc: "With it the sender signs the body of a webhook (HMAC-SHA256, X-Webhook-Signature). Where it is not set, \
              webhooks are taken from anybody.",
    },
    Definition {
        name: "HTTP_BODY_MAX",
        default: Some("4194304"),
        allowed: "a number of bytes from 1024 to 1073741824",
        example: "",
        secret: false,
        doc: "The most bytes of a body, unpacked.",
    },
    Definition {
        name: "HTTP_HEADERS_MAX",
        default: Some("16384"),
        allowed: "a number of bytes from 8192 to 1048576",
        example: "",
        secret: false,
        doc: "The most bytes of the request line and all headers together.",
    },
    Definition {
        name: "HTTP_TIMEOUT",
        default: Some("30s"),
        allowed: "a duration from 1s to 10m, such as 30s",
        example: "",
        secret: false,
        doc: "How long a request may take, its body included.",
    },
    Definition {
        name: "HTTP_CONNECTIONS_MAX",
        default: Some("1024"),
        allowed: "a whole number from 1 to 100000",
        example: "",
        secret: false,
        doc: "The most connections; more wait to be accepted.",
    },
    Definition {
        name: "HTTP_INGESTS_MAX",
        default: Some("128"),
        allowed: "a whole number from 1 to 10000",
        example: "",
        secret: false,
        doc: "The most bodies of pulses in hand at once; more are answered with 503 and Retry-After. Each takes \
              up to five times its bytes, HTTP_BODY_MAX at the most.",
    },
];

pub(super) const LOGS: &[Definition] = &[
    Definition {
        name: "LOG_LEVEL",
        default: Some("info"),
        allowed: "off, error, warn, info, debug or trace, or a list such as info,infrastructure=debug",
        example: "",
        secret: false,
        doc: "What is logged, to standard error. Flag: --log-level.",
    },
    Definition {
        name: "LOG_FORMAT",
        default: Some("pretty"),
        allowed: "pretty or json",
        example: "",
        secret: false,
        doc: "`pretty` is for people, `json` one object a line. Flag: --log-format.",
    },
];
