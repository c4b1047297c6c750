//! An audit as a table for people, or as one JSON object.

use application::audit::{AuditReport, CheckReport, Finding, Outcome, Verdict};
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt::Write;

/// How many findings of a check the table names; `--json` has more.
const FINDINGS_SHOWN: usize = 20;

/// The table, what is broken in words, and the whole in one line.
pub(crate) fn table(report: &AuditReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let header = ["#", "check", "one side", "other side", ""];
    table.set_header(header.map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for check in &report.checks {
        table.add_row([
            check.kind.number().to_string(),
            check.kind.claim().to_owned(),
            check.left.clone(),
            check.right.clone(),
            word(&check.verdict).to_owned(),
        ]);
    }
    let mut text = format!("{table}\n");
    for check in &report.checks {
        tell(&mut text, check);
    }
    let unknown = report.checks.iter().filter(|check| matches!(check.verdict, Verdict::Unknown(_))).count();
    let (checks, broken) = (report.checks.len(), report.broken());
    let _ = match report.outcome() {
        Outcome::Holds => writeln!(text, "The books hold: {checks} checks."),
        Outcome::Broken => writeln!(text, "The books are BROKEN: {broken} of {checks} checks."),
        Outcome::Unknown => {
            writeln!(text, "It cannot be told whether the books hold: {unknown} of {checks} checks.")
        }
    };
    text
}

fn tell(text: &mut String, check: &CheckReport) {
    let number = check.kind.number();
    let _ = match &check.verdict {
        Verdict::Holds => Ok(()),
        Verdict::Unknown(why) => writeln!(text, "{number}: {why}"),
        Verdict::Broken(findings, all) => {
            for finding in findings.iter().take(FINDINGS_SHOWN) {
                let _ = writeln!(text, "{number}: {finding}");
            }
            match all.saturating_sub(FINDINGS_SHOWN as u64) {
                0 => Ok(()),
                more => writeln!(text, "{number}: and {more} more"),
            }
        }
    };
}

const fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Broken(..) => "BROKEN",
        Verdict::Unknown(_) => "unknown",
    }
}

#[derive(Serialize)]
pub(crate) struct JsonReport<'a> {
    at: i64,
    outcome: &'static str,
    checks: Vec<JsonCheck<'a>>,
}

#[derive(Serialize)]
struct JsonCheck<'a> {
    number: u8,
    check: &'static str,
    claim: &'static str,
    left: &'a str,
    right: &'a str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    broken: u64,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    what: &'a str,
    shard: Option<u16>,
    generation: Option<u64>,
    tenant: Option<&'a str>,
    product_sku: Option<&'a str>,
    use_unity: Option<&'a str>,
    window_start: Option<&'a str>,
    expected: Option<&'a str>,
    found: Option<&'a str>,
    difference: Option<&'a str>,
}

/// The same for machines.
pub(crate) fn json(report: &AuditReport) -> JsonReport<'_> {
    let outcome = match report.outcome() {
        Outcome::Holds => "holds",
        Outcome::Broken => "broken",
        Outcome::Unknown => "unknown",
    };
    JsonReport {
        at: report.at.seconds(),
        outcome,
        checks: report.checks.iter().map(JsonCheck::from).collect(),
    }
}

impl<'a> From<&'a CheckReport> for JsonCheck<'a> {
    fn from(check: &'a CheckReport) -> Self {
        let (verdict, reason, findings, broken) = match &check.verdict {
            Verdict::Holds => ("holds", None, &[][..], 0),
            Verdict::Unknown(why) => ("unknown", Some(why.as_str()), &[][..], 0),
            Verdict::Broken(findings, all) => ("broken", None, &findings[..], *all),
        };
        Self {
            number: check.kind.number(),
            check: check.kind.code(),
            claim: check.kind.claim(),
            left: &check.left,
            right: &check.right,
            verdict,
            reason,
            broken,
            findings: findings.iter().map(JsonFinding::from).collect(),
        }
    }
}

impl<'a> From<&'a Finding> for JsonFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        let name = |place: usize| finding.key.as_ref().map(|key| key[place].as_str());
        Self {
            what: &finding.what,
            shard: finding.shard.map(|shard| shard.0),
            generation: finding.generation,
            tenant: name(0),
            product_sku: name(1),
            use_unity: name(2),
            window_start: name(3),
            expected: finding.expected.as_deref(),
            found: finding.found.as_deref(),
            difference: finding.difference.as_deref(),
        }
    }
}
