//! Lines on their way to RabbitMQ: checked, published in order, confirmed.

use super::report::Rejects;
use application::{
    decode::Decoder,
    ports::{Delivery, PulseSource, Received, Watermark},
    retry::Dependency,
};
use infrastructure::{
    file::FileSource,
    rabbitmq::{OutgoingMessage, RabbitmqPublisher, RabbitmqSettings},
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

/// How many lines are published before their confirms are waited for.
const AT_ONCE: usize = 1_000;
/// How often a run that should end looks whether it can.
const AWAY_CHECK: Duration = Duration::from_millis(50);

/// Lines to publish.
pub(super) struct Publishing<'a> {
    pub(super) source: &'a FileSource,
    pub(super) decoder: Decoder,
    pub(super) rejects: &'a Rejects,
    /// How many were confirmed by now.
    pub(super) published: &'a AtomicU64,
}

impl Publishing<'_> {
    /// Publishes every line that holds at least one good pulse.
    ///
    /// A line of which every pulse is refused is only reported. One with some of each is published whole and reported:
    /// the worker counts the good ones, and the places of the others, which the identities of pulses without ids stand
    /// on, stay.
    pub(super) async fn run(self, broker: &RabbitmqSettings, stop: &CancellationToken) -> anyhow::Result<()> {
        let dependency = Dependency::new("rabbitmq");
        select! {
            biased;
            published = self.publish(broker, &dependency, stop) => published,
            () = give_up(stop, &dependency) => anyhow::bail!("stopped while RabbitMQ was away: repeat the command"),
        }
    }

    async fn publish(
        &self,
        broker: &RabbitmqSettings,
        dependency: &Dependency,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let publisher = dependency.hold(|| RabbitmqPublisher::connect(broker)).await?;
        while !stop.is_cancelled() {
            let Some(lines) = next(self.source, AT_ONCE).await? else { break };
            let good = lines.into_iter().filter(|line| self.is_good(line));
            let good: Vec<OutgoingMessage> = good.map(outgoing).collect();
            dependency.hold(|| publisher.publish(good.clone())).await?;
            self.published.fetch_add(good.len() as u64, Ordering::Relaxed);
        }
        Ok(publisher.close().await?)
    }

    fn is_good(&self, line: &Delivery) -> bool {
        let mut items = Vec::new();
        self.decoder.decode(line, &mut items);
        for item in &items {
            if let Err(rejection) = &item.pulse {
                self.rejects.add(&line.envelope, item.index, rejection);
            }
        }
        items.iter().any(|item| item.pulse.is_ok())
    }
}

/// Up to about so many lines, none after the last. Settled at once: the file keeps nothing, and is read again anyway.
pub(crate) async fn next(source: &FileSource, at_once: usize) -> anyhow::Result<Option<Vec<Delivery>>> {
    let mut lines = Vec::new();
    while lines.len() < at_once {
        let Received::Deliveries(deliveries) = source.receive().await? else { break };
        if let Some(last) = deliveries.last() {
            source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await?;
        }
        lines.extend(deliveries);
    }
    Ok((!lines.is_empty()).then_some(lines))
}

/// The line as a message; it brings an id that it alone has, for pulses that carry none.
pub(crate) fn outgoing(delivery: Delivery) -> OutgoingMessage {
    OutgoingMessage {
        body: delivery.body,
        message_id: delivery.envelope.message_id,
        content_type: Some("application/json".to_owned()),
        ..OutgoingMessage::default()
    }
}

/// Ends once the program is to stop and the broker is not there to finish with.
pub(crate) async fn give_up(stop: &CancellationToken, dependency: &Dependency) {
    stop.cancelled().await;
    while !dependency.is_away() {
        sleep(AWAY_CHECK).await;
    }
}
