//! One connection to RabbitMQ: opened, watched and closed within bounds.

use super::{
    RabbitmqSettings,
    error::within,
    transport::{Wire, WireKit},
};
use application::ports::PortError;
use lapin::{Channel, Connection, ConnectionProperties, Error, uri::AMQPUri};
use secrecy::ExposeSecret;
use std::{future::Future, time::Duration};

/// For the TCP connection, TLS and the AMQP handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For every call that the broker answers.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(15);
/// For all of an orderly close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// A connection on which nothing was heard for twice as long is dead.
const HEARTBEAT_SECONDS: u16 = 10;
/// RabbitMQ's own default. Without a limit on either side, nothing here would have one.
const FRAME_BYTES_MAX: u32 = 131_072;

/// An open connection. Dropping it cuts the socket.
pub(super) struct Link {
    connection: Connection,
    vhost: String,
    cut: CutOnDrop,
}

struct CutOnDrop(Wire);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

impl Link {
    /// Connects and logs in; `purpose` is what the broker's management page shows.
    pub(super) async fn open(settings: &RabbitmqSettings, purpose: &str) -> Result<Self, PortError> {
        const OPERATION: &str = "connect to RabbitMQ";
        let mut uri: AMQPUri = settings
            .url
            .expose_secret()
            .parse()
            .map_err(|error: String| PortError::permanent(OPERATION, error))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        // 0 asks for no limit.
        uri.query.frame_max = uri.query.frame_max.filter(|bytes| *bytes > 0).or(Some(FRAME_BYTES_MAX));
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("pulse-ingestor {purpose}").into())
            .with_client_property("product".into(), "pulse-ingestor".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let vhost = uri.vhost.clone();
        let cut = CutOnDrop(Wire::default());
        let wire = cut.0.clone();
        let connect = Connection::connector(
            uri,
            WireKit::runtime(),
            async move |uri, _| wire.open(&uri, CONNECT_LIMIT).await,
            properties,
        );
        let connection = within(CONNECT_LIMIT, OPERATION, connect).await?;
        Ok(Self { connection, vhost, cut })
    }

    /// The major version of RabbitMQ, where the server is one and says so.
    pub(super) fn major_version(&self) -> Option<u32> {
        self.cut.0.major_version()
    }

    /// What the cluster is called, where the server says so.
    pub(super) fn cluster_name(&self) -> Option<&str> {
        self.cut.0.cluster_name()
    }

    /// The virtual host.
    pub(super) fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether nothing has ended it yet.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, PortError> {
        within(CALL_LIMIT, "open a channel of RabbitMQ", self.connection.create_channel()).await
    }

    /// Awaits the last call on `channel`, closes the channel, then the connection, then the socket.
    ///
    /// The broker answers in order, so that it has taken all acknowledgements when it answers to the close.
    pub(super) async fn close(
        self,
        channel: &Channel,
        last_call: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), PortError> {
        let close = async {
            last_call.await?;
            channel.close(200, "done".into()).await?;
            self.connection.close(200, "done".into()).await
        };
        within(CLOSE_LIMIT, "close the connection to RabbitMQ", close).await
    }
}
