//! Totals as a table for people, as CSV, or as JSON lines.

use crate::hours::window_start;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use domain::{UsageKey, UsageTotal};
use serde::Serialize;
use std::io::{self, Write};

/// The columns of `hourly_usage` that users see, in order.
pub(crate) const COLUMNS: [&str; 6] =
    ["tenant", "product_sku", "use_unity", "window_start", "used_amount", "pulse_count"];
/// The column that tells billed and pending apart.
const STATUS: &str = "status";
/// The most rows that a table shows: it has to hold them all to know how wide its columns are.
const TABLE_ROWS_MAX: usize = 10_000;

/// Whether a total is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// It is in the ledger.
    Billed,
    /// It is counted, and the next flush moves it to the ledger.
    Pending,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Pending => "pending",
        }
    }
}

/// How totals are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A table, as wide as the terminal where there is one.
    Table,
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
    /// One JSON object a line.
    Json,
}

/// Prints rows as they come.
pub(crate) enum Renderer<W: Write> {
    /// Collects the rows, prints at the end.
    Table { out: W, rows: Vec<[String; 7]>, summary: Summary, with_status: bool },
    /// Prints each row at once.
    Csv { out: Box<csv::Writer<W>>, with_status: bool },
    /// Prints each row at once.
    Json { out: W },
}

/// What the rows came to.
#[derive(Default)]
pub(crate) struct Summary {
    rows: u64,
    billed_pulses: u64,
    pending_pulses: u64,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    tenant: &'a str,
    product_sku: &'a str,
    use_unity: &'a str,
    window_start: String,
    used_amount: String,
    pulse_count: u64,
    status: &'static str,
}

impl<W: Write> Renderer<W> {
    /// Starts the output; `with_status` adds the column that tells billed and pending apart (JSON always has it).
    pub(crate) fn new(out: W, layout: Layout, with_status: bool) -> anyhow::Result<Self> {
        Ok(match layout {
            Layout::Table => Self::Table { out, rows: Vec::new(), summary: Summary::default(), with_status },
            Layout::Json => Self::Json { out },
            Layout::Csv => {
                let mut out = Box::new(csv::Writer::from_writer(out));
                out.write_record(COLUMNS.iter().copied().chain(with_status.then_some(STATUS)))
                    .map_err(io::Error::from)?;
                Self::Csv { out, with_status }
            }
        })
    }

    /// Prints one total, or keeps it for the table.
    pub(crate) fn row(&mut self, key: &UsageKey, total: UsageTotal, status: Status) -> anyhow::Result<()> {
        match self {
            Self::Table { rows, summary, .. } => {
                summary.add(total, status);
                if rows.len() < TABLE_ROWS_MAX {
                    rows.push(cells(key, total, status));
                }
            }
            Self::Csv { out, with_status } => {
                out.write_record(&cells(key, total, status)[..6 + usize::from(*with_status)])
                    .map_err(io::Error::from)?;
            }
            Self::Json { out } => {
                let row = JsonRow {
                    tenant: key.tenant.as_str(),
                    product_sku: key.product_sku.as_str(),
                    use_unity: key.use_unity.as_str(),
                    window_start: window_start(key.hour),
                    used_amount: total.amount.to_string(),
                    pulse_count: total.pulses,
                    status: status.name(),
                };
                serde_json::to_writer(&mut *out, &row).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Prints what was kept and flushes.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Table { mut out, rows, summary, with_status } => {
                if !rows.is_empty() {
                    writeln!(out, "{}", table(&rows, with_status))?;
                }
                summary.print(&mut out, rows.len(), with_status)?;
                out.flush()?;
            }
            Self::Csv { mut out, .. } => out.flush()?,
            Self::Json { mut out } => out.flush()?,
        }
        Ok(())
    }
}

fn cells(key: &UsageKey, total: UsageTotal, status: Status) -> [String; 7] {
    [
        key.tenant.as_str().to_owned(),
        key.product_sku.as_str().to_owned(),
        key.use_unity.as_str().to_owned(),
        window_start(key.hour),
        total.amount.to_string(),
        total.pulses.to_string(),
        status.name().to_owned(),
    ]
}

fn table(rows: &[[String; 7]], with_status: bool) -> Table {
    let columns = 6 + usize::from(with_status);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let header = COLUMNS.iter().copied().chain([STATUS]).take(columns);
    table.set_header(header.map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    let decimals = rows.iter().map(|row| decimals(&row[4])).max().unwrap_or(0);
    for row in rows {
        table.add_row(row.iter().take(columns).enumerate().map(|(column, text)| match column {
            4 => Cell::new(aligned(text, decimals)),
            5 => Cell::new(text),
            _ => Cell::new(visible(text)),
        }));
    }
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn decimals(amount: &str) -> usize {
    amount.split_once('.').map_or(0, |(_, decimals)| decimals.len() + 1)
}

/// The amount with room behind it, so that the points of a column stand under each other.
fn aligned(amount: &str, decimals_max: usize) -> String {
    format!("{amount}{:1$}", "", decimals_max - decimals(amount))
}

/// The text with characters escaped that have no width or turn the direction of writing: they could make two names look
/// alike, or a row look like another.
fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, character| {
        match character {
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => {
                shown.extend(character.escape_unicode());
            }
            character => shown.push(character),
        }
        shown
    })
}

impl Summary {
    fn add(&mut self, total: UsageTotal, status: Status) {
        self.rows += 1;
        match status {
            Status::Billed => self.billed_pulses += total.pulses,
            Status::Pending => self.pending_pulses += total.pulses,
        }
    }

