//! What is missing as text for people, or as one JSON object.

use application::{
    ports::{LogMark, Recovery, Remake},
    recover::{LogReturn, Outlook, Recovered, RecoveryPlan, ShardLoss},
};
use chrono::{DateTime, SecondsFormat};
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use domain::Timestamp;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};

const WHAT_IS_LOST: &str = "\
Cannot be rebuilt: what these shards counted from queues, the inbox and HTTP after the time in the column `ledger up to` and until the
storage was lost (at least until `last seen`). It was acknowledged to whoever sent it; what is still in a queue comes by itself.";
const WHAT_IS_FORGOTTEN: &str = "\
Cannot be recognised: a copy of a pulse that was counted before. It counts once more if it comes again: from a shard that is made
anew every one, otherwise of what was counted since the copy of the storage was made. Places in logs are remembered.";
const BY_ID_ONLY: &str = "\
PULSE_DEDUPE=id: positions in logs follow the counts a moment later and are not looked at, so logs are NOT rebuilt exactly.";

/// All of it, and how to go on.
pub(crate) fn text(outlook: &Outlook, by_id_only: bool) -> String {
    let plan = &outlook.plan;
    let mut text = String::new();
    if !plan.shards.is_empty() {
        let _ = writeln!(text, "{}\n", shards(&plan.shards));
        let _ = writeln!(text, "{WHAT_IS_LOST}\n\n{WHAT_IS_FORGOTTEN}\n");
    }
    logs(&mut text, plan);
    if by_id_only && !plan.is_empty() {
        let _ = writeln!(text, "{BY_ID_ONLY}\n");
    }
    for remark in &plan.remarks {
        let _ = writeln!(text, "Not mended by this: {remark}\n");
    }
    let all = plan.registration.records.len();
    let missing = plan.shards.len();
    let unfinished = outlook.unfinished();
    let _ = match (unfinished, plan.is_empty()) {
        (None, true) => writeln!(text, "Nothing is missing: {all} shards are as far as they were seen."),
        (Some(Recovery { number, word, .. }), _) => writeln!(
            text,
            "Recovery {number} has begun and not ended. Stop all workers and crons, and finish it:\n  \
             app recover --continue-with-loss {word}"
        ),
        (None, false) if missing == 0 => writeln!(
            text,
            "No shard is missing, and a log is settled further than it was counted, or has let go of what was not. Stop all \
             workers,\nand agree to that and nothing else:\n  app recover --continue-with-loss {}",
            plan.word()
        ),
        (None, false) => writeln!(
            text,
            "{missing} of {all} shards are not what they should be. Is the newest storage of Redis really gone? Then stop all \
             workers and crons,\nand agree to this loss and no other:\n  app recover --continue-with-loss {}",
            plan.word()
        ),
    };
    if unfinished.is_some_and(|recovery| recovery.word != plan.word()) && !plan.is_empty() {
        let _ = writeln!(
            text,
            "Where that is refused because a shard has changed since, agree to what is missing now:\n  \
             app recover --continue-with-loss {}",
            plan.word()
        );
    }
    text
}

