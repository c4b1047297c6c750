//! Sends webhooks to a running API, signed, as load.

use application::ports::PortError;
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, Uri, header},
};
use hmac::{Hmac, KeyInit, Mac};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::{fmt::Write, time::Duration};
use tokio::time::{sleep, timeout};

const OPERATION: &str = "send a webhook";
const SIGNATURE: &str = "x-webhook-signature";
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The longest that `Retry-After` is heeded.
const RETRY_AFTER_MAX: u64 = 30;
/// How much of an answer that refuses is told.
const ANSWER_BYTES_MAX: usize = 4_096;

/// A client of one route for webhooks; its connections are kept for the next events.
pub struct WebhookSender {
    client: Client<HttpConnector, Body>,
    target: Uri,
    secret: Option<SecretString>,
}

impl WebhookSender {
    /// For events of `source` to the API at `base`, `http://HOST:PORT`, signed where there is a secret. Nothing is
    /// connected yet.
    ///
    /// # Errors
    /// Permanent where `base` is no such URL.
    pub fn new(base: &str, source: &str, secret: Option<SecretString>) -> Result<Self, PortError> {
        let target: Uri = format!("{}/webhooks/{source}", base.trim_end_matches('/'))
            .parse()
            .map_err(|error| PortError::permanent(OPERATION, error))?;
        if target.scheme_str() != Some("http") || target.host().is_none() {
            return Err(PortError::permanent(
                OPERATION,
                "the URL of the API must begin with http:// and a host",
            ));
        }
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), target, secret })
    }

    /// Sends an event; it is stored when this returns. Safe to repeat.
    ///
    /// # Errors
    /// Transient where the API is away, or asks to come again (429, 503), after the time that it asks for; permanent
    /// for any other answer than 200.
    pub async fn send(&self, body: Vec<u8>) -> Result<(), PortError> {
        let mut request = Request::post(self.target.clone()).header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            request = request.header(SIGNATURE, signature(secret, &body)?);
        }
        let request =
            request.body(Body::from(body)).map_err(|error| PortError::permanent(OPERATION, error))?;
        let answer = timeout(ANSWER_LIMIT, self.client.request(request))
            .await
            .map_err(|_| PortError::transient(OPERATION, format!("no answer within {ANSWER_LIMIT:?}")))?
            .map_err(|error| PortError::transient(OPERATION, error))?;
        let (parts, body) = answer.into_parts();
        let text = timeout(ANSWER_LIMIT, to_bytes(Body::new(body), ANSWER_BYTES_MAX)).await;
        match parts.status {
            StatusCode::OK => Ok(()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                sleep(retry_after(&parts.headers)).await;
                Err(PortError::transient(OPERATION, format!("the API answers {}", parts.status)))
            }
            status => {
                let text = text.ok().and_then(Result::ok).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                Err(PortError::permanent(OPERATION, format!("the API answers {status}: {text}")))
            }
        }
    }
}

fn signature(secret: &SecretString, body: &[u8]) -> Result<String, PortError> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .map_err(|error| PortError::permanent(OPERATION, error))?;
    let mut text = "sha256=".to_owned();
    for byte in mac.chain_update(body).finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// What the header asks for in seconds; nothing where it says a date or is absent.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0_u64).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, extract::State, routing::post};
    use std::sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    };
    use tokio::{net::TcpListener, task::JoinSet};

    const BODY: &[u8] = b"{\"event_id\":\"e1\"}";
    /// By `openssl dgst -sha256 -hmac shared`.
    const SIGNED: &str = "sha256=e2551b37205831620c306502742cd62b0c977f07b6f4cddcb547406425ad274d";

    /// An API that answers with this status, once with another, and what it saw last.
    async fn api(tasks: &mut JoinSet<()>, status: Arc<AtomicU16>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let take = async |State(status): State<Arc<AtomicU16>>, headers: HeaderMap| {
            assert_eq!(headers[SIGNATURE], SIGNED);
            let status = StatusCode::from_u16(status.swap(200, Ordering::Relaxed)).unwrap();
            (status, [(header::RETRY_AFTER, "0")], "because")
        };
        let app = Router::new().route("/webhooks/payments", post(take)).with_state(status);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper_util::service::TowerToHyperService::new(app.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
        base
    }

    #[tokio::test]
    async fn events_are_signed_and_answers_tell_what_to_try_again() {
        let (mut tasks, status) = (JoinSet::new(), Arc::new(AtomicU16::new(200)));
        let base = api(&mut tasks, Arc::clone(&status)).await;
        let sender = WebhookSender::new(&base, "payments", Some("shared".into())).unwrap();
        sender.send(BODY.to_vec()).await.unwrap();
        for (answered, transient) in [(429, true), (503, true), (401, false), (422, false)] {
            status.store(answered, Ordering::Relaxed);
            let error = sender.send(BODY.to_vec()).await.unwrap_err();
            assert_eq!(error.is_transient(), transient, "{error}");
            assert!(error.to_string().contains(&answered.to_string()), "{error}");
        }
        sender.send(BODY.to_vec()).await.unwrap();
    }

    #[tokio::test]
    async fn an_api_that_is_away_is_worth_another_try_and_a_url_that_is_none_is_not() {
        let sender = WebhookSender::new("http://127.0.0.1:1", "payments", None).unwrap();
        assert!(sender.send(BODY.to_vec()).await.unwrap_err().is_transient());
        for base in ["https://localhost", "localhost:8080", "http://", "nonsense"] {
            assert!(WebhookSender::new(base, "payments", None).is_err(), "{base}");
        }
    }
}
