//! The settings of the HTTP API.

use super::{
    Fault, Faults,
    read::{Reader, duration, number},
};
use infrastructure::http::{Credentials, HttpLimits};
use secrecy::SecretString;
use std::{net::SocketAddr, time::Duration};

/// What the HTTP API is told; what a mode cannot do without, the mode says.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Who may log in.
    pub(crate) username: String,
    /// The password or its hash.
    pub(crate) password: Option<SecretString>,
    /// The key that signs tokens.
    pub(crate) jwt_secret: Option<SecretString>,
    /// The key that webhooks are signed with.
    pub(crate) webhook_secret: Option<SecretString>,
    /// Where the metrics of any mode are served, beside the API.
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// The bounds; the drain timeout comes from another setting.
    pub(crate) limits: HttpLimits,
}

impl Http {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let secret = |bytes_min: usize| {
            move |text: &str| (text.len() >= bytes_min).then(|| SecretString::from(text.to_owned()))
        };
        Self {
            addr: reader.required("HTTP_ADDR", |text| text.parse().ok()),
            username: reader.required("API_USERNAME", |text| Some(text.to_owned())),
            password: reader.optional("API_PASSWORD", secret(1)),
            jwt_secret: reader.optional("JWT_SECRET", secret(Credentials::SECRET_BYTES_MIN)),
            webhook_secret: reader.optional("WEBHOOK_SECRET", secret(1)),
            metrics_addr: reader.optional("METRICS_ADDR", |text| text.parse().ok()),
            limits: HttpLimits {
                body_max: reader.required("HTTP_BODY_MAX", number(1_024..=1 << 30)),
                headers_max: reader.required("HTTP_HEADERS_MAX", number(8_192..=1 << 20)),
                timeout: reader
                    .required("HTTP_TIMEOUT", duration(Duration::from_secs(1)..=Duration::from_mins(10))),
                connections_max: reader.required("HTTP_CONNECTIONS_MAX", number(1..=100_000)),
                ingests_max: reader.required("HTTP_INGESTS_MAX", number(1..=10_000)),
                ..HttpLimits::default()
            },
        }
    }

    /// The credentials, for a mode that cannot make its own.
    ///
    /// # Errors
    /// Names every setting that is lacking.
    pub(crate) fn credentials(&self, caller: &str, instead: &str) -> Result<Credentials, Faults> {
        match (&self.password, &self.jwt_secret) {
            (Some(password), Some(jwt_secret)) => Ok(Credentials {
                username: self.username.clone(),
                password: password.clone(),
                jwt_secret: jwt_secret.clone(),
            }),
            (password, jwt_secret) => {
                let lacking = [("API_PASSWORD", password.is_none()), ("JWT_SECRET", jwt_secret.is_none())];
                let lacking = lacking.into_iter().filter(|(_, lacks)| *lacks);
                Err(Faults(lacking.map(|(name, _)| Fault::lacking(name, caller, instead)).collect()))
            }
        }
    }
}