fn shards(losses: &[ShardLoss]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let header = ["shard", "found", "ledger up to", "last seen", "will be"];
    table.set_header(header.map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for loss in losses {
        let found = loss.found.map_or_else(
            || "gone".to_owned(),
            |found| format!("generation {}, sequence {}", found.generation, found.sequence),
        );
        table.add_row([
            loss.shard.to_string(),
            found,
            format!("generation {}, {}", loss.flushed, time(loss.sealed_at)),
            format!("generation {}, sequence {}, {}", loss.seen.0, loss.seen.1, time(loss.seen_at)),
            match loss.remake {
                Remake::Anew => format!("made anew, empty, at generation {}", loss.flushed + 1),
                Remake::DropBooked => {
                    format!("emptied of what the ledger has, at generation {}", loss.flushed + 1)
                }
                Remake::Keep => "kept as it was found".to_owned(),
            },
        ]);
    }
    table
}

fn logs(text: &mut String, plan: &RecoveryPlan) {
    let named: BTreeMap<&str, u64> =
        plan.shards.iter().flat_map(|loss| &loss.positions).fold(BTreeMap::new(), |mut named, mark| {
            let lowest = named.entry(mark.log.as_str()).or_insert(mark.position.offset);
            *lowest = mark.position.offset.min(*lowest);
            named
        });
    for LogReturn { log, settled, to, lost } in &plan.logs {
        let _ = writeln!(
            text,
            "Rebuilt exactly: {log}, read again from offset {} (it was settled up to {settled}).",
            to.next
        );
        if let Some((from, to)) = lost {
            let _ = writeln!(
                text,
                "  LOST: the log no longer holds the offsets {from} to {}; what was not counted of them never will be.",
                to - 1
            );
        }
    }
    let moved = |name: &str| plan.logs.iter().any(|log| log.log.as_str() == name);
    for (name, offset) in named.iter().filter(|(name, _)| !moved(name)) {
        let _ =
            writeln!(text, "Rebuilt exactly: {name}, by its reader, from offset {offset} on at the latest.");
        if name.starts_with("kafka/") {
            text.push_str("  Its group was not looked at, or is not further. Where its worker stops, run this with its settings.\n");
        }
    }
    if !named.is_empty() || !plan.logs.is_empty() {
        text.push('\n');
    }
}

/// What was done, in one paragraph.
pub(crate) fn done(done: &Recovered) -> String {
    let mut text = format!("Recovery {} is done: {} shards brought back.", done.number, done.shards);
    for (log, to) in &done.moved {
        let _ = write!(text, "\n{log} is read again from offset {}.", to.next);
    }
    text
}

fn time(time: Option<Timestamp>) -> String {
    rfc3339(time).unwrap_or_else(|| "never".to_owned())
}

fn rfc3339(time: Option<Timestamp>) -> Option<String> {
    let utc = DateTime::from_timestamp(time?.seconds(), 0)?;
    Some(utc.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[derive(Serialize)]
pub(crate) struct JsonOutlook<'a> {
    accumulator: String,
    missing: bool,
    /// What agrees to this loss.
    word: Option<String>,
    shards: Vec<JsonShard<'a>>,
    logs: Vec<JsonLog<'a>>,
    remarks: &'a [String],
    unfinished: Option<JsonRecovery<'a>>,
}

#[derive(Serialize)]
struct JsonShard<'a> {
    shard: u16,
    /// Active generation and sequence.
    found: Option<(u64, u64)>,
    remake: &'static str,
    ledger_generation: u64,
    ledger_sealed_at: Option<String>,
    ledger_pulses: u64,
    seen: (u64, u64),
    seen_at: Option<String>,
    positions: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct JsonLog<'a> {
    log: &'a str,
    settled: u64,
    read_again_from: u64,
    /// The first offset that is lost, and the first that is not.
    lost: Option<(u64, u64)>,
}

#[derive(Serialize)]
struct JsonRecovery<'a> {
    number: u64,
    word: &'a str,
    plan: Vec<&'a str>,
}

/// The same for machines.
pub(crate) fn json(outlook: &Outlook) -> JsonOutlook<'_> {
    let plan = &outlook.plan;
    JsonOutlook {
        accumulator: plan.registration.accumulator.to_string(),
        missing: !plan.is_empty(),
        word: (!plan.is_empty()).then(|| plan.word()),
        shards: plan.shards.iter().map(JsonShard::from).collect(),
        logs: plan.logs.iter().map(JsonLog::from).collect(),
        remarks: &plan.remarks,
        unfinished: outlook.unfinished().map(|recovery| JsonRecovery {
            number: recovery.number,
            word: &recovery.word,
            plan: recovery.plan.lines().collect(),
        }),
    }
}

impl<'a> From<&'a ShardLoss> for JsonShard<'a> {
    fn from(loss: &'a ShardLoss) -> Self {
        let position = |mark: &'a LogMark| (mark.log.as_str(), mark.position.to_string());
        Self {
            shard: loss.shard.0,
            found: loss.found.map(|found| (found.generation, found.sequence)),
            remake: match loss.remake {
                Remake::Anew => "anew",
                Remake::DropBooked => "drop_booked",
                Remake::Keep => "keep",
            },
            ledger_generation: loss.flushed,
            ledger_sealed_at: rfc3339(loss.sealed_at),
            ledger_pulses: loss.pulses,
            seen: loss.seen,
            seen_at: rfc3339(loss.seen_at),
            positions: loss.positions.iter().map(position).collect(),
        }
    }
}

impl<'a> From<&'a LogReturn> for JsonLog<'a> {
    fn from(log: &'a LogReturn) -> Self {
        Self { log: log.log.as_str(), settled: log.settled, read_again_from: log.to.next, lost: log.lost }
    }
}
