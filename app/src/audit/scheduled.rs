//! The audit of a cron, on a schedule of its own.

use crate::clock;
use anyhow::Context;
use application::audit::{AuditBooks, AuditReport, AuditTally, Verdict};
use infrastructure::schedule::FlushSchedule;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{select, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// After an audit nothing is asked for so many times as long as it took.
const REST: u32 = 9;

/// Audits until `stop`. Nothing waits for it, and nothing that it finds ends the program.
pub(crate) async fn on_schedule(
    books: AuditBooks,
    schedule: FlushSchedule,
    tally: Arc<AuditTally>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = schedule.start().await?;
    let mut told = Told::default();
    let mut rested = Instant::now();
    loop {
        select! {
            () = stop.cancelled() => return Ok(()),
            tick = ticks.next() => tick.context("the schedule of the audit has stopped")?,
        }
        if Instant::now() < rested {
            continue;
        }
        let start = Instant::now();
        let report = select! {
            () = stop.cancelled() => return Ok(()),
            report = books.run(clock::now()) => report,
        };
        tally.audited(&report);
        told.tell(&report, start.elapsed());
        rested = Instant::now() + start.elapsed() * REST;
    }
}

/// What was said of each check, so that a break is told once, and once more when it is another one or over.
#[derive(Default)]
struct Told(BTreeMap<u8, String>);

impl Told {
    fn tell(&mut self, report: &AuditReport, took: Duration) {
        for check in &report.checks {
            let number = check.kind.number();
            let said = match &check.verdict {
                Verdict::Holds => {
                    if self.0.remove(&number).is_some() {
                        info!(check = number, claim = check.kind.claim(), "the books hold again");
                    }
                    continue;
                }
                Verdict::Broken(findings, all) => {
                    let first = findings.first().map(ToString::to_string).unwrap_or_default();
                    format!("{first} ({all} findings)")
                }
                Verdict::Unknown(why) => why.clone(),
            };
            if self.0.get(&number) == Some(&said) {
                continue;
            }
            if let Verdict::Unknown(why) = &check.verdict {
                warn!(check = number, claim = check.kind.claim(), %why, "the audit cannot tell");
            } else {
                error!(
                    check = number,
                    claim = check.kind.claim(),
                    finding = said,
                    left = check.left,
                    right = check.right,
                    ?took,
                    "the books are BROKEN: run `app audit`"
                );
            }
            self.0.insert(number, said);
        }
    }
}
