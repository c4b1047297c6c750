//! The command line.
#![expect(clippy::doc_markdown, reason = "these doc comments are the help text, printed as they are")]

mod letters;
mod populate;

pub(crate) use letters::{
    DeadLetters, LetterChoice, LetterPlaceName, LetterShow, LettersChosen, LettersDiscard, LettersList,
    LettersReplay,
};
pub(crate) use populate::{Format, Populate, Target};

use crate::hours::HourBound;
use application::ports::{InboxStatus, Scope};
use clap::{
    Args, Parser, Subcommand,
    builder::{NonEmptyStringValueParser, PossibleValuesParser},
};
use domain::{HourWindow, ProductSku, TenantId, TextError, UsageUnit, check_text};
use std::{path::PathBuf, time::Duration};

/// Usage metering that adds up: counts every pulse exactly once and keeps hourly totals.
///
/// Give modes to run (they combine in one process), or one command. Settings come from the environment and from .env
/// in the working directory; `app settings` explains each.
#[derive(Debug, Parser)]
#[command(name = "app", version, about, long_about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) modes: Modes,

    #[command(flatten)]
    pub(crate) overrides: Overrides,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  app --standalone                           everything on one embedded file, no server needed
  app --worker                               count from RabbitMQ into Redis
  app --cron                                 move what was counted to PostgreSQL, hourly
  app --archive                              keep every raw event in ClickHouse
  app --api                                  take pulses and answer questions over HTTP
  app --worker --cron --api                  all of them in one process
  app --worker --until-idle 5s               take what is there, flush it, stop
  app --worker --print-pulses | jq .tenant   show what is counted, by which lane, in which order
  app ingest examples/flights-day.ndjson     count a file
  app usage --tenant UA                      show the totals of a tenant

Results go to standard output, logs to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
SIGTERM and Ctrl-C finish what is in hand; a second one gives up.";

/// What runs until it is stopped.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Modes")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, and they combine")]
pub(crate) struct Modes {
    /// Take messages from the sources and count them.
    #[arg(long, group = "taking")]
    pub(crate) worker: bool,

    /// Move what was counted to the ledger, on FLUSH_SCHEDULE and once at the start.
    #[arg(long)]
    pub(crate) cron: bool,

    /// Keep every raw event in ClickHouse, from a queue or a group of its own; runs in a process of its own.
    #[arg(long, group = "taking", conflicts_with_all = ["cron", "api"])]
    pub(crate) archive: bool,

    /// Answer over HTTP on HTTP_ADDR: pulses in, usage out, webhooks, and their documentation at /docs.
    #[arg(long)]
    pub(crate) api: bool,

    /// Worker, cron and API on one embedded file: no server, no configuration. Without API with --until-idle.
    #[arg(long, group = "taking", conflicts_with = "cron")]
    pub(crate) standalone: bool,

    /// Stop by itself this long after the last message, with everything settled and flushed [example: 5s].
    #[arg(long, value_name = "TIME", requires = "taking", value_parser = humantime::parse_duration)]
    pub(crate) until_idle: Option<Duration>,

    /// Print each pulse that is counted, one JSON object a line, in the order in which its lane counted it: lane, tenant,
    /// id, partition, offset. The program stops where its output is closed, or where nobody reads it for 30 s.
    #[arg(long, requires = "taking", conflicts_with = "archive")]
    pub(crate) print_pulses: bool,
}

impl Modes {
    /// Whether any mode was asked for.
    pub(crate) const fn any(self) -> bool {
        self.worker || self.cron || self.archive || self.api || self.standalone
    }
}

/// Flags that stand for a setting.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Overrides {
    /// The embedded file [setting: PULSE_DB, default: pulse.db].
    #[arg(long, global = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    db: Option<String>,

    /// What is logged: error, warn, info, debug, trace, or a list [setting: LOG_LEVEL].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = NonEmptyStringValueParser::new())]
    log_level: Option<String>,

    /// How it is logged: pretty or json [setting: LOG_FORMAT].
    #[arg(long, global = true, value_name = "FORMAT", value_parser = NonEmptyStringValueParser::new())]
    log_format: Option<String>,
}

