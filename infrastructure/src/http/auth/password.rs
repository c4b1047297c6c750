//! The one password, compared as a hash of argon2, always at the same cost.

use super::super::Problem;
use argon2::{
    Argon2,
    password_hash::{Error, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use axum::http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::{error, warn};

/// How many passwords are hashed at once: each takes 19 MiB and some 50 ms of a core.
const HASHES_AT_ONCE: usize = 2;

pub(super) struct Password {
    username: [u8; 32],
    hash: Arc<str>,
    turns: Semaphore,
}

impl Password {
    /// A PHC string as it is; anything else is a password for development, and is hashed here.
    pub(super) fn new(username: &str, password: &SecretString) -> Result<Self, Error> {
        let text = password.expose_secret();
        let hash = if text.starts_with("$argon2") {
            PasswordHash::new(text).map_err(|_| Error::EncodingInvalid)?;
            text.to_owned()
        } else {
            warn!("API_PASSWORD is not hashed: good for development, elsewhere set the PHC string of argon2");
            hash(text)?
        };
        Ok(Self {
            username: Sha256::digest(username).into(),
            hash: hash.into(),
            turns: Semaphore::new(HASHES_AT_ONCE),
        })
    }

    /// Takes as long for a wrong name as for a wrong password.
    pub(super) async fn is_right(&self, username: &str, password: &str) -> Result<bool, Problem> {
        let busy = || {
            let detail = "too many logins at once: try again";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_logins", detail).retry_after(1)
        };
        let _turn = self.turns.try_acquire().map_err(|_| busy())?;
        let given: [u8; 32] = Sha256::digest(username).into();
        let (hash, password) = (Arc::clone(&self.hash), password.to_owned());
        let right_password = spawn_blocking(move || {
            let hash = PasswordHash::new(&hash).ok()?;
            Some(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        let right_password = right_password.await.ok().flatten().ok_or_else(|| {
            error!("a password could not be checked");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the password could not be checked")
        })?;
        Ok(bool::from(given.ct_eq(&self.username)) & right_password)
    }
}

/// The PHC string of a password, with a salt of its own.
pub(super) fn hash(password: &str) -> Result<String, Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashed_or_plain_only_the_right_name_and_password_match() {
        for stored in ["secret".to_owned(), hash("secret").unwrap()] {
            let password = Password::new("admin", &stored.clone().into()).unwrap();
            for (name, given, right) in [
                ("admin", "secret", true),
                ("admin", "Secret", false),
                ("admin", "", false),
                ("admim", "secret", false),
                ("admin", &stored, stored == "secret"),
            ] {
                assert_eq!(password.is_right(name, given).await.unwrap(), right, "{name} {given}");
            }
        }
    }

    #[test]
    fn a_hash_that_is_none_is_refused_at_the_start() {
        assert!(Password::new("admin", &"$argon2id$v=19$nonsense".into()).is_err());
    }
}
