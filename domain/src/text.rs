//! The three names of a pulse: tenant, product and unit.

use smol_str::SmolStr;
use std::fmt;

/// The longest tenant, SKU, unit or id, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 256;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No bytes at all.
    #[error("is empty")]
    Empty,
    /// More than [`TEXT_BYTES_MAX`] bytes.
    #[error("has more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// A control character (Unicode category Cc), NUL among them.
    #[error("holds a control character")]
    Control,
}

/// Checks the rule that names and ids share: 1 to 256 bytes of UTF-8 without control characters.
///
/// # Errors
/// See [`TextError`].
pub fn check_text(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        Err(TextError::Empty)
    } else if text.len() > TEXT_BYTES_MAX {
        Err(TextError::TooLong)
    } else if has_control(text) {
        Err(TextError::Control)
    } else {
        Ok(())
    }
}

/// Every text of every pulse is looked at: almost all are ASCII, which need not be taken apart into characters.
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        ///
        /// 1 to 256 bytes of UTF-8 without control characters; every other character is allowed and means nothing.
        /// Holding one is the proof that it was checked; nothing re-checks it. Up to 23 bytes are held without an allocation.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks the text and keeps it.
            ///
            /// # Errors
            /// See [`TextError`].
            pub fn new(text: impl AsRef<str>) -> Result<Self, TextError> {
                let text = text.as_ref();
                check_text(text).map(|()| Self(SmolStr::new(text)))
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = TextError;

            fn try_from(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The tenant that a pulse is billed to.
    TenantId
}
name! {
    /// The product (stock keeping unit) that was used.
    ProductSku
}
name! {
    /// The unit that the amount is counted in, `KB` for example. Units are never converted into each other.
    UsageUnit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything_but_control_characters() {
        for text in ["a:b", "}{", "*?[", " ", "\u{1f600}", "a\u{a0}b", &"x".repeat(256)] {
            assert_eq!(TenantId::new(text).map(|tenant| tenant.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(TenantId::new(""), Err(TextError::Empty));
        assert_eq!(TenantId::new("x".repeat(257)), Err(TextError::TooLong));
        for text in ["\0", "a\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(TenantId::new(text), Err(TextError::Control), "{text:?}");
        }
    }
}
