//! The usage page.

use super::{
    super::{
        chart::{Bars, Size, svg, window_name},
        format::grouped,
        page::{empty, unavailable},
        usage_query::{Faults, UsageQuery, Wanted},
    },
    Usage, is_all,
};
use application::overview::Part;
use domain::{TotalAmount, UsageUnit};
use maud::{Markup, html};

const LENGTHS: [(&str, &str); 4] = [("", "automatic"), ("hour", "hour"), ("day", "day"), ("month", "month")];

/// The form, and below it what it asks for. `pending` is how many pulses are counted and not in the books yet.
pub(in super::super) fn content(
    query: &UsageQuery,
    answer: Result<(&Wanted, &Part<Option<Usage>>), &Faults>,
    pending: Option<u64>,
) -> Markup {
    let none = Faults::new();
    html! {
        (form(query, answer.as_ref().err().copied().unwrap_or(&none)))
        @if let Some(pending) = pending.filter(|pending| *pending > 0) {
            p.notice { (grouped(pending)) " pulses are counted and not in the books yet: the next flush brings them here." }
        }
        @match answer {
            Err(_) => (empty("The question cannot be read", &html! { "Mend the fields that are marked." })),
            Ok((_, Err(error))) => (unavailable("Usage", error)),
            Ok((wanted, Ok(None))) => {
                @if is_all(&wanted.filter) {
                    (empty("The books are empty", &html! { "What is counted comes here with the next flush." }))
                } @else {
                    (empty("Nothing matches", &html! {
                        "The books hold nothing of that. " a href="/usage" { "Show everything" }
                    }))
                }
            }
            Ok((_, Ok(Some(usage)))) => { (over_time(query, usage)) (totals(query, usage)) }
        }
    }
}

fn form(query: &UsageQuery, faults: &Faults) -> Markup {
    let field = |name: &'static str, label: &str, value: &str, kind: &str| {
        let fault = faults.iter().find(|(field, _)| *field == name).map(|(_, fault)| fault);
        let note = format!("fault-{name}");
        html! {
            label {
                (label)
                input name=(name) value=(value) type=(kind) aria-invalid=[fault.map(|_| "true")]
                    aria-describedby=[fault.map(|_| &note)];
                @if let Some(fault) = fault { small.down id=(note) { (fault) } }
            }
        }
    };
    html! {
        form.card.filters method="get" action="/usage" {
            (field("tenant", "Tenant", &query.tenant, "text"))
            (field("product_sku", "Product (SKU)", &query.product_sku, "text"))
            (field("use_unity", "Unit", &query.use_unity, "text"))
            (field("from", "From (UTC)", &query.from, "datetime-local"))
            (field("to", "Before (UTC)", &query.to, "datetime-local"))
            label {
                "Window"
                select name="window" {
                    @for (value, name) in LENGTHS {
                        option value=(value) selected[query.window == value] { (name) }
                    }
                }
            }
            div.actions {
                button.main { "Show" }
                a.button href="/usage" { "Reset" }
            }
        }
    }
}

fn over_time(query: &UsageQuery, usage: &Usage) -> Markup {
    let asked = usage.units.iter().find(|(unit, _)| unit.as_str() == query.chart);
    let most = usage.units.iter().max_by_key(|(_, (_, pulses))| *pulses);
    let Some((unit, (amounts, _))) = asked.or(most) else { return html! {} };
    let starts = &usage.bounds[..amounts.len()];
    let bars = Bars { length: usage.length, starts, amounts };
    let name = |index: usize| window_name(usage.length, usage.bounds[index], false);
    html! {
        h2 { "Over time" }
        @if usage.units.len() > 1 {
            ul.units aria-label="Unit of the chart" {
                @for other in usage.units.keys() {
                    li {
                        a href={ "/usage?" (query.with_chart(other.as_str())) }
                            aria-current=[(other == unit).then_some("true")] { (other.as_str()) }
                    }
                }
            }
        }
        div.card {
            figure.chart {
                figcaption {
                    (unit.as_str()) " billed, from " (name(0)) " on" @if usage.is_cut {
                        ". There is more before: choose longer windows or an earlier end."
                    }
                }
                @for (class, size) in [("wide", Size::WIDE), ("narrow", Size::NARROW)] {
                    @match svg(&bars, size) {
                        Ok(svg) => div class=(class) role="img" aria-label="Bar chart; its figures are in the table below it" { (svg) },
                        Err(error) => (unavailable("The chart", error)),
                    }
                }
            }
            details {
                summary { "Figures of the chart" }
                (figures(usage, unit, amounts))
            }
        }
    }
}

fn figures(usage: &Usage, unit: &UsageUnit, amounts: &[TotalAmount]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "From (UTC)" }
                    th.number scope="col" { (unit.as_str()) }
                }
            }
            tbody {
                @for (start, amount) in usage.bounds.iter().zip(amounts) {
                    tr {
                        td { (window_name(usage.length, *start, false)) }
                        td.number { (grouped(amount)) }
                    }
                }
            }
        }
    }
}

fn totals(query: &UsageQuery, usage: &Usage) -> Markup {
    html! {
        h2 { "Totals of this time" }
        p {
            a.button href={ "/usage.csv?" (query.link(&[])) } download="usage.csv" { "Download by window as CSV" }
            @if usage.has_more_rows {
                " " small { "The first " (usage.rows.len()) " are shown; the CSV has all." }
            }
        }
        div.scroll role="region" aria-label="Totals" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "Tenant" }
                        th scope="col" { "Product" }
                        th.number scope="col" { "Amount" }
                        th scope="col" { "Unit" }
                        th.number scope="col" { "Pulses" }
                    }
                }
                tbody {
                    @for row in &usage.rows {
                        tr {
                            td.name { (row.tenant.as_ref().map_or("", |tenant| tenant.as_str())) }
                            td.name { (row.product_sku.as_ref().map_or("", |sku| sku.as_str())) }
                            td.number { (grouped(row.total.amount)) }
                            td { (row.use_unity.as_str()) }
                            td.number { (grouped(row.total.pulses)) }
                        }
                    }
                }
            }
        }
    }
}
