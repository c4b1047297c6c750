//! What the broker remembers of a stream for as long as it keeps the stream, and no longer.
//!
//! A mark is a durable exchange of which the stream is the only queue. It is deleted by itself with its last binding, so it
//! goes with the stream: one that was deleted and made anew under the same name has no marks. Nobody can publish to it.

use crate::rabbitmq::{
    connection::{CALL_LIMIT, Link},
    error::{is_absent, port_error, within},
};
use application::ports::PortError;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::FieldTable,
};

/// Something that is true of a stream from some moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The first reading has begun at this offset: what was before is nobody's to count.
    Begun(u64),
    /// Something of it was settled: every shard has counted a part of it.
    Settled,
}

impl Mark {
    /// The name of the exchange.
    pub(super) fn name(self, stream: &str) -> String {
        match self {
            Self::Begun(offset) => format!("{stream}.reader.begun-{offset}"),
            Self::Settled => format!("{stream}.reader.settled"),
        }
    }

    /// Whether it is set.
    pub(super) async fn is_set(self, link: &Link, stream: &str) -> Result<bool, PortError> {
        const OPERATION: &str = "look for a mark of a stream of RabbitMQ";
        let channel = link.channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..options() };
        let name = self.name(stream);
        let declare = channel.exchange_declare(name.into(), KIND, options, FieldTable::default());
        match tokio::time::timeout(CALL_LIMIT, declare).await {
            Ok(Ok(())) => {
                within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await.map(|()| true)
            }
            // The broker has closed the channel.
            Ok(Err(error)) if is_absent(&error) => Ok(false),
            Ok(Err(error)) => Err(port_error(OPERATION, error)),
            Err(_) => Err(PortError::transient(OPERATION, format!("no answer within {CALL_LIMIT:?}"))),
        }
    }

    /// Sets it. Idempotent; a repetition also mends one that was not tied to the stream yet.
    pub(super) async fn set(self, channel: &Channel, stream: &str) -> Result<(), PortError> {
        const OPERATION: &str = "set a mark of a stream of RabbitMQ";
        let name = self.name(stream);
        let declare = channel.exchange_declare(name.as_str().into(), KIND, options(), FieldTable::default());
        within(CALL_LIMIT, OPERATION, declare).await?;
        let bind = channel.queue_bind(
            stream.into(),
            name.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(CALL_LIMIT, OPERATION, bind).await
    }
}

impl Mark {
    /// Removes it. Idempotent.
    pub(super) async fn remove(self, channel: &Channel, stream: &str) -> Result<(), PortError> {
        const OPERATION: &str = "remove a mark of a stream of RabbitMQ";
        let name = self.name(stream);
        let delete = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default());
        within(CALL_LIMIT, OPERATION, delete).await
    }
}

const KIND: ExchangeKind = ExchangeKind::Direct;

fn options() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions {
        durable: true,
        auto_delete: true,
        internal: true,
        ..ExchangeDeclareOptions::default()
    }
}
