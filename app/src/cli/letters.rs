//! `app dead-letters` on the command line.

use chrono::DateTime;
use clap::{Args, Subcommand, ValueEnum};
use domain::Timestamp;

/// Commands of `app dead-letters`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Print what was refused, the latest first, and how many letters there are by their reasons.
    #[command(after_help = "Examples:
  app dead-letters list --reason too_old --limit 10
  app dead-letters list --since 2026-01-10 --json | jq .places")]
    List(LettersList),
    /// Print everything about a letter.
    #[command(after_help = "Examples:
  app dead-letters show 0f3a… --json
  app dead-letters show 0f3a… --raw > message.json")]
    Show(LetterShow),
    /// Send letters back to where they came from, under the identities they had: each counts once within the dedupe window.
    #[command(long_about = REPLAY, after_help = "Examples:
  app dead-letters replay --reason too_old --dry-run
  app dead-letters replay 0f3a… 77c2…
  app dead-letters replay --all")]
    Replay(LettersReplay),
    /// Remove letters for good; asks first.
    #[command(after_help = "Examples:
  app dead-letters discard 0f3a…
  app dead-letters discard --reason malformed --yes")]
    Discard(LettersDiscard),
}

const REPLAY: &str = "\
Send letters back to where they came from: to the queue, the topic, or the inbox of the embedded file, with their original \
bytes and under the identities they had, so that each counts once within the dedupe window. A letter is removed when it is \
confirmed there. It is safe to kill and to repeat.

Mend the cause first: what is refused again comes back. Only letters that are there at the beginning are taken, and a letter \
that came back three times stays unless --force is given.";

/// Which letters.
#[derive(Args, Clone, Debug)]
pub(crate) struct LetterChoice {
    /// Only of this place.
    #[arg(long)]
    pub(crate) place: Option<LetterPlaceName>,

    /// Only with this reason, such as too_old.
    #[arg(long)]
    pub(crate) reason: Option<String>,

    /// Only of this tenant, where the body names one as a native pulse or a CloudEvent does.
    #[arg(long)]
    pub(crate) tenant: Option<String>,

    /// Only of this source, such as rabbitmq or file.
    #[arg(long)]
    pub(crate) source: Option<String>,

    /// Only those that arrived then or later: a date, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
}

/// A place of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LetterPlaceName {
    /// The embedded file.
    File,
    /// The queue RABBITMQ_DEAD_LETTER_QUEUE.
    Rabbitmq,
    /// The topic KAFKA_DEAD_LETTER_TOPIC.
    Kafka,
}

/// Arguments of `app dead-letters list`.
#[derive(Args, Debug)]
pub(crate) struct LettersList {
    #[command(flatten)]
    pub(crate) which: LetterChoice,

    /// How many of each place at most; all are counted.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,

    /// One JSON object: `letters`, and `places` with the counts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `app dead-letters show`.
#[derive(Args, Debug)]
pub(crate) struct LetterShow {
    /// The id of the letter.
    pub(crate) id: String,

    /// One JSON object.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,

    /// Only the original bytes, as they are.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// The letters that something is to be done with.
#[derive(Args, Clone, Debug)]
pub(crate) struct LettersChosen {
    /// The ids of letters.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,

    #[command(flatten)]
    pub(crate) which: LetterChoice,

    /// All letters.
    #[arg(long)]
    pub(crate) all: bool,

    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `app dead-letters replay`.
#[derive(Args, Debug)]
pub(crate) struct LettersReplay {
    #[command(flatten)]
    pub(crate) letters: LettersChosen,

    /// Also those that came back three times.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Arguments of `app dead-letters discard`.
#[derive(Args, Debug)]
pub(crate) struct LettersDiscard {
    #[command(flatten)]
    pub(crate) letters: LettersChosen,

    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Midnight of a date, or a time.
fn moment(text: &str) -> Result<Timestamp, String> {
    let midnight = format!("{text}T00:00:00Z");
    let time = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc3339(&midnight));
    time.map(|time| Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos()))
        .map_err(|_| "must be a date, or a time like 2026-01-10T12:00:00Z".to_owned())
}
