//! The part of the overview that is fresh every two seconds.

use super::{
    format::{grouped, length, moment, relative},
    look::Look,
    page::{empty, unavailable},
};
use application::{
    overview::{Named, Part},
    ports::FlushRecord,
};
use domain::{Shard, Timestamp};
use maud::{Markup, html};
use std::collections::BTreeSet;

/// How many flushes the table shows.
const FLUSHES_SHOWN: usize = 8;
/// Flushes of one run follow each other within this many seconds.
const RUN_GAP_SECONDS: i64 = 2;

/// The overview's own content.
pub(super) fn content(look: &Look, now: Timestamp) -> Markup {
    html! {
        noscript {
            p.notice { "Without script this page stays as it was when it was loaded." }
        }
        div.notice.bad #lost role="status" hidden { "The server does not answer. The page tries again by itself; what it shows is old." }
        div #live { (fragment(look, now)) }
    }
}

/// What is replaced as a whole.
pub(super) fn fragment(look: &Look, now: Timestamp) -> Markup {
    html! {
        dl.tiles { (tiles(look, now)) }
        h2 { "Dependencies" }
        div.card { (health(look)) }
        h2 { "Latest flushes" }
        (flushes(&look.overview.flushes, now))
        p.soft { "As of " (moment(now)) }
    }
}

fn tiles(look: &Look, now: Timestamp) -> Markup {
    let overview = &look.overview;
    let counting = overview.counting.answer.as_ref();
    let counts = counting.map(|counting| counting.counts);
    let rate = counts
        .map(|_| look.rates.map_or("\u{2026}".to_owned(), |rates| format!("{}/s", grouped(rates.received))));
    let last = overview.flushes.answer.as_ref().map(|flushes| Run::last(flushes));
    html! {
        (tile("Rate in", rate, &html! {
            @if let Some(rates) = look.rates {
                (grouped(rates.counted)) "/s counted, " (grouped(rates.duplicates)) "/s known"
            } @else { "measured from the second look on" }
        }))
        (tile("Counted", counts.map(|counts| grouped(counts.counted)), &html! {
            @if let Ok(counts) = counts { (grouped(counts.anonymous)) " of them without an identity" }
        }))
        (tile("Duplicates", counts.map(|counts| grouped(counts.duplicates)), &html! { "known, and not counted again" }))
        (sum_tile("Rejected", overview.rejected_total(), &overview.rejected, &html! {
            a href="/dead-letters" { "dead letters" }
        }))
        (sum_tile("Waiting", overview.waiting_total(), &overview.waiting, &html! {
            @if overview.waiting.is_empty() { "no source with a queue" }
            @for (index, source) in overview.waiting.iter().enumerate() {
                @if index > 0 { ", " }
                (source.name) ": " @match &source.answer { Ok(waiting) => { (grouped(waiting)) } Err(_) => { "?" } }
            }
        }))
        (tile("Pending", counting.map(|counting| grouped(counting.pending)), &html! {
            "counted in " (overview.counting.name) ", not in the books yet"
        }))
        (tile("Last flush", last.as_ref().map(|run| run.as_ref().map_or("never".to_owned(), |run| relative(now, run.flushed_at))), &html! {
            @if let Ok(Some(run)) = &last {
                (grouped(run.rows)) " rows, " (grouped(run.pulses)) " pulses in " (length(run.sealed_at, run.flushed_at))
            }
        }))
        (tile::<()>("Next flush", Ok(look.next_flush.map_or("unknown".to_owned(), |next| relative(now, next))), &html! {
            @match look.next_flush { Some(next) => { (moment(next)) } None => { "no schedule is set here" } }
        }))
    }
}

fn tile<E>(name: &str, value: Result<String, E>, more: &Markup) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            @match value {
                Ok(value) => { dd.value { (value) } dd { small { (more) } } }
                Err(_) => { dd.value.away { "unavailable" } dd { small { "see the dependencies below" } } }
            }
        }
    }
}

fn sum_tile(name: &str, sum: Option<u64>, parts: &[Named<u64>], more: &Markup) -> Markup {
    let value = match sum {
        Some(_) if parts.is_empty() => Ok("\u{2013}".to_owned()),
        sum => sum.map(grouped).ok_or(()),
    };
    tile(name, value, more)
}

fn health(look: &Look) -> Markup {
    html! {
        ul.health {
            @for (name, fault) in look.overview.health() {
                li {
                    b { (name) }
                    @match fault {
                        None => span.up { "answers" },
                        Some(fault) => span.down { "unavailable: " (fault) },
                    }
                }
            }
        }
    }
}

fn flushes(flushes: &Named<Vec<FlushRecord>>, now: Timestamp) -> Markup {
    let flushes: &Part<Vec<FlushRecord>> = &flushes.answer;
    match flushes {
        Err(error) => unavailable("The flushes", error),
        Ok(flushes) if flushes.is_empty() => empty(
            "Nothing was flushed yet",
            &html! {
                "Counted pulses are moved to the books on schedule; " code { "app flush" } " does it at once."
            },
        ),
        Ok(flushes) => html! {
            div.scroll role="region" aria-label="Latest flushes" tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "When" }
                            th.number scope="col" { "Pulses" }
                            th.number scope="col" { "Rows" }
                            th.number scope="col" { "Duration" }
                            th.number scope="col" { "Shard" }
                            th.number scope="col" { "Generation" }
                        }
                    }
                    tbody {
                        @for flush in flushes.iter().take(FLUSHES_SHOWN) {
                            tr {
                                td { (relative(now, flush.flushed_at)) }
                                td.number { (grouped(flush.total.pulses)) }
                                td.number { (grouped(flush.rows)) }
                                td.number { (length(flush.started_at, flush.flushed_at)) }
                                td.number { (flush.shard) }
                                td.number { (flush.generation) }
                            }
                        }
                    }
                }
            }
        },
    }
}

/// The flushes of all shards that came due together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    pulses: u64,
    rows: u64,
    sealed_at: Timestamp,
    flushed_at: Timestamp,
}

impl Run {
    /// The latest one: back from the newest flush, each shard once, without a gap.
    fn last(newest_first: &[FlushRecord]) -> Option<Self> {
        let newest = newest_first.first()?;
        let mut run = Self { pulses: 0, rows: 0, sealed_at: newest.sealed_at, flushed_at: newest.flushed_at };
        let (mut shards, mut next) = (BTreeSet::<Shard>::new(), newest.flushed_at);
        for flush in newest_first {
            let gap = next.seconds().saturating_sub(flush.flushed_at.seconds());
            if gap > RUN_GAP_SECONDS || !shards.insert(flush.shard) {
                break;
            }
            run.pulses = run.pulses.saturating_add(flush.total.pulses);
            run.rows = run.rows.saturating_add(flush.rows);
            run.sealed_at = run.sealed_at.min(flush.sealed_at);
            next = flush.started_at;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests;
