//! Sending letters back and discarding them: first a page that says what would be done, then the deed.

use super::{
    super::{HttpState, dead_letters as letters_api},
    User,
    format::grouped,
    letters::{code, link},
    page::{Place, answer, page, unavailable},
};
use application::{
    dead_letters::{Handled, LetterFilter, NamedPlace, REPLAYS_MAX, Wish},
    ports::PortError,
};
use axum::{
    Extension, Form,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

/// Which letters, and what is to become of them, as the forms say it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Deed {
    /// `replay` or `discard`.
    pub(super) action: String,
    pub(super) place: String,
    /// One letter with its copies, where it is not empty.
    pub(super) id: String,
    /// All of one reason; where both are empty, all letters of the place.
    pub(super) reason: String,
    /// Also those that came back too often, where it is not empty.
    pub(super) force: String,
    /// How many letters were looked at when it was asked about: what came since is behind them.
    pub(super) looked_at: u64,
}

impl Deed {
    fn wish(&self) -> Option<Wish> {
        match self.action.as_str() {
            "replay" => Some(Wish::Replay { force: !self.force.is_empty() }),
            "discard" => Some(Wish::Discard),
            _ => None,
        }
    }

    fn filter(&self) -> LetterFilter {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        LetterFilter {
            ids: some(&self.id).into_iter().collect(),
            reason: some(&self.reason),
            ..LetterFilter::default()
        }
    }

    fn place<'a>(&self, state: &'a HttpState) -> Option<&'a NamedPlace> {
        state.ports.letters.iter().find(|place| place.name == self.place)
    }

    async fn done(&self, state: &HttpState, dry_run: bool) -> Option<Result<Handled, PortError>> {
        let (place, wish) = (self.place(state)?, self.wish()?);
        let mut bound = letters_api::bound(state);
        if !dry_run {
            bound.letters = Some(self.looked_at);
        }
        Some(letters_api::counted(state, place, &self.filter(), wish, dry_run, bound).await)
    }
}

/// Says what would be done, and asks.
pub(super) async fn confirm(
    State(state): State<HttpState>,
    Extension(User(user)): Extension<User>,
    Query(deed): Query<Deed>,
) -> Response {
    let (status, content) = match deed.done(&state, true).await {
        None => return Redirect::to("/dead-letters").into_response(),
        Some(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, unavailable("The dead letters", error)),
        Some(Ok(would)) => {
            let title = deed.place(&state).map_or("", |place| &place.title);
            (StatusCode::OK, question(&deed, title, &would))
        }
    };
    answer(status, page(Place::DeadLetters, &user, &content))
}

/// Does it, and says how it went.
pub(super) async fn act(
    State(state): State<HttpState>,
    Extension(User(user)): Extension<User>,
    Form(deed): Form<Deed>,
) -> Response {
    match deed.done(&state, false).await {
        None => Redirect::to("/dead-letters").into_response(),
        Some(Ok(Handled { done, circling, .. })) => {
            let told = [
                ("did", deed.action.as_str()),
                ("done", &done.to_string()),
                ("circling", &circling.to_string()),
            ];
            Redirect::to(&link("/dead-letters", &told)).into_response()
        }
        Some(Err(error)) => {
            let content = html! {
                div.notice.bad role="alert" {
                    strong { "This could not be finished." } " Some of the letters may be done; none is lost. " (error)
                }
                p { a.button href="/dead-letters" { "Back to the dead letters" } }
            };
            answer(StatusCode::SERVICE_UNAVAILABLE, page(Place::DeadLetters, &user, &content))
        }
    }
}

fn letters(count: u64) -> String {
    if count == 1 { "1 letter".to_owned() } else { format!("{} letters", grouped(count)) }
}

fn question(deed: &Deed, title: &str, would: &Handled) -> Markup {
    let replays = deed.action == "replay";
    let verb = if replays { "Replay" } else { "Discard" };
    html! {
        div.card.question {
            h2 { (verb) " " (letters(would.done)) "?" }
            p {
                @if !deed.id.is_empty() { "The letter with the id " code { (deed.id) } " of " }
                @else if !deed.reason.is_empty() { "All with the reason " (code(&deed.reason)) " of " }
                @else { "All of " }
                strong { (title) } "."
            }
            @if replays {
                p.soft {
                    "Their original bytes go back to where they came from, under the identity they had: each counts once. "
                    "Mend the cause first; what is refused again comes back here."
                }
            } @else {
                p.soft { "They are removed for good, and their pulses are not counted." }
            }
            @if would.circling > 0 {
                p { (letters(would.circling)) " came back " (REPLAYS_MAX) " times already, and would stay." }
            }
            @for (obstacle, count) in &would.obstructed {
                p { (letters(*count)) " would stay: " (obstacle) "." }
            }
            @if !would.complete { p { "There are more than could be looked at in time: ask again afterwards." } }
            form method="post" action="/dead-letters" {
                input type="hidden" name="action" value=(deed.action);
                input type="hidden" name="place" value=(deed.place);
                input type="hidden" name="id" value=(deed.id);
                input type="hidden" name="reason" value=(deed.reason);
                input type="hidden" name="looked_at" value=(would.looked_at);
                @if would.circling > 0 {
                    label.check { input type="checkbox" name="force" value="1"; " these as well" }
                }
                div.actions {
                    @if would.done + would.circling > 0 {
                        button.main.danger[!replays] { (verb) }
                    }
                    a.button href="/dead-letters" { "Cancel" }
                }
            }
        }
    }
}

/// How it went, on the page of the letters.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    did: String,
    done: u64,
    circling: u64,
}

impl Told {
    pub(super) fn shown(&self) -> Markup {
        let done = match self.did.as_str() {
            "replay" => "sent back",
            "discard" => "discarded",
            _ => return html! {},
        };
        html! {
            div.notice role="status" {
                strong { (letters(self.done)) " " (done) "." }
                @if self.circling > 0 { " " (letters(self.circling)) " came back too often and stayed." }
            }
        }
    }
}
