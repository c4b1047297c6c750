//! The rules of counting, each of which a build for tests can break on request: a harness is believed only when it
//! catches every one of them, and a rule has its price. In every other build nothing can be broken.

/// A broken rule; `PULSE_MUTATION` names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Deliveries are acknowledged when they arrive.
    AckFirst,
    /// No identity is remembered.
    NoDedupe,
    /// What is flushed has one place only, and takes the place of what is left there.
    Rename,
    /// A generation is deleted before the ledger has it.
    DeleteBeforeCommit,
    /// Batches go to the generation that the worker last saw.
    NoGenerationCheck,
    /// Dead letters are not waited for.
    DeadLetterUnconfirmed,
    /// One pulse of each batch is told as counted, and is not.
    DropPulse,
}

impl Mutation {
    /// Whether the rule is broken.
    #[cfg(not(feature = "mutations"))]
    #[inline]
    #[must_use]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether the rule is broken.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn is_on(self) -> bool {
        use std::sync::LazyLock;
        static NAMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("PULSE_MUTATION").ok());
        NAMED.as_deref() == Some(self.name())
    }

    #[cfg(feature = "mutations")]
    const fn name(self) -> &'static str {
        match self {
            Self::AckFirst => "ack-first",
            Self::NoDedupe => "no-dedupe",
            Self::Rename => "rename",
            Self::DeleteBeforeCommit => "delete-before-commit",
            Self::NoGenerationCheck => "no-generation-check",
            Self::DeadLetterUnconfirmed => "dead-letter-unconfirmed",
            Self::DropPulse => "drop-pulse",
        }
    }
}
