//! SIGTERM and Ctrl-C: the first asks for an orderly stop, the second ends the program at once.

use std::io;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// From now on signals are ours; whoever waits for what this returns cancels the token at the first. It does not end by itself.
///
/// # Errors
/// Where the system refuses the handlers.
pub(crate) fn watch(stop: CancellationToken) -> io::Result<impl Future<Output = ()> + Send> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping: finishing what is in hand, a second signal gives up");
        stop.cancel();
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "gave up: what was not settled comes again at the next start");
        std::process::exit(1);
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
