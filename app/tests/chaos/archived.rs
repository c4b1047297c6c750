//! Checks what the archive of a round holds: the events as they are stored, by a query and sums of our own.

use crate::{
    arena::{Arena, Site},
    books::agree,
    plan::Expected,
};
use std::collections::{BTreeMap, BTreeSet};

/// What makes two rows copies of one event, and its bytes: past the views of the program.
const ROWS: &str = "SELECT DISTINCT identity_kind, identity, if(identity_kind = 'message', item, 0), hex(body), \
     toString(amount) FROM events";

/// Every event that was published is there, and no other; copies of one are one.
pub(crate) fn check(arena: &mut Arena, site: &Site, expected: &Expected, broken: &mut Vec<String>) {
    let table = arena.clickhouse().query_in(&site.name, ROWS);
    let rows: BTreeSet<&str> = table.lines().collect();
    let mut found = BTreeMap::<String, u64>::new();
    for row in &rows {
        let cells: Vec<&str> = row.split('\t').collect();
        let [_, _, _, body, amount] = cells[..] else {
            broken.push(format!("a row of the archive does not read: {row}"));
            continue;
        };
        let body = text(body);
        if !body.contains(&format!("\"used_amount\":\"{amount}\"")) {
            broken.push(format!("archived with the amount {amount}: {body}"));
        }
        *found.entry(body).or_default() += 1;
    }
    for (body, times) in
        expected.archived.iter().filter(|(body, times)| found.get(*body) != Some(times)).take(3)
    {
        broken.push(format!("archived {:?} times, not {times}: {body}", found.get(body)));
    }
    for body in found.keys().filter(|body| !expected.archived.contains_key(*body)).take(3) {
        broken.push(format!("archived, and nobody has sent it: {body}"));
    }
    agree("events in the archive", found.values().sum(), expected.archived.values().sum(), broken);
}

fn text(hex: &str) -> String {
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
