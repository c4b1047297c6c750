//! Takes exported spans to the collector, over plain HTTP, and says once when it does not answer.

use async_trait::async_trait;
use axum::body::{Body, Bytes, to_bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use std::{
    fmt, io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tracing::{info, warn};

/// How long the collector may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A client of the collector. Spans are exported by a thread of their own, which knows no runtime: this one brings its own,
/// and nothing else waits for it.
pub(super) struct Courier {
    runtime: Runtime,
    client: Client<HttpConnector, Body>,
    is_away: AtomicBool,
}

impl Courier {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            client: Client::builder(TokioExecutor::new()).build_http(),
            is_away: AtomicBool::new(false),
        })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Body::from)).await?;
        let (parts, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
        Ok(Response::from_parts(parts, body))
    }

    fn tell(&self, fault: Option<String>) {
        let was_away = self.is_away.swap(fault.is_some(), Ordering::Relaxed);
        match (fault, was_away) {
            (Some(error), false) => warn!(error, "spans are not exported: the collector does not take them"),
            (None, true) => info!("spans are exported again"),
            (Some(_), true) | (None, false) => {}
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Courier")
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.block_on(async { timeout(ANSWER_LIMIT, self.send(request)).await });
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}").into()));
        let fault = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the answer is {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        self.tell(fault);
        sent
    }
}
