//! The one table of settings: the check, the reference and `.env.example` are made from it.

mod intake;
mod outside;
mod sources;
mod stores;

/// One setting, as the user sees it.
pub(crate) struct Definition {
    /// The environment variable.
    pub(crate) name: &'static str,
    /// What it is worth where nobody sets it; `None` where there is no such value.
    pub(crate) default: Option<&'static str>,
    /// What is allowed: follows "must be".
    pub(crate) allowed: &'static str,
    /// A value to show where there is no default.
    pub(crate) example: &'static str,
    /// Whether its value may hold a password, and so is never printed.
    pub(crate) secret: bool,
    /// What it does, in one paragraph.
    pub(crate) doc: &'static str,
}

/// Every setting under its heading, in the order of the reference.
pub(crate) const GROUPS: &[(&str, &[Definition])] = &[
    ("What is taken in", intake::WHAT),
    ("Counting", intake::COUNTING),
    ("RabbitMQ", sources::RABBITMQ),
    ("Kafka", sources::KAFKA),
    ("Inbox", sources::INBOX),
    ("Archive", stores::ARCHIVE),
    ("Stores", stores::STORES),
    ("HTTP", outside::HTTP),
    ("Logs", outside::LOGS),
];

/// Every setting, in the order of the reference.
pub(crate) fn definitions() -> impl Iterator<Item = &'static Definition> {
    GROUPS.iter().flat_map(|(_, definitions)| *definitions)
}

/// The name that other programs give to `LEDGER_URL`.
pub(crate) const LEDGER_ALIAS: &str = "DATABASE_URL";

/// Every name that is not a typo.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    definitions().map(|definition| definition.name).chain([LEDGER_ALIAS])
}

/// The definition of a setting that the program itself asks for.
///
/// # Panics
/// Where the table has no such setting: a mistake in the program, which any start shows.
pub(crate) fn definition(name: &str) -> &'static Definition {
    definitions()
        .find(|definition| definition.name == name)
        .unwrap_or_else(|| panic!("{name} is missing in the table of settings"))
}
