//! Tokens: JWT with HS256, of this issuer, good for four hours.

use super::{super::Problem, hs256};
use axum::http::StatusCode;
use domain::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use tracing::error;

const ISSUER: &str = "pulse-ingestor";
pub(super) const LIFETIME_SECONDS: i64 = 4 * 3_600;

/// A token and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub text: String,
    /// From when on it is refused, in seconds since 1970.
    pub expires_at: i64,
}

/// A text that is no token of ours, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid, or no longer: log in again")]
pub struct InvalidToken;

#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    iat: i64,
    exp: i64,
}

pub(super) struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl Tokens {
    pub(super) fn new(secret: &[u8]) -> Self {
        hs256::install();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        // Compared below with the time that the program goes by.
        validation.validate_exp = false;
        Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            validation,
        }
    }

    pub(super) fn issue(&self, username: &str, now: Timestamp) -> Result<Token, Problem> {
        let expires_at = now.seconds().saturating_add(LIFETIME_SECONDS);
        let claims =
            Claims { iss: ISSUER.to_owned(), sub: username.to_owned(), iat: now.seconds(), exp: expires_at };
        let text = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing);
        text.map(|text| Token { text, expires_at }).map_err(|error| {
            error!(%error, "a token could not be signed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the token could not be signed")
        })
    }

    pub(super) fn verify(&self, text: &str, now: Timestamp) -> Result<String, InvalidToken> {
        let data = jsonwebtoken::decode::<Claims>(text, &self.verifying, &self.validation);
        let claims = data.map_err(|_| InvalidToken)?.claims;
        if now.seconds() < claims.exp { Ok(claims.sub) } else { Err(InvalidToken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_795_354_241;
    const SECRET: &[u8] = b"a secret of thirty-two bytes ....";

    fn verified(text: &str) -> Result<String, InvalidToken> {
        Tokens::new(SECRET).verify(text, Timestamp::new(NOW, 0))
    }

    fn signed(claims: &Value, secret: &[u8]) -> String {
        hs256::install();
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
            .unwrap()
    }

    fn claims() -> Value {
        json!({"iss": ISSUER, "sub": "admin", "iat": NOW, "exp": NOW + 1})
    }

    #[test]
    fn a_token_is_good_for_four_hours() {
        let tokens = Tokens::new(SECRET);
        let token = tokens.issue("admin", Timestamp::new(NOW, 0)).unwrap();
        assert_eq!(token.expires_at, NOW + 14_400);
        let at = |seconds| tokens.verify(&token.text, Timestamp::new(seconds, 0));
        assert_eq!(at(NOW + 14_399).as_deref(), Ok("admin"));
        assert_eq!(at(NOW + 14_400), Err(InvalidToken));
    }

    #[test]
    fn tokens_of_another_key_issuer_or_shape_are_refused() {
        assert_eq!(verified(&signed(&claims(), SECRET)).as_deref(), Ok("admin"));
        assert_eq!(verified(&signed(&claims(), b"another secret of 32 bytes ......")), Err(InvalidToken));
        for (name, value) in
            [("iss", json!("other")), ("iss", Value::Null), ("exp", json!(NOW)), ("exp", json!("9999999999"))]
        {
            let mut claims = claims();
            claims[name] = value;
            assert_eq!(verified(&signed(&claims, SECRET)), Err(InvalidToken), "{claims}");
        }
        for name in ["iss", "exp", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert_eq!(verified(&signed(&claims, SECRET)), Err(InvalidToken), "without {name}");
        }
        for text in ["", "a", "a.b.c", "pk_a_b"] {
            assert_eq!(verified(text), Err(InvalidToken));
        }
    }

    #[test]
    fn tokens_of_another_algorithm_are_refused_even_unsigned() {
        // {"alg":"none","typ":"JWT"} and {"alg":"HS384","typ":"JWT"}, each before the claims and signature of a good one.
        let good = signed(&claims(), SECRET);
        let rest = &good[good.find('.').unwrap()..];
        let unsigned = &rest[..=rest.rfind('.').unwrap()];
        for header in ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9"] {
            assert_eq!(verified(&format!("{header}{rest}")), Err(InvalidToken));
            assert_eq!(verified(&format!("{header}{unsigned}")), Err(InvalidToken));
        }
    }
}
