//! What is wrong with the settings, in words that say what would be right.

use super::table::{self, Definition};
use std::fmt;

/// The longest piece of a bad value that is shown, in characters.
const SHOWN_MAX: usize = 60;

/// One thing that is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    name: String,
    problem: String,
}

impl Fault {
    /// A fault of the setting, or of the file, with this name.
    pub(crate) fn new(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { name: name.into(), problem: problem.into() }
    }

    /// A value, given under `name`, outside of what the table allows.
    pub(crate) fn not_allowed(name: &str, definition: &Definition, value: &str) -> Self {
        let value = if definition.secret { "the value (not shown)".to_owned() } else { shown(value) };
        Self::new(name, format!("{value} is not allowed: it must be {}", definition.allowed))
    }

    /// A setting that `caller` cannot do without; `instead` is the way out, a clause after "or".
    pub(crate) fn lacking(name: &str, caller: &str, instead: &str) -> Self {
        let allowed = table::definition(name).allowed;
        Self::new(name, format!("{caller} needs it, and it is not set: set it to {allowed}, or {instead}"))
    }
}

fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.problem)
    }
}

/// Everything that is wrong, one fault a line. Never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(formatter, "{count} {} in the settings", if count == 1 { "fault" } else { "faults" })?;
        for fault in &self.0 {
            write!(formatter, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}
