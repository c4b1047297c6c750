//! What all pages have in common.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Nothing from elsewhere, no script and no style but our own files.
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";
const ICON: &str = "/assets/icon.svg";

/// The pages of the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Usage,
    DeadLetters,
}

const MENU: [(Place, &str, &str); 3] = [
    (Place::Overview, "/", "Overview"),
    (Place::Usage, "/usage", "Usage"),
    (Place::DeadLetters, "/dead-letters", "Dead letters"),
];

/// A page of the menu, for somebody who is logged in.
pub(super) fn page(place: Place, user: &str, content: &Markup) -> Markup {
    let title = MENU.iter().find(|(other, ..)| *other == place).map_or("", |(.., title)| title);
    frame(
        title,
        &html! {
            a.skip href="#content" { "Skip to the content" }
            header.top {
                div {
                    strong { "Pulse Ingestor" }
                    nav aria-label="Pages" {
                        @for (other, path, name) in MENU {
                            a href=(path) aria-current=[(other == place).then_some("page")] { (name) }
                        }
                    }
                    form method="post" action="/logout" {
                        button title={ "Logged in as " (user) } { "Log out" }
                    }
                }
            }
            main #content tabindex="-1" {
                h1 { (title) }
                (content)
            }
        },
    )
}

/// A whole document.
pub(super) fn frame(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " \u{b7} Pulse Ingestor" }
                link rel="icon" type="image/svg+xml" href=(ICON);
                link rel="stylesheet" href="/assets/dashboard.css";
                script src="/assets/dashboard.js" defer {}
            }
            body { (body) }
        }
    }
}

/// A part of a page that could not be had.
pub(super) fn unavailable(what: &str, reason: impl std::fmt::Display) -> Markup {
    html! {
        div.notice.bad role="alert" {
            strong { (what) " cannot be shown." } " " (reason)
        }
    }
}

/// A part of a page where there is nothing to see, and why that may be.
pub(super) fn empty(what: &str, why: &Markup) -> Markup {
    html! { div.card.empty { strong { (what) } (why) } }
}

/// The answer with this page, or part of one.
pub(super) fn answer(status: StatusCode, content: Markup) -> Response {
    let PreEscaped(content) = content;
    let mut response = (status, Html(content)).into_response();
    let policy = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
