//! Who may do what: a person by name and password, then by a token; a service by its key.
//!
//! Public to the dashboard: [`login`], [`verify`], and the session cookie.

mod attempts;
mod guard;
mod hs256;
mod password;
mod session;
mod token;

pub(super) use guard::{Caller, admin, ingest, read};
pub use session::{ended_session, session_cookie, session_token};
pub use token::{InvalidToken, Token};

use super::{Credentials, HttpState, Problem};
use application::ports::PortError;
use attempts::Attempts;
use password::Password;
use secrecy::ExposeSecret;
use std::net::IpAddr;
use token::Tokens;

/// Checks passwords and tokens.
pub struct Authority {
    password: Password,
    tokens: Tokens,
    attempts: Attempts,
}

impl Authority {
    /// Prepares the credentials.
    ///
    /// # Errors
    /// Permanent where the hash of the password cannot be read or the secret is too short.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, PortError> {
        const OPERATION: &str = "prepare the credentials of the API";
        let secret = credentials.jwt_secret.expose_secret().as_bytes();
        if secret.len() < Credentials::SECRET_BYTES_MIN {
            return Err(PortError::permanent(OPERATION, "JWT_SECRET is too short"));
        }
        Ok(Self {
            password: Password::new(&credentials.username, &credentials.password)
                .map_err(|error| PortError::permanent(OPERATION, error))?,
            tokens: Tokens::new(secret),
            attempts: Attempts::default(),
        })
    }
}

/// The hash of a password, as the settings take it: a PHC string of argon2.
///
/// # Errors
/// Permanent where the machine gives no random numbers for the salt.
pub fn hash_password(password: &str) -> Result<String, PortError> {
    password::hash(password).map_err(|error| PortError::permanent("hash a password", error))
}

/// Gives a token for a name and a password.
///
/// # Errors
/// 401 where they are not right; 429 for a client, or for all together, that tried too often lately.
pub async fn login(
    state: &HttpState,
    client: IpAddr,
    username: &str,
    password: &str,
) -> Result<Token, Problem> {
    let authority = &state.authority;
    authority.attempts.check(client)?;
    if authority.password.is_right(username, password).await? {
        authority.tokens.issue(username, (state.ports.now)())
    } else {
        Err(Problem::unauthorized("the username or the password is wrong"))
    }
}

/// The name that a token was given for, if the token is one of ours and still good.
///
/// # Errors
/// [`InvalidToken`] for anything else.
pub fn verify(state: &HttpState, token: &str) -> Result<String, InvalidToken> {
    state.authority.tokens.verify(token, (state.ports.now)())
}
