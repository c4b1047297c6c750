//! The HTTP API: what is sent and asked over HTTP, its document, and the dashboard.
//!
//! - `settings`, `state`: what the handlers work with.
//! - `server`: accepts connections, within limits, and ends gracefully.
//! - `sender`: the other side of a webhook, as load.
//! - `router`: every route with its guard, and what all answers have in common.
//! - `problem`: errors as RFC 9457 says.
//! - [`auth`]: who may do what: login, tokens, sessions, API keys.
//! - `login`, `pulses`, `populate`, `totals`, `usage`, `webhooks`, `dead_letters`, `keys`, `health`, `metrics`: the routes for programs, `docs`: their document.
//! - `dashboard`: the pages for people.

pub mod auth;
mod dashboard;
mod dead_letters;
mod docs;
mod filter;
mod health;
mod keys;
mod login;
mod metrics;
mod populate;
mod problem;
mod pulses;
mod router;
mod sender;
mod server;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod totals;
mod usage;
mod webhooks;

pub use auth::hash_password;
pub use dashboard::Dashboard;
pub use problem::Problem;
pub use sender::WebhookSender;
pub use server::{bind, serve, serve_metrics};
pub use settings::{Credentials, HttpLimits, HttpSettings};
pub use state::{HttpPorts, HttpState};
