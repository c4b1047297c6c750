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
        "CREATE OR REPLACE VIEW {} AS SELECT {select} FROM events FINAL WHERE format = {}",
        quoted(&format!("archive_{}", mapping.name), '`'),
        quoted(&mapping.name, '\'')
    )
}

/// What a row of an earlier version of the mapping does not have is null.
fn typed(column: &Column) -> String {
    let value = format!("columns[{}]", quoted(&column.name, '\''));
    let value = match column.kind {
        ColumnKind::Text | ColumnKind::Json if !column.value.optional => value,
        ColumnKind::Text | ColumnKind::Json => {
            format!("if(mapContains(columns, {}), {value}, NULL)", quoted(&column.name, '\''))
        }
        ColumnKind::Integer => format!("toInt64OrNull({value})"),
        ColumnKind::Decimal => format!("toDecimal128OrNull({value}, 9)"),
        ColumnKind::Boolean => format!(
            "if(mapContains(columns, {}), toBool({value} = 'true'), NULL)",
            quoted(&column.name, '\'')
        ),
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
