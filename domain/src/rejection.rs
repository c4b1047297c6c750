//! Why a pulse is refused: the message's own fault, never the world's.

use std::fmt;

/// The kind of fault, with a stable code for headers, tables and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not the format that was announced: not JSON, not UTF-8, nested too deeply, a field twice.
    Malformed,
    /// A required field is absent.
    MissingField,
    /// A field of the wrong type, empty, too long, or with control characters.
    InvalidField,
    /// An amount that is not greater than zero.
    NotPositive,
    /// An amount of 10^16 units or more.
    OutOfRange,
    /// An amount with more than nine decimals.
    TooPrecise,
    /// Older than `PULSE_AGE_MAX`.
    TooOld,
    /// Further ahead than `PULSE_AHEAD_MAX`.
    TooFarAhead,
    /// More pulses in one message than `PULSE_MESSAGE_ITEMS_MAX`.
    TooManyItems,
    /// Nothing to know the pulse by, where `PULSE_ANONYMOUS=reject`.
    Anonymous,
    /// The identity of an earlier pulse with other content.
    Conflict,
    /// It ended its workers, alone as well.
    Poison,
}

impl Reason {
    /// Every reason, in the order of the codes' documentation.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::MissingField,
        Self::InvalidField,
        Self::NotPositive,
        Self::OutOfRange,
        Self::TooPrecise,
        Self::TooOld,
        Self::TooFarAhead,
        Self::TooManyItems,
        Self::Anonymous,
        Self::Conflict,
        Self::Poison,
    ];

    /// The code, stable across versions.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::NotPositive => "not_positive",
            Self::OutOfRange => "out_of_range",
            Self::TooPrecise => "too_precise",
            Self::TooOld => "too_old",
            Self::TooFarAhead => "too_far_ahead",
            Self::TooManyItems => "too_many_items",
            Self::Anonymous => "anonymous",
            Self::Conflict => "conflict",
            Self::Poison => "poison",
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

/// A refusal: the kind of fault, and a sentence that names the field, what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The kind of fault.
    pub reason: Reason,
    /// The fault in words; never holds more than a short piece of the message.
    pub detail: String,
}

impl Rejection {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The field that it is about: the first word of the detail, for the reasons that are about one.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self.reason {
            Reason::MissingField
            | Reason::InvalidField
            | Reason::NotPositive
            | Reason::OutOfRange
            | Reason::TooPrecise
            | Reason::TooOld
            | Reason::TooFarAhead => self.detail.split(' ').next(),
            Reason::Malformed
            | Reason::TooManyItems
            | Reason::Anonymous
            | Reason::Conflict
            | Reason::Poison => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_code() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code("other"), None);
    }
}
