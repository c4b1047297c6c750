//! What the HTTP server is told: where it listens, who may log in, and its bounds.

use secrecy::SecretString;
use std::{net::SocketAddr, time::Duration};

/// All settings of the server.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Who may log in.
    pub credentials: Credentials,
    /// By which webhooks are signed; where it is absent they are not checked.
    pub webhook_secret: Option<SecretString>,
    /// Its bounds.
    pub limits: HttpLimits,
}

/// The one user, and the key that signs the tokens.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// A PHC string of argon2, or the password itself.
    pub password: SecretString,
    /// At least [`Self::SECRET_BYTES_MIN`] bytes.
    pub jwt_secret: SecretString,
}

impl Credentials {
    /// The length of the hash of HS256, below which a key is easier to guess than a signature.
    pub const SECRET_BYTES_MIN: usize = 32;
}

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The most bytes of a body, after it was decompressed.
    pub body_max: usize,
    /// The most bytes of the request line and all headers together: at least 8 KiB.
    pub headers_max: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// The most connections; more wait to be accepted.
    pub connections_max: usize,
    /// The most bodies of pulses that are held at once; more are turned away.
    pub ingests_max: usize,
    /// How long a stop may take to finish requests.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    /// The defaults of the settings.
    fn default() -> Self {
        Self {
            body_max: 4 * 1024 * 1024,
            headers_max: 16 * 1024,
            timeout: Duration::from_secs(30),
            connections_max: 1_024,
            ingests_max: 128,
            drain_timeout: Duration::from_secs(30),
        }
    }
}
