//! `/login` and `/logout`.

use super::{
    super::{
        HttpState,
        auth::{ended_session, login, session_cookie},
    },
    page::{answer, frame},
};
use axum::{
    Form,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use std::net::SocketAddr;

#[derive(Deserialize)]
pub(super) struct Credentials {
    username: String,
    password: String,
}

pub(super) async fn show() -> Response {
    answer(StatusCode::OK, form("", None))
}

/// The cookie is `SameSite=Strict`, so that no other site can act for whoever is logged in.
pub(super) async fn enter(
    State(state): State<HttpState>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(Credentials { username, password }): Form<Credentials>,
) -> Response {
    match login(&state, client.ip(), &username, &password).await {
        Ok(token) => {
            ([(header::SET_COOKIE, session_cookie(&token, &headers))], Redirect::to("/")).into_response()
        }
        Err(problem) => answer(problem.status(), form(&username, Some(problem.detail()))),
    }
}

pub(super) async fn leave(headers: HeaderMap) -> Response {
    ([(header::SET_COOKIE, ended_session(&headers))], Redirect::to("/login")).into_response()
}

fn form(username: &str, fault: Option<&str>) -> Markup {
    let invalid = fault.map(|_| "true");
    let content = html! {
        main.login {
            h1 { "Pulse Ingestor" }
            div.card {
                @if let Some(fault) = fault {
                    div.notice.bad #fault role="alert" { (fault) }
                }
                form method="post" action="/login" {
                    label {
                        "Username"
                        input name="username" value=(username) autocomplete="username" required autofocus[fault.is_none()]
                            aria-invalid=[invalid];
                    }
                    label {
                        "Password"
                        input name="password" type="password" autocomplete="current-password" required
                            autofocus[fault.is_some()] aria-invalid=[invalid];
                    }
                    button.main { "Log in" }
                }
            }
        }
    };
    frame("Log in", &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_refused_comes_back_escaped_and_the_password_does_not() {
        let page =
            form("\"><script>alert(1)</script>", Some("the username or the password is wrong")).into_string();
        assert!(page.contains(r#"value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;""#), "{page}");
        assert!(page.contains("the username or the password is wrong"));
        assert!(!page.contains("<script>"));
    }
}