    fn print(&self, out: &mut impl Write, shown: usize, with_status: bool) -> anyhow::Result<()> {
        let Self { rows, billed_pulses, pending_pulses } = self;
        if usize::try_from(*rows).is_ok_and(|rows| rows > shown) {
            writeln!(
                out,
                "The first {shown} of {rows} rows; filters narrow them down, --csv and --json print all."
            )?;
        }
        if with_status {
            writeln!(out, "{rows} rows: {billed_pulses} pulses billed, {pending_pulses} not yet flushed")?;
        } else {
            writeln!(out, "{rows} rows: {billed_pulses} pulses billed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HourWindow, ProductSku, TenantId, TotalAmount, UsageUnit};

    fn rendered(layout: Layout, with_status: bool) -> String {
        let rows = [
            ("UA", "EWR-IAH", "km", "2253.0816", Status::Billed),
            ("UA", "EWR-IAH", "minute", "227", Status::Pending),
            ("a\",b|c", "é😀", "u", "0.000000001", Status::Billed),
            ("=1+1", "\u{202e}txt", "u", "99999999999999999999999999999.999999999", Status::Pending),
        ];
        let mut out = Vec::new();
        let mut renderer = Renderer::new(&mut out, layout, with_status).unwrap();
        for (tenant, sku, unit, amount, status) in rows {
            let key = UsageKey {
                tenant: TenantId::new(tenant).unwrap(),
                product_sku: ProductSku::new(sku).unwrap(),
                use_unity: UsageUnit::new(unit).unwrap(),
                hour: HourWindow::from_number(376_954),
            };
            let total = UsageTotal { amount: TotalAmount::parse(amount).unwrap(), pulses: 12 };
            renderer.row(&key, total, status).unwrap();
        }
        renderer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_aligns_amounts_and_shows_hidden_characters() {
        insta::assert_snapshot!(rendered(Layout::Table, true));
    }

    #[test]
    fn a_table_of_nothing_says_so() {
        let mut out = Vec::new();
        Renderer::new(&mut out, Layout::Table, false).unwrap().finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "0 rows: 0 pulses billed\n");
    }

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        insta::assert_snapshot!(rendered(Layout::Csv, false));
        assert!(rendered(Layout::Csv, true).starts_with(
            "tenant,product_sku,use_unity,window_start,used_amount,pulse_count,status\n\
             UA,EWR-IAH,km,2013-01-01T10:00:00Z,2253.0816,12,billed\n"
        ));
    }

    #[test]
    fn json_keeps_amounts_as_text() {
        insta::assert_snapshot!(rendered(Layout::Json, true));
    }
}
