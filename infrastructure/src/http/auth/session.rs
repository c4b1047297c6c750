//! The token in a cookie, for the dashboard.

use super::Token;
use axum::http::{HeaderMap, header};

const COOKIE: &str = "pulse_session";
const SCHEME_HEADER: &str = "x-forwarded-proto";

/// The `Set-Cookie` header of a new session. It is `Secure` where a proxy says that the browser came by https.
#[must_use]
pub fn session_cookie(token: &Token, headers: &HeaderMap) -> String {
    let lifetime = super::token::LIFETIME_SECONDS;
    format!("{COOKIE}={}; Max-Age={lifetime}; {}", token.text, attributes(headers))
}

/// The `Set-Cookie` header that ends the session.
#[must_use]
pub fn ended_session(headers: &HeaderMap) -> String {
    format!("{COOKIE}=; Max-Age=0; {}", attributes(headers))
}

/// The token of the request's session; [`super::verify`] says whether it is good.
#[must_use]
pub fn session_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

fn attributes(headers: &HeaderMap) -> &'static str {
    if headers.get(SCHEME_HEADER).is_some_and(|scheme| scheme == "https") {
        "HttpOnly; SameSite=Strict; Path=/; Secure"
    } else {
        "HttpOnly; SameSite=Strict; Path=/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_token_of_a_cookie_comes_back() {
        let mut headers = HeaderMap::new();
        let token = Token { text: "a.b.c".to_owned(), expires_at: 0 };
        let cookie = session_cookie(&token, &headers);
        assert!(cookie.ends_with("HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        headers.insert(header::COOKIE, HeaderValue::from_str(&format!("other=1; {pair}")).unwrap());
        assert_eq!(session_token(&headers), Some("a.b.c"));
        headers.insert(SCHEME_HEADER, HeaderValue::from_static("https"));
        assert!(session_cookie(&token, &headers).ends_with("; Secure"));
        assert_eq!(session_token(&HeaderMap::new()), None);
    }
}