impl Overrides {
    /// The settings that were given, by their names.
    pub(crate) fn into_settings(self) -> impl Iterator<Item = (&'static str, String)> {
        [("PULSE_DB", self.db), ("LOG_LEVEL", self.log_level), ("LOG_FORMAT", self.log_format)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

/// What runs and ends.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take in NDJSON: one pulse, or an array of pulses, a line.
    #[command(long_about = INGEST, after_help = "Examples:
  app ingest january.ndjson february.ndjson.gz
  zcat february.ndjson.gz | app ingest -")]
    Ingest(Ingest),
    /// Print the hourly totals, billed and not yet flushed ones told apart.
    #[command(after_help = "Examples:
  app usage --tenant UA --from 2013-01-01T00:00:00Z --to 2013-02-01T00:00:00Z
  app usage --billed --csv > billed.csv
  app usage --json | jq 'select(.status == \"pending\")'")]
    Usage(Usage),
    /// Move everything that was counted to the ledger once, and return when it is there.
    #[command(after_help = "Example:
  app flush && app usage --billed")]
    Flush,
    /// Prove that the books balance, while everything works on.
    #[command(long_about = AUDIT, after_help = "Examples:
  app audit
  app audit --json | jq '.checks[] | select(.verdict == \"broken\")'")]
    Audit(Audit),
    /// Show what is missing after the storage of Redis was lost or rolled back, and go on.
    #[command(long_about = RECOVER, after_help = "Examples:
  app recover
  app recover --continue-with-loss 3f2a91bc")]
    Recover(Recover),
    /// Say what became of one pulse: counted, refused and why, or unknown.
    #[command(long_about = EXPLAIN, after_help = "Examples:
  app explain 6f1c0d5e --tenant tenant_xpto
  app explain A234-1234 --tenant cust-7 --source https://shop.example/orders --json")]
    Explain(Explain),
    /// Create or upgrade the tables of the ledger, and of the archive where one is set, and return. The modes do it at their start too.
    #[command(after_help = "Example:
  LEDGER_URL=postgres://pulse:pulse@127.0.0.1/pulse app migrate")]
    Migrate,
    /// Publish made-up pulses or webhooks, or the lines of a file, as load for tests and demonstrations.
    #[command(after_help = "Examples:
  app populate --to rabbitmq --total-messages 1000000 --workers-number 2 --buffer-size 1000
  app populate --to rabbitmq --total-messages 10000 --duplicates 10 --seed 7 --count-out expected.csv
  app populate --to rabbitmq --from january.ndjson.gz
  app populate --to webhook --total-messages 5000 --buffer-size 500 --duplicates 10 --count-out expected.csv
  RABBITMQ_EXCHANGE=users app populate --to rabbitmq --format event --duplicates 10 --count-out expected.json
  KAFKA_BROKERS=127.0.0.1:9092 app populate --to kafka --format purchase --count-out expected.csv")]
    Populate(Populate),
    /// Make, list and revoke the keys by which services call the HTTP API.
    #[command(subcommand)]
    Keys(Keys),
    /// List what came over HTTP, send failed events round again, or discard them.
    #[command(subcommand)]
    Webhooks(Webhooks),
    /// List what was refused, send it back to where it came from, or discard it.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// What messages of other shapes become.
    #[command(subcommand)]
    Mappings(Mappings),
    /// Print the reference of all settings as Markdown.
    #[command(after_help = "Example:
  app settings --env-example > .env")]
    Settings(SettingsReference),
    /// Say whether another process of this program does its work, for the health check of a container.
    #[command(long_about = HEALTH, after_help = "Example:
  docker compose exec worker app health")]
    Health(Health),
}

const EXPLAIN: &str = "\
Say what became of one pulse: counted, refused and why, or unknown; with an archive also the event itself. An id is \
known for PULSE_DEDUPE_WINDOW after it was counted. It is looked for as the id of a pulse, as that of its message, as \
that of a CloudEvent where --source is given, and as that of a dead letter.";

/// Arguments of `app explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The id of the pulse, of its message, of its event, or of its dead letter.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) id: String,

    /// Whose pulse it is: ids are kept apart by tenant. Without it every tenant of the books is asked for.
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    pub(crate) tenant: Option<TenantId>,

    /// The source of the CloudEvent.
    #[arg(long)]
    pub(crate) source: Option<String>,

    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const AUDIT: &str = "\
Prove that the books balance, while everything works on; no count is touched. Each check compares figures that different \
steps have written: of one moment for each shard, and of one snapshot of the ledger after that. What is broken is named.

The exit code is 0 where everything holds, 1 where a check is broken, and 2 where it cannot be told, because a store is \
away.";

/// Arguments of `app audit`.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

const RECOVER: &str = "\
Show what is missing after the storage of Redis was lost or rolled back: which shards, since when, what is rebuilt exactly \
by reading logs again, and what cannot be. Nothing is changed until the word that stands for this loss is given; what is \
done then is recorded in the ledger, step by step, and a run that was cut off is finished by repeating it.

The exit code is 0 where nothing is missing, and 1 where something is.";

/// Arguments of `app recover`.
#[derive(Args, Debug)]
pub(crate) struct Recover {
    /// Accept what is missing and go on: the word that `app recover` shows, which stands for this loss and no other.
    #[arg(long, value_name = "WORD", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) continue_with_loss: Option<String>,

    /// One JSON object instead of text.
    #[arg(long, conflicts_with = "continue_with_loss")]
    pub(crate) json: bool,
}

const HEALTH: &str = "\
Say whether another process of this program does its work, for the health check of a container: it runs, is not \
stopped, and holds its connections to RabbitMQ (a worker or an archive) and Redis (a worker or a cron) as the settings name them. \
PostgreSQL is left out: counting goes on without it.

The exit code is 0 when it is healthy and 1 otherwise. Linux only.";

const INGEST: &str = "\
Take in NDJSON: one pulse, or an array of pulses, a line. Gzip is recognised by itself.

With RABBITMQ_URL set, each good line is published and confirmed. Otherwise it is counted in the embedded file, and \
durable when the program returns.

It is safe to kill and to repeat: a line that carries no id is known by the file it stands in and everything before \
it. So the same file is counted once, a file that has grown adds its new lines, and equal lines of two files are two \
pulses. Lines that cannot be read are listed with their number and the reason, and do not stop the rest; the exit code \
is 0 when every line was dealt with, listed ones included.";

/// Arguments of `app ingest`.
#[derive(Args, Debug)]
pub(crate) struct Ingest {
    /// The files to read; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The name by which lines of standard input are known when they carry no id.
    #[arg(long, value_name = "NAME", default_value = "-", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stdin_name: String,
}

/// Arguments of `app usage`.
#[derive(Args, Debug)]
pub(crate) struct Usage {
    /// One JSON object a line; amounts are strings, so that no reader rounds them.
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,

    /// Comma-separated values with a header.
    #[arg(long)]
    pub(crate) csv: bool,

    /// Only what the ledger holds, without what is not yet flushed.
    #[arg(long)]
    pub(crate) billed: bool,

    /// Only this tenant.
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    pub(crate) tenant: Option<TenantId>,

    /// Only this product.
    #[arg(long, value_name = "SKU", value_parser = |text: &str| ProductSku::new(text))]
    pub(crate) product_sku: Option<ProductSku>,

    /// Only this unit.
    #[arg(long, value_name = "UNIT", value_parser = |text: &str| UsageUnit::new(text))]
    pub(crate) use_unity: Option<UsageUnit>,

    /// Only hours from this one on: a date, or a full hour in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = HourBound)]
    pub(crate) from: Option<HourWindow>,

    /// Only hours before this one: a date, or a full hour in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = HourBound)]
    pub(crate) to: Option<HourWindow>,
}

/// `app mappings`.
#[derive(Debug, Subcommand)]
pub(crate) enum Mappings {
    /// List the mappings that come with the program.
    List,
    /// Print what each message of a sample becomes, or why it is refused; the exit code is 1 where one is.
    #[command(after_help = "Examples:
  app mappings test purchase mappings/samples/purchase.json
  app mappings test my/mapping.toml sample.ndjson
  echo '{\"id\":\"7\"}' | app mappings test event - --routing-key john.doe.event.created")]
    Test(MappingsTest),
}

/// Arguments of `app mappings test`.
#[derive(Args, Debug)]
pub(crate) struct MappingsTest {
    /// The mapping: a name, as PULSE_FORMAT takes it, or a file that ends in .toml.
    pub(crate) file: String,

    /// The body of a message: an object, an array, or one object a line; `-` is standard input.
    pub(crate) sample: PathBuf,

    /// The routing key that the message comes with.
    #[arg(long, value_name = "KEY")]
    pub(crate) routing_key: Option<String>,

    /// A header that it comes with; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,

    /// Its content type.
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Commands of `app keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it, this once: only a hash of it is kept.
    #[command(after_help = "Example:
  KEY=$(app keys create --name billing --scope ingest)")]
    Create {
        /// What people call it: 1 to 256 bytes.
        #[arg(long, value_parser = key_name)]
        name: String,

        /// What it may do: send pulses, or ask what was used.
        #[arg(long, value_parser = one_word(&Scope::ALL, Scope::word))]
        scope: String,
    },
    /// Print all keys, the newest first, without their secrets.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on.
    Revoke {
        /// The id of the key: its part between `pk_` and the next `_`.
        id: String,
    },
}

/// Commands of `app webhooks`.
#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Print the events of the inbox, the newest first.
    #[command(after_help = "Examples:
  app webhooks list --status failed
  app webhooks list --source payments --json | jq -r .last_error")]
    List(WebhooksList),
    /// Let failed events wait to be counted again. What was counted of them already is recognised.
    #[command(after_help = "Examples:
  app webhooks retry 4711
  app webhooks retry --all-failed")]
    Retry {
        /// The number of the event.
        #[arg(required_unless_present = "all_failed", conflicts_with = "all_failed")]
        id: Option<i64>,

        /// All that have failed.
        #[arg(long)]
        all_failed: bool,
    },
    /// Remove failed events for good. The same event is new when it is sent again.
    #[command(after_help = "Examples:
  app webhooks discard 4711
  app webhooks discard --failed")]
    Discard {
        /// The number of the event.
        #[arg(required_unless_present = "failed", conflicts_with = "failed")]
        id: Option<i64>,

        /// All that have failed.
        #[arg(long)]
        failed: bool,

        /// Do not ask before all are removed.
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `app webhooks list`.
#[derive(Args, Debug)]
pub(crate) struct WebhooksList {
    /// Only with this status.
    #[arg(long, value_parser = one_word(&InboxStatus::ALL, InboxStatus::word))]
    pub(crate) status: Option<String>,

    /// Only of this source, such as payments.
    #[arg(long)]
    pub(crate) source: Option<String>,

    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,

    /// One JSON object a line, with what was sent.
    #[arg(long)]
    pub(crate) json: bool,
}

fn key_name(text: &str) -> Result<String, TextError> {
    check_text(text).map(|()| text.to_owned())
}

/// The words of a type, which the help lists.
fn one_word<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> PossibleValuesParser {
    PossibleValuesParser::new(all.iter().map(|one| word(*one)).collect::<Vec<_>>())
}

/// Arguments of `app settings`.
#[derive(Args, Debug)]
pub(crate) struct SettingsReference {
    /// Print a file to copy to .env instead.
    #[arg(long)]
    pub(crate) env_example: bool,
}

/// Arguments of `app health`.
#[derive(Args, Debug)]
pub(crate) struct Health {
    /// The process to look at; in a container the program itself is number 1.
    #[arg(long, default_value_t = 1)]
    pub(crate) pid: u32,
}
