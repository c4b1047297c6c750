//! API keys: how one is made, what it looks like, and how it is recognised without keeping it.
//!
//! A key is `pk_<id>_<secret>`: 16 and 64 lower-case hexadecimal digits. The id finds the stored key and is no secret.
//! Of the secret only a hash is stored, and it is long and random, so that nobody can guess it from the hash.

use crate::ports::{ApiKey, ApiKeys, PortError, Scope};
use domain::{TextError, Timestamp, check_text};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use subtle::ConstantTimeEq;

/// How many random bytes a new key is made of.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;
/// The length of a key in bytes: all of them have it.
pub const KEY_BYTES: usize = PREFIX.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES;

const PREFIX: &str = "pk_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A key that was just made. Its text is shown once and then forgotten.
pub struct NewKey {
    /// What is stored.
    pub key: ApiKey,
    /// What its owner keeps.
    pub text: String,
}

impl NewKey {
    /// Makes a key of bytes from a cryptographic source of random numbers.
    ///
    /// # Errors
    /// Where the name is not 1 to 256 bytes of UTF-8 without control characters.
    pub fn new(
        random: &[u8; RANDOM_BYTES],
        name: &str,
        scope: Scope,
        now: Timestamp,
    ) -> Result<Self, TextError> {
        check_text(name)?;
        let (id, secret) = random.split_at(ID_BYTES);
        let (id, secret) = (hexadecimal(id), hexadecimal(secret));
        let text = format!("{PREFIX}{id}_{secret}");
        let hash = hash(&secret);
        Ok(Self {
            key: ApiKey { id, name: name.to_owned(), scope, hash, created_at: now, revoked_at: None },
            text,
        })
    }
}

/// A key that somebody presents; nothing is known yet about whether it is one of ours.
pub struct PresentedKey {
    id: String,
    hash: [u8; 32],
}

impl PresentedKey {
    /// Reads a text that looks like a key; `None` for any other, which may be a token of another kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_digits = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        (is_digits(id, ID_BYTES) && is_digits(secret, SECRET_BYTES))
            .then(|| Self { id: id.to_owned(), hash: hash(secret) })
    }

    /// The id by which the stored key is found.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is this key and the key is in use. Takes the same time whatever part of the secret is right.
    #[must_use]
    pub fn opens(&self, key: &ApiKey) -> bool {
        let same_secret: bool = self.hash.ct_eq(&key.hash).into();
        same_secret && self.id == key.id && key.revoked_at.is_none()
    }
}

/// The stored key that a text opens; `None` for what is no key, unknown, wrong or revoked, which a caller is not to tell
/// apart. What the key may do is for the caller to check.
///
/// # Errors
/// Those of the store.
pub async fn recognise(keys: &dyn ApiKeys, text: &str) -> Result<Option<ApiKey>, PortError> {
    let Some(presented) = PresentedKey::parse(text) else { return Ok(None) };
    let stored = keys.find(presented.id()).await?;
    Ok(stored.filter(|key| presented.opens(key)))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MockApiKeys;

    const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

    fn random() -> [u8; RANDOM_BYTES] {
        std::array::from_fn(|place| u8::try_from(place * 6).unwrap())
    }

    fn new_key() -> NewKey {
        NewKey::new(&random(), "billing", Scope::Ingest, NOW).unwrap()
    }

    #[test]
    fn a_key_opens_what_was_stored_of_it() {
        let NewKey { key, text } = new_key();
        assert_eq!(text.len(), KEY_BYTES);
        assert!(text.starts_with("pk_00060c12181e242a_30363c42"), "{text}");
        let presented = PresentedKey::parse(&text).unwrap();
        assert_eq!(presented.id(), key.id);
        assert!(presented.opens(&key));
    }

    #[test]
    fn nothing_of_the_secret_is_in_what_is_stored() {
        let NewKey { key, text } = new_key();
        let secret = text.rsplit('_').next().unwrap();
        assert!(!format!("{key:?}").contains(secret));
        assert_eq!(key.hash, hash(secret), "SHA-256 of the text of the secret");
    }

    #[test]
    fn another_secret_another_id_and_a_revoked_key_do_not_open() {
        let NewKey { key, text } = new_key();
        let wrong = text.strip_suffix(|_: char| true).unwrap().to_owned() + "0";
        assert!(!PresentedKey::parse(&wrong).unwrap().opens(&key));
        let presented = PresentedKey::parse(&text).unwrap();
        assert!(!presented.opens(&ApiKey { id: "0".repeat(16), ..key.clone() }));
        assert!(!presented.opens(&ApiKey { revoked_at: Some(NOW), ..key }));
    }

    #[test]
    fn what_does_not_look_like_a_key_is_none() {
        let text = new_key().text;
        for other in [
            String::new(),
            "pk_".to_owned(),
            "eyJhbGciOiJIUzI1NiJ9.e30.x".to_owned(),
            text.to_uppercase(),
            format!("{text}0"),
            format!(" {text}"),
            text.replacen("pk_", "", 1),
            text.replace('0', "g"),
        ] {
            assert!(PresentedKey::parse(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_name_is_checked() {
        for name in ["", "a\nb"] {
            assert!(NewKey::new(&random(), name, Scope::Read, NOW).is_err(), "{name:?}");
        }
    }

    #[tokio::test]
    async fn only_a_known_key_is_recognised_and_a_store_that_is_away_is_no_answer() {
        let NewKey { key, text } = new_key();
        let stored = key.clone();
        let mut keys = MockApiKeys::new();
        keys.expect_find().returning(move |id| Ok((id == stored.id).then(|| stored.clone())));
        assert_eq!(recognise(&keys, &text).await.unwrap(), Some(key));
        let unknown = format!("pk_{}_{}", "0".repeat(16), "0".repeat(64));
        assert_eq!(recognise(&keys, &unknown).await.unwrap(), None);
        assert_eq!(recognise(&keys, "anything").await.unwrap(), None);
        let mut away = MockApiKeys::new();
        away.expect_find().returning(|_| Err(PortError::transient("find a key", "away")));
        assert!(recognise(&away, &text).await.unwrap_err().is_transient());
    }
}
