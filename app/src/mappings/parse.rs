//! Reads the TOML of a mapping, and tells of every fault in it by its line.

use application::decode::mapping::{Column, ColumnKind, Identity, Mapping, Pick, TimeFormat, Value};
use domain::Amount;
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

const NAMED_PULSE: [&str; 6] =
    ["tenant", "product_sku", "use_unity", "used_amount", "identity", "occurred_at"];
const COLUMN_NAME_BYTES_MAX: usize = 64;
const PLACE: &str = "{ pointer = \"/…\" }, or another of attribute, routing_key, routing_key_without_last, header, \
                     constant and template";

type Node<'t> = Spanned<DeValue<'t>>;
type Table<'t> = DeTable<'t>;

/// The mapping of a text, and its description.
///
/// # Errors
/// Every fault, in the order of the lines. `file` is how they name the text.
pub(super) fn mapping(file: &str, name: &str, text: &str) -> Result<(Mapping, String), Vec<String>> {
    let mut reader = Reader { file, text, faults: Vec::new() };
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            reader.fault(error.span().unwrap_or_default(), format!("is not TOML: {}", error.message()));
            return Err(reader.told());
        }
    };
    let read = reader.root(name, root.get_ref());
    match read {
        Some(read) if reader.faults.is_empty() => Ok(read),
        _ => Err(reader.told()),
    }
}

struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// The line of each fault, and what is wrong.
    faults: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn fault(&mut self, span: Range<usize>, problem: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        self.faults.push((before.matches('\n').count() + 1, problem.into()));
    }

    fn told(mut self) -> Vec<String> {
        self.faults.sort_by_key(|(line, _)| *line);
        self.faults
            .into_iter()
            .map(|(line, problem)| format!("{}, line {line}: {problem}", self.file))
            .collect()
    }

    fn root(&mut self, name: &str, root: &Table<'_>) -> Option<(Mapping, String)> {
        self.only("a mapping", root, &["description", "message", "checks", "pulse", "columns"]);
        let description = root.get("description").and_then(|node| self.string("description", node));
        let reads_cloud_events = match root.get("message") {
            None => false,
            Some(node) => match node.get_ref().as_str() {
                Some("json") => false,
                Some("cloudevents") => true,
                _ => {
                    self.fault(node.span(), "message must be \"json\" or \"cloudevents\"");
                    // What follows from either is not told as well.
                    true
                }
            },
        };
        let checks = root.get("checks").map(|node| self.checks(node)).unwrap_or_default();
        let columns = root.get("columns").map(|node| self.columns(node)).unwrap_or_default();
        let Some(pulse) = root.get("pulse") else {
            self.fault(
                0..0,
                "pulse is missing: add a table [pulse] that says where the parts of a pulse are",
            );
            return None;
        };
        let span = pulse.span();
        let pulse = self.table("pulse", pulse)?;
        self.only("pulse", pulse, &NAMED_PULSE);
        let tenant = self.part(pulse, &span, "tenant", &["one_of"]);
        let product_sku = self.part(pulse, &span, "product_sku", &["one_of"]);
        let use_unity = self.part(pulse, &span, "use_unity", &["one_of"]);
        let used_amount = self.part(pulse, &span, "used_amount", &[]);
        let identity = self.identity(pulse, &span, reads_cloud_events);
        let occurred_at = pulse.get("occurred_at").and_then(|node| {
            let (value, table) = self.value("occurred_at", node, &["optional", "format"])?;
            let format = self.time_format(table);
            Some((value, format))
        });
        let mapping = Mapping {
            name: name.into(),
            reads_cloud_events,
            checks,
            tenant: tenant?,
            product_sku: product_sku?,
            use_unity: use_unity?,
            used_amount: used_amount?,
            identity: identity?,
            occurred_at,
            columns,
        };
        if let Pick::Constant(amount) = &mapping.used_amount.pick
            && let Err(error) = Amount::parse(amount)
        {
            let span = pulse.get("used_amount").map(Spanned::span).unwrap_or_default();
            self.fault(span, format!("used_amount {error}: write a number greater than zero"));
        }
        self.check_attributes(root, &mapping);
        Some((mapping, description.unwrap_or_default()))
    }

    /// Attributes are found in events only.
    fn check_attributes(&mut self, root: &Table<'_>, mapping: &Mapping) {
        let identity = if let Identity::Value(value) = &mapping.identity { Some(value) } else { None };
        let needs_event = [&mapping.tenant, &mapping.product_sku, &mapping.use_unity, &mapping.used_amount]
            .into_iter()
            .chain(identity)
            .chain(&mapping.checks)
            .chain(mapping.occurred_at.as_ref().map(|(value, _)| value))
            .chain(mapping.columns.iter().map(|column| &column.value))
            .any(|value| value.pick.needs_event());
        if needs_event && !mapping.reads_cloud_events {
            let span = root.get("message").map(Spanned::span).unwrap_or_default();
            self.fault(span, "attributes are found in CloudEvents only: add message = \"cloudevents\"");
        }
    }

    fn checks(&mut self, node: &Node<'_>) -> Vec<Value> {
        let Some(nodes) = node.get_ref().as_array() else {
            self.fault(
                node.span(),
                "checks must be a list, like [{ routing_key = -2, one_of = [\"event\"] }]",
            );
            return Vec::new();
        };
        nodes
            .iter()
            .filter_map(|node| self.value("check", node, &["one_of"]).map(|(value, _)| value))
            .collect()
    }

    /// A part of every pulse.
    fn part(
        &mut self,
        pulse: &Table<'_>,
        span: &Range<usize>,
        field: &str,
        options: &[&str],
    ) -> Option<Value> {
        match pulse.get(field) {
            Some(node) => self.value(field, node, options).map(|(value, _)| value),
            None => {
                self.fault(span.clone(), format!("{field} is missing: add {field} = {PLACE}"));
                None
            }
        }
    }

    fn identity(
        &mut self,
        pulse: &Table<'_>,
        span: &Range<usize>,
        reads_cloud_events: bool,
    ) -> Option<Identity> {
        let Some(node) = pulse.get("identity") else {
            let remedy = "identity is missing: add identity = { pointer = \"/…\" }, identity = \"cloudevent\", or \
                          identity = \"none\" where a message carries nothing to know it by";
            self.fault(span.clone(), remedy);
            return None;
        };
        match node.get_ref() {
            DeValue::String(text) if text == "none" => Some(Identity::None),
            DeValue::String(text) if text == "cloudevent" => {
                if !reads_cloud_events {
                    let remedy =
                        "identity = \"cloudevent\" is for CloudEvents: add message = \"cloudevents\"";
                    self.fault(node.span(), remedy);
                }
                Some(Identity::CloudEvent)
            }
            DeValue::String(_) => {
                self.fault(node.span(), "identity must be a place, \"cloudevent\" or \"none\"");
                None
            }
            _ => self.value("identity", node, &[]).map(|(value, _)| Identity::Value(value)),
        }
    }

    fn columns(&mut self, node: &Node<'_>) -> Vec<Column> {
        let Some(table) = self.table("columns", node) else { return Vec::new() };
        let mut columns: Vec<_> = table.iter().collect();
        columns.sort_by_key(|(name, _)| name.span().start);
        columns.into_iter().filter_map(|(name, node)| self.column(name, node)).collect()
    }

    fn column(&mut self, name: &Spanned<toml::de::DeString<'_>>, node: &Node<'_>) -> Option<Column> {
        let text = name.get_ref();
        let is_name = text.len() <= COLUMN_NAME_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_name {
            let remedy =
                "a column's name is made of lower-case letters, digits and _, a letter first, at most 64";
            self.fault(name.span(), format!("{text:?} is no name: {remedy}"));
        }
        let (value, table) = self.value(text, node, &["optional", "one_of", "type", "format"])?;
        let kind = match table.get("type") {
            None => ColumnKind::Text,
            Some(kind) => match kind.get_ref().as_str() {
                Some("text") => ColumnKind::Text,
                Some("integer") => ColumnKind::Integer,
                Some("decimal") => ColumnKind::Decimal,
                Some("boolean") => ColumnKind::Boolean,
                Some("time") => ColumnKind::Time(self.time_format(table)),
                Some("json") => ColumnKind::Json,
                _ => {
                    self.fault(kind.span(), "type must be text, integer, decimal, boolean, time or json");
                    return None;
                }
            },
        };
        if let Some(format) = table.get("format").filter(|_| !matches!(kind, ColumnKind::Time(_))) {
            self.fault(format.span(), "format is for times: add type = \"time\", or remove it");
        }
        if let Some(one_of) = table.get("one_of").filter(|_| kind != ColumnKind::Text) {
            self.fault(one_of.span(), "one_of is for columns of the type text: remove it");
        }
        if kind == ColumnKind::Json && !matches!(value.pick, Pick::Pointer(_)) {
            self.fault(node.span(), "a column of the type json is found by a pointer");
        }
        Some(Column { name: text.as_ref().into(), kind, value })
    }

    /// A place with its options, and the table that they stand in.
    fn value<'n, 't>(
        &mut self,
        field: &str,
        node: &'n Node<'t>,
        options: &[&str],
    ) -> Option<(Value, &'n Table<'t>)> {
        let Some(table) = node.get_ref().as_table() else {
            self.fault(node.span(), format!("{field} must be {PLACE}"));
            return None;
        };
        let allowed: Vec<&str> = Pick::KINDS.iter().chain(options).copied().collect();
        self.only(field, table, &allowed);
        let places: Vec<_> =
            table.iter().filter(|(key, _)| Pick::KINDS.contains(&key.get_ref().as_ref())).collect();
        let [(kind, argument)] = places[..] else {
            let problem = if places.is_empty() { "says no place" } else { "says more than one place" };
            self.fault(node.span(), format!("{field} {problem}: it must be {PLACE}"));
            return None;
        };
        let text = match argument.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => {
                let remedy = format!("{field}: {} must be a string or a whole number", kind.get_ref());
                self.fault(argument.span(), remedy);
                return None;
            }
        };
        let pick = match Pick::new(kind.get_ref(), text) {
            Ok(pick) => pick,
            Err(error) => {
                self.fault(argument.span(), format!("{field}: {text:?}: {error}"));
                return None;
            }
        };
        let mut value = Value::new(field, pick);
        if let Some(optional) = table.get("optional") {
            match optional.get_ref().as_bool() {
                Some(is_optional) => value.optional = is_optional,
                None => self.fault(optional.span(), format!("{field}: optional must be true or false")),
            }
        }
        if let Some(one_of) = table.get("one_of") {
            value.one_of = self.texts(field, one_of);
        }
        Some((value, table))
    }

    fn texts(&mut self, field: &str, node: &Node<'_>) -> Vec<Box<str>> {
        let texts: Option<Vec<Box<str>>> = node
            .get_ref()
            .as_array()
            .and_then(|nodes| nodes.iter().map(|node| node.get_ref().as_str().map(Into::into)).collect())
            .filter(|texts: &Vec<_>| !texts.is_empty());
        texts.unwrap_or_else(|| {
            self.fault(node.span(), format!("{field}: one_of must be a list of strings, not empty"));
            Vec::new()
        })
    }

    fn time_format(&mut self, table: &Table<'_>) -> TimeFormat {
        let Some(node) = table.get("format") else { return TimeFormat::default() };
        match node.get_ref().as_str() {
            Some("rfc3339") => TimeFormat::Rfc3339,
            Some("unix_seconds") => TimeFormat::UnixSeconds,
            Some("unix_milliseconds") => TimeFormat::UnixMilliseconds,
            _ => {
                self.fault(node.span(), "format must be rfc3339, unix_seconds or unix_milliseconds");
                TimeFormat::default()
            }
        }
    }

    fn table<'n, 't>(&mut self, field: &str, node: &'n Node<'t>) -> Option<&'n Table<'t>> {
        let table = node.get_ref().as_table();
        if table.is_none() {
            self.fault(node.span(), format!("{field} must be a table: [{field}]"));
        }
        table
    }

    fn string(&mut self, field: &str, node: &Node<'_>) -> Option<String> {
        let text = node.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.fault(node.span(), format!("{field} must be a string"));
        }
        text
    }

    /// Notes every key that is none of these.
    fn only(&mut self, of: &str, table: &Table<'_>, known: &[&str]) {
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let nearest = known.iter().min_by_key(|other| strsim::damerau_levenshtein(name, other));
                let meant = nearest
                    .filter(|other| strsim::damerau_levenshtein(name, other) <= 2)
                    .map(|other| format!("; did you mean {other}?"))
                    .unwrap_or_default();
                let known = known.join(", ");
                self.fault(key.span(), format!("{name:?} is no part of {of}, which has {known}{meant}"));
            }
        }
    }
}
