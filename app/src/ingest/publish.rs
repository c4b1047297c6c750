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
use tokio::select;
use tokio_util::sync::CancellationToken;

/// How many lines are published before their confirms are waited for.
const AT_ONCE: usize = 1_000;

/// Publishes every line that holds at least one good pulse; returns how many.
///
/// A line of which every pulse is refused is only reported. One with some of each is published whole and reported: the
/// worker counts the good ones, and the places of the others, which the identities of pulses without ids stand on, stay.
pub(super) async fn run(
    source: &FileSource,
    broker: &RabbitmqSettings,
    decoder: Decoder,
    rejects: &Rejects,
    stop: &CancellationToken,
) -> anyhow::Result<u64> {
    let dependency = Dependency::new("rabbitmq");
    let work = async {
        let channel = dependency.hold(|| RabbitmqPublisher::connect(broker)).await?;
        let mut published = 0;
        while let Some(deliveries) = next(source, AT_ONCE).await? {
            let good: Vec<OutgoingMessage> = deliveries
                .into_iter()
                .filter(|delivery| is_good(delivery, &decoder, rejects))
                .map(outgoing)
                .collect();
            dependency.hold(|| channel.publish(good.clone())).await?;
            published += good.len() as u64;
            if stop.is_cancelled() {
                break;
            }
        }
        channel.close().await?;
        Ok(published)
    };
    select! {
        biased;
        published = work => published,
        () = give_up(stop, &dependency) => anyhow::bail!("stopped while RabbitMQ was away: repeat the command"),
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

fn is_good(delivery: &Delivery, decoder: &Decoder, rejects: &Rejects) -> bool {
    let mut items = Vec::new();
    decoder.decode(delivery, &mut items);
    for item in &items {
        if let Err(rejection) = &item.pulse {
            rejects.add(&delivery.envelope, item.index, rejection);
        }
    }
    items.iter().any(|item| item.pulse.is_ok())
}

/// Ends once the program is to stop and the broker is not there to finish with.
pub(crate) async fn give_up(stop: &CancellationToken, dependency: &Dependency) {
    stop.cancelled().await;
    while !dependency.is_away() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
