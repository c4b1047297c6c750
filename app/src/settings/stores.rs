//! Which backends count and keep the books, each choice with its own settings.

use super::{Fault, Faults, Redis, Settings, read::Reader, read::server_url, table::LEDGER_ALIAS};
use secrecy::SecretString;
use std::path::PathBuf;

/// What LEDGER_URL says.
#[derive(Clone, Debug)]
pub(super) enum LedgerChoice {
    /// A PostgreSQL database.
    Postgres(SecretString),
    /// An SQLite file.
    Embedded(PathBuf),
}

/// Where pulses are counted.
#[derive(Clone, Debug)]
pub(crate) enum Accumulator {
    /// In Redis.
    Redis(Redis),
    /// In the embedded file.
    Embedded(PathBuf),
}

/// Where the hourly totals are kept.
#[derive(Clone, Debug)]
pub(crate) enum Ledger {
    /// In PostgreSQL.
    Postgres(SecretString),
    /// In the embedded file.
    Embedded(PathBuf),
}

/// Both of them.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    /// Where pulses are counted.
    pub(crate) accumulator: Accumulator,
    /// Where the hourly totals are kept.
    pub(crate) ledger: Ledger,
}

impl Stores {
    /// One file for everything.
    pub(crate) fn embedded(file: &PathBuf) -> Self {
        Self { accumulator: Accumulator::Embedded(file.clone()), ledger: Ledger::Embedded(file.clone()) }
    }
}

impl LedgerChoice {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let alias = reader.text(LEDGER_ALIAS);
        if let (Some(alias), Some(own)) = (alias, reader.text("LEDGER_URL"))
            && alias != own
        {
            reader.fault(LEDGER_ALIAS, "differs from LEDGER_URL, which it stands for (values not shown): set only one");
        }
        reader.optional_or("LEDGER_URL", LEDGER_ALIAS, ledger_url)
    }
}

fn ledger_url(text: &str) -> Option<LedgerChoice> {
    let file = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"));
    match file {
        Some(file) => {
            (!file.is_empty() && !file.contains('?')).then(|| LedgerChoice::Embedded(PathBuf::from(file)))
        }
        None => server_url(&["postgres", "postgresql"])(text).map(LedgerChoice::Postgres),
    }
}

impl Settings {
    /// The stores of a mode that runs beside others: it needs servers, or an embedded file that was asked for.
    ///
    /// # Errors
    /// Names every setting that is lacking.
    pub(crate) fn stores(&self, caller: &str, instead: &str) -> Result<Stores, Faults> {
        match (&self.redis, &self.ledger) {
            (None, Some(LedgerChoice::Embedded(file))) => Ok(Stores::embedded(file)),
            (Some(redis), Some(ledger)) => Ok(Stores {
                accumulator: Accumulator::Redis(redis.clone()),
                ledger: match ledger {
                    LedgerChoice::Postgres(url) => Ledger::Postgres(url.clone()),
                    LedgerChoice::Embedded(file) => Ledger::Embedded(file.clone()),
                },
            }),
            (redis, ledger) => {
                let lacking = [("REDIS_URL", redis.is_none()), ("LEDGER_URL", ledger.is_none())];
                let lacking = lacking.into_iter().filter(|(_, lacks)| *lacks);
                Err(Faults(lacking.map(|(name, _)| Fault::lacking(name, caller, instead)).collect()))
            }
        }
    }

    /// As [`Self::stores`], and the embedded file where no server is configured at all.
    ///
    /// # Errors
    /// Names the setting that is lacking where only one of the two is configured.
    pub(crate) fn stores_or_embedded(&self, caller: &str, instead: &str) -> Result<Stores, Faults> {
        match (&self.redis, &self.ledger) {
            (None, None) => Ok(Stores::embedded(&self.embedded)),
            _ => self.stores(caller, instead),
        }
    }

    /// Only the ledger: the embedded file where none is configured.
    pub(crate) fn ledger(&self) -> Ledger {
        match &self.ledger {
            Some(LedgerChoice::Postgres(url)) => Ledger::Postgres(url.clone()),
            Some(LedgerChoice::Embedded(file)) => Ledger::Embedded(file.clone()),
            None => Ledger::Embedded(self.embedded.clone()),
        }
    }
}
