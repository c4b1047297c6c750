//! The view of a mapping: its columns, each with its type, for people who ask in SQL.

use application::decode::mapping::{Column, ColumnKind, Mapping};
use std::fmt::Write;

/// What the view has beside the columns of the mapping, where the mapping has no column of that name.
const OWN: [&str; 7] =
    ["tenant", "product_sku", "use_unity", "amount", "occurred_at", "received_at", "identity"];

/// The statement that makes the view `archive_NAME`, or makes it anew where the mapping has changed.
pub(super) fn statement(mapping: &Mapping) -> String {
    let columns: Vec<String> = mapping.columns.iter().map(typed).collect();
    let own = OWN.iter().filter(|own| mapping.columns.iter().all(|column| *column.name != ***own));
    let own = own.map(|own| format!("events.{own} AS {own}"));
    let select = columns.into_iter().chain(own).collect::<Vec<_>>().join(", ");
    format!(
        "CREATE OR REPLACE VIEW {} AS SELECT {select} FROM events FINAL WHERE events.format = {}",
        quoted(&format!("archive_{}", mapping.name), '`'),
        quoted(&mapping.name, '\'')
    )
}

/// What a row of an earlier version of the mapping does not have is null.
fn typed(column: &Column) -> String {
    // Qualified: in ClickHouse a name that a SELECT gives wins over a column of the table.
    let name = quoted(&column.name, '\'');
    let value = format!("events.columns[{name}]");
    let known = |value: String| format!("if(mapContains(events.columns, {name}), {value}, NULL)");
    let value = match column.kind {
        ColumnKind::Text | ColumnKind::Json => known(value),
        ColumnKind::Integer => format!("toInt64OrNull({value})"),
        ColumnKind::Decimal => format!("toDecimal128OrNull({value}, 9)"),
        ColumnKind::Boolean => known(format!("toBool({value} = 'true')")),
        ColumnKind::Time(_) => {
            format!("fromUnixTimestamp64Nano(toInt64OrNull({value}), 'UTC')")
        }
    };
    format!("{value} AS {}", quoted(&column.name, '`'))
}

fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::from(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            quoted.push('\\');
        }
        let _ = write!(quoted, "{character}");
    }
    quoted.push(quote);
    quoted
}
