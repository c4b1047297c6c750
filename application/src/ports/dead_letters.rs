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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredLetter {
    /// The id of [`DeadLetter`]; copies of one letter share it. Empty where the letter has none.
    pub id: String,
    /// The code of the reason; empty where the letter has none.
    pub reason: String,
    /// The fault in words; empty where the letter has none.
    pub detail: String,
    /// The original bytes.
    pub body: Vec<u8>,
    /// Which pulse of the message, from 0; `None` for the whole message.
    pub item: Option<u32>,
    /// The name of the source; empty where the letter has none.
    pub source: String,
    /// Where the source is a log: the place there, for people. Empty otherwise.
    pub place: String,
    /// What the message said about itself.
    pub envelope: Envelope,
    /// When it arrived.
    pub received_at: Option<Timestamp>,
    /// Why it cannot be sent back, where it cannot.
    pub obstacle: Option<String>,
}

/// Counts what was refused and is stored.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RefusedPulses: Send + Sync + 'static {
    /// How many letters are stored.
    async fn count(&self) -> Result<u64, PortError>;
}

/// A place where refused pulses are kept, as people go through it.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LetterPlace: Send + Sync + 'static {
    /// Begins to go through the letters that are there now. What comes later, also what comes back, is not among them.
    async fn open(&self) -> Result<Box<dyn LetterRun>, PortError>;
}

/// One passage through the letters of a place, the oldest first. It looks at each letter once.
///
/// A letter stays where it is unless it is sent back or removed. Dropping the run, or the death of its process at any
/// instruction, loses none.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LetterRun: Send {
    /// The next letters, at most some hundred, and about some megabytes, at once; each with a number that names it until
    /// others are given. None when all were given.
    async fn next(&mut self) -> Result<Vec<(u64, StoredLetter)>, PortError>;

    /// Sends letters of those that were given last back to where their messages came from, and removes each when it is durable there.
    ///
    /// At least once: after an error, or a death in between, a letter may be there and here. Who sends it back again
    /// gives it the same identity.
    async fn send_back(&mut self, letters: &[Returned]) -> Result<(), PortError>;

    /// Removes letters of those that were given last. Idempotent.
    async fn remove(&mut self, numbers: &[u64]) -> Result<(), PortError>;

    /// Ends the run: what was removed is durably gone, and everything else is in its place for others when it returns.
    async fn close(&mut self) -> Result<(), PortError>;
}

/// A letter on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Its number in the run.
    pub number: u64,
    /// The name of the source that its message came from.
    pub source: String,
    /// The original bytes.
    pub body: Vec<u8>,
    /// What the message said about itself, and what makes it known when it comes again.
    pub envelope: Envelope,
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
