//! Mappings by their names: the shipped ones, and those in files.

#[cfg(test)]
mod fuzz;
mod parse;
mod test;
#[cfg(test)]
mod tests;

pub(crate) use test::run;

use application::decode::mapping::Mapping;
use std::{fs::File, io::Read, path::Path};

/// The mappings that come with the program: name and text.
pub(crate) const SHIPPED: [(&str, &str); 5] = [
    ("event", include_str!("../../../mappings/event.toml")),
    ("openmeter", include_str!("../../../mappings/openmeter.toml")),
    ("payment", include_str!("../../../mappings/payment.toml")),
    ("purchase", include_str!("../../../mappings/purchase.toml")),
    ("task", include_str!("../../../mappings/task.toml")),
];
/// Where files that win over the shipped ones are looked for, in the working directory.
const FOLDER: &str = "mappings";
const SUFFIX: &str = ".toml";
const FILE_BYTES_MAX: u64 = 1_048_576;

/// Why there is no mapping of a name.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// It is neither shipped nor the name of a file.
    Unknown,
    /// All that is wrong with the file, each with its line and what would be right.
    Faults(Vec<String>),
}

/// The mapping of a name, from `mappings/NAME.toml` where that is a file and else a shipped one; or of a path that ends
/// in `.toml`.
///
/// # Errors
/// See [`NotFound`].
pub(crate) fn find(name: &str, working_directory: &Path) -> Result<Mapping, NotFound> {
    if name.ends_with(SUFFIX) {
        return read(name, &working_directory.join(name));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err(NotFound::Unknown);
    }
    let shown = format!("{FOLDER}/{name}{SUFFIX}");
    let path = working_directory.join(&shown);
    if path.exists() {
        return read(&shown, &path);
    }
    let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).ok_or(NotFound::Unknown)?;
    parse::mapping(&shown, name, text).map(|(mapping, _)| mapping).map_err(NotFound::Faults)
}

fn read(shown: &str, path: &Path) -> Result<Mapping, NotFound> {
    let fault = |problem: String| NotFound::Faults(vec![format!("{shown}: {problem}")]);
    let file = File::open(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(format!("is longer than {FILE_BYTES_MAX} bytes, and so no mapping")));
    }
    let name = path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
    parse::mapping(shown, &name, &text).map(|(mapping, _)| mapping).map_err(NotFound::Faults)
}
