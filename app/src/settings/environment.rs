//! Where the values come from: flags, the environment, and `.env`, in this order.

use super::{Fault, table};
use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

/// How many edits make a name a misspelling of one of ours.
const TYPO_EDITS_MAX: usize = 2;

/// The values of our settings as text, with what was wrong in finding them.
#[derive(Default)]
pub(crate) struct Environment {
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Environment {
    /// Collects our settings; an empty value counts as not set, as container tools pass it.
    ///
    /// `flags` win over `variables`, and these over the file, which need not exist.
    pub(crate) fn collect(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        file: &Path,
    ) -> Self {
        let mut found = Self::default();
        for (name, value) in flags {
            found.values.insert(name.to_owned(), value);
        }
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => found.offer(name, value, "the environment"),
                Err(_) if table::names().any(|ours| ours == name) => {
                    found.faults.push(Fault::new(name, "is not UTF-8"));
                }
                Err(_) => {}
            }
        }
        found.read_file(file);
        found.values.retain(|_, value| !value.is_empty());
        found
    }

    fn read_file(&mut self, file: &Path) {
        let entries = match dotenvy::from_path_iter(file) {
            Ok(entries) => entries,
            Err(error) if error.not_found() => return,
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                return self.faults.push(Fault::new(file.display().to_string(), problem));
            }
        };
        for entry in entries {
            match entry {
                Ok((name, value)) => self.offer(name, value, ".env"),
                // The line may hold a password, so only its number is shown.
                Err(dotenvy::Error::LineParse(line, _)) => {
                    let text = fs::read_to_string(file).unwrap_or_default();
                    let number =
                        text.lines().position(|other| line.starts_with(other)).map_or(0, |place| place + 1);
                    let problem =
                        format!("line {number} is not NAME=value; a value with spaces needs quotes");
                    self.faults.push(Fault::new(file.display().to_string(), problem));
                }
                Err(error) => {
                    let problem = format!("cannot be read: {error}");
                    return self.faults.push(Fault::new(file.display().to_string(), problem));
                }
            }
        }
    }

    fn offer(&mut self, name: String, value: String, origin: &str) {
        if table::names().any(|ours| ours == name) {
            self.values.entry(name).or_insert(value);
        } else if let Some(ours) = meant(&name) {
            let problem = format!("is not a setting: did you mean {ours}? (found in {origin})");
            self.faults.push(Fault::new(name, problem));
        }
    }

    /// The value of a setting where somebody gave one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// What was wrong in finding the values.
    pub(crate) fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

/// The setting that a name is a misspelling of.
fn meant(name: &str) -> Option<&'static str> {
    table::names()
        .map(|ours| (strsim::damerau_levenshtein(name, ours), ours))
        .filter(|(edits, _)| *edits <= TYPO_EDITS_MAX)
        .min()
        .map(|(_, ours)| ours)
}
