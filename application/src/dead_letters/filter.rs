//! Which letters are meant.

use crate::ports::StoredLetter;
use domain::Timestamp;
use serde::Deserialize;

/// Bodies beyond this are not read for their tenant.
const READ_BYTES_MAX: usize = 1 << 20;
/// The headers that hold the subject of a `CloudEvent` in binary mode.
const SUBJECTS: [&str; 4] = ["ce-subject", "ce_subject", "cloudEvents:subject", "cloudEvents_subject"];

/// Which letters: those that every given part fits. The default fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// One of these ids, where there is any.
    pub ids: Vec<String>,
    /// The code of the reason.
    pub reason: Option<String>,
    /// The tenant, where [`tenant_of`] can read it.
    pub tenant: Option<String>,
    /// The name of the source.
    pub source: Option<String>,
    /// Arrived then or later; one that does not say when fits none.
    pub since: Option<Timestamp>,
}

impl LetterFilter {
    /// Whether it is one of those.
    #[must_use]
    pub fn fits(&self, letter: &StoredLetter) -> bool {
        let same = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && same(&self.reason, &letter.reason)
            && same(&self.source, &letter.source)
            && self.since.is_none_or(|since| letter.received_at.is_some_and(|time| time >= since))
            && self.tenant.as_ref().is_none_or(|tenant| tenant_of(letter).as_ref() == Some(tenant))
    }

    /// Whether it fits every letter.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Deserialize)]
struct Named {
    tenant: Option<serde_json::Value>,
    subject: Option<serde_json::Value>,
}

/// The tenant that the letter names as a native pulse or a `CloudEvent` would, whatever else is wrong with it.
#[must_use]
pub fn tenant_of(letter: &StoredLetter) -> Option<String> {
    let header = letter.envelope.headers.iter().find(|(name, _)| SUBJECTS.contains(&name.as_str()));
    if let Some((_, subject)) = header {
        return Some(subject.clone());
    }
    if letter.body.len() > READ_BYTES_MAX {
        return None;
    }
    let Named { tenant, subject } = serde_json::from_slice(&letter.body).ok()?;
    match tenant.or(subject)? {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    }
}
