//! The one error of all ports: what was being done, and whether it is worth trying again.

use std::error::Error;

/// Whether the same call can succeed later without anybody doing anything to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortErrorKind {
    /// The world's fault, and it may pass: a server is away, restarting, full or overloaded. Hold and try again.
    Transient,
    /// Ours, or one that a person must look at: storage was lost, a setting is wrong, the answer makes no sense.
    /// Everything that is not known to be transient.
    Permanent,
}

/// A port could not do what it was asked; nothing is known about its effect unless the port says so.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct PortError {
    kind: PortErrorKind,
    operation: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl PortError {
    /// A fault that may pass.
    pub fn transient(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: PortErrorKind::Transient, operation, source: source.into() }
    }

    /// A fault that stays.
    pub fn permanent(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: PortErrorKind::Permanent, operation, source: source.into() }
    }

    /// Whether it may pass.
    #[must_use]
    pub const fn kind(&self) -> PortErrorKind {
        self.kind
    }

    /// Whether the call is worth repeating.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == PortErrorKind::Transient
    }
}
