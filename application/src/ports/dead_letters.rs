//! Where messages go that nothing can be done with.

use super::{Envelope, PortError};
use async_trait::async_trait;
use domain::{LogName, Rejection, Timestamp};

/// One refused pulse, or a whole message that no pulse could be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The same for the same pulse of the same message, however often it is refused: 32 hexadecimal digits.
    pub id: String,
    /// Why it was refused.
    pub rejection: Rejection,
    /// The original bytes of the refused part, unchanged.
    pub body: Vec<u8>,
    /// Which pulse of the message, from 0; `None` for the whole message.
    pub item: Option<u32>,
    /// The name of the source.
    pub source: String,
    /// Where the source is a log: which, and the offset of the message there.
    pub place: Option<(LogName, u64)>,
    /// What the message said about itself.
    pub envelope: Envelope,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// One refused pulse as it is found in the store, where others may have put letters of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// The id of [`DeadLetter`]; empty where the letter has none.
    pub id: String,
    /// The code of the reason; empty where the letter has none.
    pub reason: String,
    /// The fault in words; empty where the letter has none.
    pub detail: String,
    /// The first of the original bytes, at most [`Self::BODY_BYTES_MAX`].
    pub body: Vec<u8>,
    /// How many bytes there are.
    pub body_bytes: u64,
    /// Which pulse of the message, from 0; `None` for the whole message.
    pub item: Option<u32>,
    /// The name of the source; empty where the letter has none.
    pub source: String,
    /// When it arrived.
    pub received_at: Option<Timestamp>,
}

impl StoredLetter {
    /// The most bytes of a body that are shown.
    pub const BODY_BYTES_MAX: usize = 2_000;
}

/// Looks at what was refused and changes nothing.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RefusedPulses: Send + Sync + 'static {
    /// Some of the stored letters, at most `limit`: the latest, newest first, where the store can tell; a queue gives
    /// those at its front, in its order.
    async fn letters(&self, limit: u32) -> Result<Vec<StoredLetter>, PortError>;

    /// How many letters are stored.
    async fn count(&self) -> Result<u64, PortError>;
}

/// Keeps what was refused, with the reason, until a person has looked at it.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores the letters; all are durable when it succeeds. After an error some may be.
    ///
    /// At least once: a repetition may store a letter again, recognisable by its id.
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError>;
}
