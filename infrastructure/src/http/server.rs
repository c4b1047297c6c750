//! Accepts connections, within limits, and ends gracefully.

use super::{HttpLimits, HttpState, metrics, router::router};
use crate::metrics::Metrics;
use application::ports::PortError;
use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    join,
    net::{TcpListener, TcpStream},
    select,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

/// The pause after a connection could not be accepted, which a lack of file descriptors causes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to send its headers, and how long it may be silent between two requests.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes the address; connections wait until [`serve`] accepts them.
///
/// # Errors
/// Permanent where the address is in use or not ours.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, PortError> {
    TcpListener::bind(addr).await.map_err(|error| PortError::permanent("listen", format!("{addr}: {error}")))
}

/// Answers requests until `stop`; then finishes those that have begun, within the drain timeout.
pub async fn serve(listener: TcpListener, state: HttpState, stop: CancellationToken) {
    if let Ok(addr) = listener.local_addr() {
        info!(%addr, "listening");
    }
    let (app, limits) = (router(state.clone()), state.settings.limits);
    join!(answer(listener, app, limits, &stop), async {
        stop.cancelled().await;
        state.populate.stop().await;
    });
}

/// Answers requests for `/metrics`, `/healthz` and `/readyz`, and no others, until `stop`; then ends as [`serve`] does.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    if let Ok(addr) = listener.local_addr() {
        info!(%addr, "metrics can be asked for");
    }
    answer(listener, metrics::router(metrics), limits, &stop).await;
}

async fn answer(listener: TcpListener, app: Router, limits: HttpLimits, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let place = select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let (stream, client) = select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = graceful.watch(connection(stream, client, app.clone(), limits));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        warn!(
            connections = connections.len(),
            "requests were cut off: they took longer than the drain timeout"
        );
    }
    connections.shutdown().await;
}

fn connection(
    stream: TcpStream,
    client: SocketAddr,
    app: Router,
    limits: HttpLimits,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    // Answers are small and whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(client));
        app.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(limits.headers_max)
        .serve_connection(TokioIo::new(stream), service)
}
