//! Keys by which services call the API; only their hashes are stored.

use super::PortError;
use async_trait::async_trait;
use domain::Timestamp;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Send pulses.
    Ingest,
    /// Ask what was used.
    Read,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Read];

    /// The word for tables and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
        }
    }

    /// The scope with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// A key as it is stored: enough to recognise it, nothing to use it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Names it; it is the first part of the key itself and no secret.
    pub id: String,
    /// What a person called it.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// SHA-256 of the secret part, which is random and long, so that a slow hash would add nothing.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None` while it is in use.
    pub revoked_at: Option<Timestamp>,
}

/// Keeps the keys.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ApiKeys: Send + Sync + 'static {
    /// Adds a key. Idempotent by its id.
    async fn add(&self, key: &ApiKey) -> Result<(), PortError>;

    /// The key with this id, revoked or not.
    async fn find(&self, id: &str) -> Result<Option<ApiKey>, PortError>;

    /// All keys, the newest first.
    async fn list(&self) -> Result<Vec<ApiKey>, PortError>;

    /// Refuses the key from now on; whether there is such a key. Idempotent: the first time stays.
    async fn revoke(&self, id: &str, now: Timestamp) -> Result<bool, PortError>;
}
