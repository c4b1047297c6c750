//! Checks the books of a round: plain SQL, plain commands and sums of our own, no code of the program.

use crate::{
    arena::{Arena, Ledger, Site},
    plan::Expected,
    totals_table::{Totals, ledger_of},
};
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use std::{collections::BTreeSet, error::Error, path::Path, process::Command, time::Duration};

/// Prints product, tenant and amount of every row of a JSON ledger, with the unit where the file names it, in any order.
const PRODUCTS: &str = r#"
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
load = lambda path: json.loads(path.read_text(), parse_float=str, parse_int=str)
for path in (path for path in folder.glob("*.json") if not path.name.startswith(".")):
    first, others = load(path), folder / "units" / path.name
    units = load(others) if others.exists() else {}
    names = {"KB", "call", "a:b"} - set(units)
    assert len(names) == 1 or not first, names
    for unit, tenants in [*units.items(), (names.pop(), first)]:
        for tenant, amount in tenants.items():
            print(json.dumps([path.stem, unit, tenant, amount], ensure_ascii=False))
"#;
/// How long RabbitMQ may take to hand out all dead letters.
const LIMIT: Duration = Duration::from_mins(1);

/// Both sides of the books, and what does not agree.
pub(crate) struct Verdict {
    /// Pulses in the ledger.
    pub(crate) counted: u64,
    /// Different dead letters, and how many there are with their copies.
    pub(crate) letters: (usize, usize),
    pub(crate) broken: Vec<String>,
}

/// Compares what is stored with what must be, once everything was counted and flushed: nothing is ready, nothing is
/// unacknowledged, and every unique pulse is in the ledger or a dead letter, once.
pub(crate) fn check(arena: &Arena, site: &Site, expected: &Expected) -> Verdict {
    let mut broken = Vec::new();
    let counted = match &site.ledger {
        Ledger::Postgres(url) => {
            let found = ledger_of(url);
            differences(&found, &expected.totals(), &mut broken);
            flushes(url, expected.pulses(), &mut broken);
            found.values().map(|(_, pulses)| pulses).sum()
        }
        Ledger::Json(folder) => {
            products(folder, expected, &mut broken);
            expected.pulses()
        }
    };

    let (ready, bodies) = queues(arena, site).unwrap_or_else(|fault| {
        broken.push(format!("RabbitMQ does not show its queues: {fault}"));
        (0, Vec::new())
    });
    agree("messages left in the queue", u64::from(ready), 0, &mut broken);
    let letters = dead_letters(&bodies, expected, &mut broken);
    redis(arena, expected.pulses(), expected.pulses(), &mut broken);
    Verdict { counted, letters, broken }
}

/// Exactly those that there must be, copies allowed: how many different ones, and with their copies.
pub(crate) fn dead_letters(
    bodies: &[String],
    expected: &Expected,
    broken: &mut Vec<String>,
) -> (usize, usize) {
    let letters: BTreeSet<String> = bodies.iter().cloned().collect();
    for letter in expected.letters.difference(&letters).take(3) {
        broken.push(format!("dead letter lost: {letter}"));
    }
    for letter in letters.difference(&expected.letters).take(3) {
        broken.push(format!("dead letter of a good message: {letter}"));
    }
    (letters.len(), bodies.len())
}

pub(crate) fn agree(what: &str, found: u64, expected: u64, broken: &mut Vec<String>) {
    if found != expected {
        broken.push(format!("{what}: {found}, not {expected}"));
    }
}

/// Tells a few of the totals that are wrong.
pub(crate) fn differences(found: &Totals, expected: &Totals, broken: &mut Vec<String>) {
    let wrong = expected.iter().filter(|(key, total)| found.get(*key) != Some(total));
    let wrong = wrong.map(|(key, total)| format!("ledger {key:?}: {:?}, not {total:?}", found.get(key)));
    let extra = found.iter().filter(|(key, _)| !expected.contains_key(*key));
    let all: Vec<String> =
        wrong.chain(extra.map(|(key, total)| format!("ledger {key:?}: {total:?}, not there"))).collect();
    if !all.is_empty() {
        let pulses = |totals: &Totals| totals.values().map(|(_, pulses)| pulses).sum::<u64>();
        broken.push(format!(
            "{} totals of {} are wrong: {} pulses, not {}",
            all.len(),
            expected.len(),
            pulses(found),
            pulses(expected)
        ));
        broken.extend(all.into_iter().take(3));
    }
}

