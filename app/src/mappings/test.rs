//! `app mappings`: what there is, and what a sample becomes.

use super::{FOLDER, NotFound, SHIPPED, find, parse};
use crate::{
    cli::{Mappings, MappingsTest},
    clock,
};
use anyhow::Context;
use application::{
    decode::{
        Decoder, Format, Item,
        mapping::{ColumnValue, Mapping},
    },
    ports::{Delivery, Envelope, PartitionId},
};
use chrono::DateTime;
use domain::{Pulse, PulseIdentity, Timestamp, TotalAmount};
use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

/// Runs one of the commands.
///
/// # Errors
/// Why the mapping or the sample cannot be used; a message that is refused is no error but the exit code 1.
pub(crate) fn run(command: &Mappings, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match command {
        Mappings::List => {
            for (name, text) in SHIPPED {
                let shown = format!("{FOLDER}/{name}.toml");
                let (_, description) = parse::mapping(&shown, name, text).map_err(|faults| told(&faults))?;
                writeln!(out, "{name:<10} {description}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Mappings::Test(arguments) => {
            let body = if arguments.sample == Path::new("-") {
                let mut body = Vec::new();
                io::stdin().read_to_end(&mut body)?;
                body
            } else {
                fs::read(&arguments.sample)
                    .with_context(|| format!("cannot read {}", arguments.sample.display()))?
            };
            let all_good = test(arguments, body, clock::now(), out)?;
            Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Writes what each message of the sample becomes; `false` where one is refused.
pub(super) fn test(
    arguments: &MappingsTest,
    body: Vec<u8>,
    received_at: Timestamp,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let mapping = find(&arguments.file, Path::new(".")).map_err(|error| match error {
        NotFound::Unknown => {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            anyhow::anyhow!(
                "{} is neither a file that ends in .toml nor one of {}",
                arguments.file,
                names.join(", ")
            )
        }
        NotFound::Faults(faults) => told(&faults),
    })?;
    let mapping = Arc::new(mapping);
    let decoder = Decoder { format: Format::Mapping(Arc::clone(&mapping)), ..Decoder::default() };
    let delivery = Delivery {
        partition: PartitionId(0),
        sequence: 0,
        log: None,
        returns: 0,
        body,
        envelope: Envelope {
            message_id: None,
            content_type: arguments.content_type.clone(),
            routing_key: arguments.routing_key.clone(),
            headers: arguments.headers.clone(),
        },
        received_at,
    };
    let mut items = Vec::new();
    decoder.decode(&delivery, &mut items);
    let mut all_good = true;
    for (number, item) in (1..).zip(&items) {
        all_good &= item.pulse.is_ok();
        write_item(number, item, out)?;
        let columns = decoder.columns(&delivery, item);
        all_good &= columns.is_ok();
        if item.index.is_some() && !mapping.columns.is_empty() {
            write_columns(&mapping, columns, out)?;
        }
    }
    Ok(all_good)
}

fn told(faults: &[String]) -> anyhow::Error {
    anyhow::anyhow!("the mapping has faults\n  {}", faults.join("\n  "))
}

fn write_item(number: u32, item: &Item, out: &mut impl Write) -> io::Result<()> {
    let Pulse { tenant, product_sku, use_unity, amount, identity, occurred_at, hour: _ } = match &item.pulse {
        Ok(pulse) => pulse,
        Err(rejection) => return writeln!(out, "{number}: refused: {rejection}"),
    };
    let identity = match identity {
        None => "none".to_owned(),
        Some(PulseIdentity::Id(id)) => id.to_string(),
        Some(PulseIdentity::Message { id, item }) => format!("message {id}, item {item}"),
        Some(PulseIdentity::CloudEvent { source, id }) => format!("source {source}, id {id}"),
    };
    let time = occurred_at.map_or_else(|| "its arrival".to_owned(), shown_time);
    writeln!(
        out,
        "{number}: counts\n  tenant       {tenant}\n  product_sku  {product_sku}\n  use_unity    {use_unity}\n  \
         used_amount  {amount}\n  identity     {identity}\n  occurred_at  {time}"
    )
}

fn write_columns(
    mapping: &Mapping,
    columns: Result<Vec<ColumnValue>, domain::Rejection>,
    out: &mut impl Write,
) -> io::Result<()> {
    let values = match columns {
        Ok(values) => values,
        Err(rejection) => return writeln!(out, "  not archived: {rejection}"),
    };
    writeln!(out, "  archive columns:")?;
    let width = mapping.columns.iter().map(|column| column.name.len()).max().unwrap_or_default();
    for (column, value) in mapping.columns.iter().zip(values) {
        writeln!(out, "    {:<width$}  {}", column.name, shown(value))?;
    }
    Ok(())
}

fn shown(value: ColumnValue) -> String {
    match value {
        ColumnValue::Null => "null".to_owned(),
        ColumnValue::Text(text) => format!("{text:?}"),
        ColumnValue::Integer(number) => number.to_string(),
        ColumnValue::Decimal(nanos) => {
            let sign = if nanos < 0 { "-" } else { "" };
            format!("{sign}{}", TotalAmount::from_nanos(nanos.unsigned_abs()))
        }
        ColumnValue::Boolean(value) => value.to_string(),
        ColumnValue::Time(time) => shown_time(time),
        ColumnValue::Json(json) => json,
    }
}

fn shown_time(time: Timestamp) -> String {
    DateTime::from_timestamp(time.seconds(), time.nanos()).map_or_else(
        || format!("{} s", time.seconds()),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
    )
}
