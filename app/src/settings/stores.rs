//! Which backends count and keep the books, each choice with its own settings.

use super::{Fault, Faults, Redis, Settings, read::Reader, read::server_url, table::LEDGER_ALIAS};
use application::decode::SkuRule;
use infrastructure::json::JsonLedger;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use url::Url;

/// What `LEDGER_URL` says.
#[derive(Clone, Debug)]
pub(super) enum LedgerChoice {
    /// A PostgreSQL database.
    Postgres(SecretString),
    /// An SQLite file.
    Embedded(PathBuf),
    /// A folder of JSON files.
    Json(PathBuf),
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
    /// In a folder of JSON files.
    Json(PathBuf),
}

/// Both of them.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    /// Where pulses are counted.
    pub(crate) accumulator: Accumulator,
    /// Where the hourly totals are kept.
    pub(crate) ledger: Ledger,
}

impl Accumulator {
    /// The embedded file, where that counts.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Redis(_) => None,
            Self::Embedded(file) => Some(file),
        }
    }
}

impl Ledger {
    /// The embedded file, where that keeps the totals.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Postgres(_) | Self::Json(_) => None,
            Self::Embedded(file) => Some(file),
        }
    }

    /// The file that is there once anything was booked, where a file tells.
    pub(crate) fn sign(&self) -> Option<PathBuf> {
        match self {
            Self::Postgres(_) => None,
            Self::Embedded(file) => Some(file.clone()),
            Self::Json(folder) => Some(JsonLedger::state_file(folder)),
        }
    }

    /// Which products it takes.
    pub(crate) const fn sku_rule(&self) -> SkuRule {
        match self {
            Self::Postgres(_) | Self::Embedded(_) => SkuRule::Any,
            Self::Json(_) => SkuRule::FileName,
        }
    }
}

impl fmt::Display for Accumulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(redis) => shown_url(&redis.url).fmt(formatter),
            Self::Embedded(file) => file.display().fmt(formatter),
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => shown_url(url).fmt(formatter),
            Self::Embedded(file) => file.display().fmt(formatter),
            Self::Json(folder) => write!(formatter, "the JSON files in {}", folder.display()),
        }
    }
}

impl fmt::Display for Stores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accumulator, ledger } = self;
        if accumulator.file().is_some() && accumulator.file() == ledger.file() {
            accumulator.fmt(formatter)
        } else {
            write!(formatter, "{accumulator} and {ledger}")
        }
    }
}

/// A URL without user, password and parameters.
pub(crate) fn shown_url(url: &SecretString) -> String {
    let Ok(url) = Url::parse(url.expose_secret()) else { return "(not shown)".to_owned() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

impl Stores {
    /// What operators call the accumulator.
    pub(crate) const fn sink_name(&self) -> &'static str {
        match self.accumulator {
            Accumulator::Redis(_) => "redis",
            Accumulator::Embedded(_) => "embedded file",
        }
    }

    /// One file for everything.
    pub(crate) fn embedded(file: &Path) -> Self {
        Self {
            accumulator: Accumulator::Embedded(file.to_owned()),
            ledger: Ledger::Embedded(file.to_owned()),
        }
    }
}

impl From<&LedgerChoice> for Ledger {
    fn from(choice: &LedgerChoice) -> Self {
        match choice {
            LedgerChoice::Postgres(url) => Self::Postgres(url.clone()),
            LedgerChoice::Embedded(file) => Self::Embedded(file.clone()),
            LedgerChoice::Json(folder) => Self::Json(folder.clone()),
        }
    }
}

impl LedgerChoice {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let alias = reader.text(LEDGER_ALIAS);
        if let (Some(alias), Some(own)) = (alias, reader.text("LEDGER_URL"))
            && alias != own
        {
            reader.fault(
                LEDGER_ALIAS,
                "differs from LEDGER_URL, which it stands for (values not shown): set only one",
            );
        }
        reader.optional_or("LEDGER_URL", LEDGER_ALIAS, ledger_url)
    }
}

fn ledger_url(text: &str) -> Option<LedgerChoice> {
    if let Some(folder) = text.strip_prefix("json://").or_else(|| text.strip_prefix("json:")) {
        return (!folder.is_empty()).then(|| LedgerChoice::Json(PathBuf::from(folder)));
    }
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
            (None, Some(LedgerChoice::Json(folder))) => Ok(self.embedded_before(folder)),
            (Some(redis), Some(ledger)) => {
                Ok(Stores { accumulator: Accumulator::Redis(redis.clone()), ledger: ledger.into() })
            }
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

    /// The embedded file, where no server is configured.
    pub(crate) fn only_embedded(&self) -> Option<Stores> {
        match (&self.redis, &self.ledger) {
            (None, None) => Some(Stores::embedded(&self.embedded)),
            (None, Some(LedgerChoice::Embedded(file))) => Some(Stores::embedded(file)),
            (None, Some(LedgerChoice::Json(folder))) => Some(self.embedded_before(folder)),
            _ => None,
        }
    }

    /// The embedded file counts, and the totals go to the folder.
    fn embedded_before(&self, folder: &Path) -> Stores {
        Stores {
            accumulator: Accumulator::Embedded(self.embedded.clone()),
            ledger: Ledger::Json(folder.to_owned()),
        }
    }

    /// Whether Redis or a ledger of its own kind is configured, which the embedded mode does not use.
    pub(crate) const fn names_servers(&self) -> bool {
        self.redis.is_some() || matches!(self.ledger, Some(LedgerChoice::Postgres(_) | LedgerChoice::Json(_)))
    }

    /// Only the ledger: the embedded file where none is configured.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.as_ref().map_or_else(|| Ledger::Embedded(self.embedded.clone()), Ledger::from)
    }
}