/// The files of the products hold what each tenant used, by unit, over all hours.
fn products(folder: &Path, expected: &Expected, broken: &mut Vec<String>) {
    let output = Command::new("python3").args(["-c", PRODUCTS]).arg(folder).output().unwrap();
    if !output.status.success() {
        broken.push(format!("the JSON ledger cannot be read: {}", String::from_utf8_lossy(&output.stderr)));
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let found: BTreeSet<&str> = text.lines().collect();
    let expected = expected.products();
    for line in expected.iter().filter(|line| !found.contains(line.as_str())).take(3) {
        broken.push(format!("JSON ledger lacks {line}"));
    }
    agree("rows of the JSON ledger", count(found.len()), count(expected.len()), broken);
}

pub(crate) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

/// Per shard, the generations in the books follow each other, and together they are what was published.
pub(crate) fn flushes(url: &str, pulses: u64, broken: &mut Vec<String>) {
    let query = "select coalesce(sum(pulse_count), 0), coalesce(sum(used_amount) - (select sum(used_amount) from \
                 hourly_usage), 0), (select count(*) from (select 1 from flushes group by accumulator, shard having \
                 count(*) <> max(generation)) as gaps) from flushes";
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--csv", "--tuples-only", "--command", query, url])
        .output()
        .unwrap();
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let found: Vec<&str> = line.split(',').collect();
    let sound = |difference: &str| difference.chars().all(|digit| matches!(digit, '0' | '.'));
    if found.len() != 3 || found[0] != pulses.to_string() || !sound(found[1]) || found[2] != "0" {
        broken.push(format!(
            "flushes: {line} (pulses, difference to the hourly totals, gaps), not {pulses},0,0"
        ));
    }
}

/// Nothing is left to be flushed, and as many identities are remembered as there must be: one for each pulse that has one.
pub(crate) fn redis(arena: &Arena, pulses: u64, ids: u64, broken: &mut Vec<String>) {
    let keys: Vec<String> = arena.redis.command(&["KEYS", "*"]);
    let (mut identities, mut counted) = (0, 0);
    for key in keys {
        let part = key.split(':').nth(2).unwrap_or_default();
        match part {
            "agg" | "names" | "gen" => broken.push(format!("Redis: {key} is left")),
            "ids" => identities += arena.redis.command::<u64>(&["HLEN", &key]),
            "meta" => counted += arena.redis.command::<u64>(&["HGET", &key, "counted"]),
            _ => {}
        }
    }
    agree("identities in Redis", identities, ids, broken);
    agree("pulses counted by Redis", counted, pulses, broken);
}

/// How many messages are left, and the bodies of the dead letters; deletes both queues.
pub(crate) fn queues(arena: &Arena, site: &Site) -> Result<(u32, Vec<String>), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let read = async {
        let connection = Connection::connect(&arena.rabbitmq.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(site.queue.as_str().into(), passive, FieldTable::default()).await?;
        let ready = queue.message_count();
        let mut bodies = Vec::new();
        let name = || site.dead_letters.as_str().into();
        // Nobody needs them any more.
        let taken = BasicGetOptions { no_ack: true };
        while let Some(letter) = channel.basic_get(name(), taken).await? {
            bodies.push(String::from_utf8_lossy(&letter.delivery.data).into_owned());
        }
        let archive = format!("{}.archive", site.queue);
        for queue in [&site.queue, &site.dead_letters, &archive] {
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        Ok((ready, bodies))
    };
    let result = runtime.block_on(async { tokio::time::timeout(LIMIT, read).await });
    runtime.shutdown_timeout(Duration::from_millis(100));
    result?
}
