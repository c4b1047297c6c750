//! A channel in confirm mode: what it has published is on disk, in a queue, when it says so.

use super::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    error::{port_error, within},
    topology::Topology,
};
use application::{mutation::Mutation, ports::PortError};
use futures_util::{FutureExt, future::BoxFuture};
use lapin::{
    BasicProperties, Channel, Confirmation, Error,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{collections::VecDeque, future, time::Duration};
use tokio::sync::Mutex;

/// How many messages are on their way at once.
const IN_FLIGHT_MAX: usize = 1_000;
/// For one confirm; a quorum queue under load takes some hundred milliseconds.
const CONFIRM_LIMIT: Duration = Duration::from_secs(30);

/// One message on its way to an exchange.
pub(super) struct Parcel<'a> {
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
}

/// Why not all of the parcels are known to be stored. Nothing is known about any of them.
pub(super) enum Undelivered {
    /// No queue is bound to the exchange by the routing key of one; holds what the broker said.
    Unroutable(String),
    /// Anything else.
    Failed(PortError),
}

impl From<PortError> for Undelivered {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
}

/// What is declared before the first message of each connection.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Queue,
    DeadLetters,
}

/// Publishes over one connection, which it opens when it is needed and gives up after any error.
pub(super) struct Outlet {
    settings: RabbitmqSettings,
    target: Target,
    topology: Topology,
    open: Mutex<Option<OpenOutlet>>,
}

struct OpenOutlet {
    link: Link,
    channel: Channel,
}

impl Outlet {
    pub(super) fn new(settings: RabbitmqSettings, target: Target) -> Self {
        Self { settings, target, topology: Topology::default(), open: Mutex::new(None) }
    }

    /// Connects and declares, unless that is done.
    pub(super) async fn connect(&self) -> Result<(), PortError> {
        let mut open = self.open.lock().await;
        *open = Some(self.opened(open.take()).await?);
        Ok(())
    }

    /// Publishes all, as persistent and mandatory messages in their order, and waits until all are confirmed.
    ///
    /// Calls take turns. A call that is dropped takes its connection with it: the answers that are still to come would
    /// be taken for those of the next call.
    pub(super) async fn publish<'a>(
        &self,
        operation: &'static str,
        parcels: impl Iterator<Item = Parcel<'a>> + Send,
    ) -> Result<(), Undelivered> {
        let mut open = self.open.lock().await;
        let outlet = self.opened(open.take()).await?;
        outlet.publish(operation, parcels).await?;
        *open = Some(outlet);
        Ok(())
    }

    /// Closes the connection in order, within a few seconds.
    pub(super) async fn close(&self) -> Result<(), PortError> {
        match self.open.lock().await.take() {
            Some(OpenOutlet { link, channel }) => link.close(&channel, future::ready(Ok(()))).await,
            None => Ok(()),
        }
    }

    async fn opened(&self, open: Option<OpenOutlet>) -> Result<OpenOutlet, PortError> {
        match open {
            Some(outlet) if outlet.channel.status().connected() => Ok(outlet),
            _ => self.open().await,
        }
    }

    async fn open(&self) -> Result<OpenOutlet, PortError> {
        let (settings, topology) = (&self.settings, &self.topology);
        let link = match self.target {
            Target::Queue => {
                let link = Link::open(settings, "publisher").await?;
                topology.declare_queue(&link, settings).await?;
                link
            }
            Target::DeadLetters => {
                let link = Link::open(settings, "dead letters").await?;
                topology.declare_dead_letters(&link, settings).await?;
                link
            }
        };
        let channel = link.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        within(CALL_LIMIT, "ask RabbitMQ for confirms", select).await?;
        Ok(OpenOutlet { link, channel })
    }
}

type Answer<'a> = BoxFuture<'a, Result<Confirmation, Error>>;

impl OpenOutlet {
    async fn publish<'a>(
        &self,
        operation: &'static str,
        parcels: impl Iterator<Item = Parcel<'a>> + Send,
    ) -> Result<(), Undelivered> {
        let mut in_flight = VecDeque::with_capacity(IN_FLIGHT_MAX);
        for parcel in parcels {
            if in_flight.len() == IN_FLIGHT_MAX
                && let Some(oldest) = in_flight.pop_front()
            {
                confirmed(operation, oldest).await?;
            }
            let mut answer = self.send(parcel).boxed();
            // The first poll hands the message to the client: that keeps the order.
            match (&mut answer).now_or_never() {
                Some(answer) => check(operation, answer)?,
                None => in_flight.push_back(answer),
            }
        }
        if Mutation::DeadLetterUnconfirmed.is_on() {
            return Ok(());
        }
        for answer in in_flight {
            confirmed(operation, answer).await?;
        }
        Ok(())
    }

    async fn send(&self, parcel: Parcel<'_>) -> Result<Confirmation, Error> {
        let Parcel { exchange, routing_key, body, properties } = parcel;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.channel
            .basic_publish(exchange.into(), routing_key.into(), options, body, properties)
            .await?
            .await
    }
}

async fn confirmed(operation: &'static str, answer: Answer<'_>) -> Result<(), Undelivered> {
    match tokio::time::timeout(CONFIRM_LIMIT, answer).await {
        Ok(answer) => check(operation, answer),
        Err(_) => Err(PortError::transient(operation, format!("no confirm within {CONFIRM_LIMIT:?}")).into()),
    }
}

fn check(operation: &'static str, answer: Result<Confirmation, Error>) -> Result<(), Undelivered> {
    match answer.map_err(|error| port_error(operation, error))? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            Err(Undelivered::Unroutable(returned.reply_text.to_string()))
        }
        Confirmation::Nack(None) => {
            Err(PortError::transient(operation, "the queue is full or cannot store").into())
        }
        Confirmation::NotRequested => {
            Err(PortError::permanent(operation, "the channel does not confirm").into())
        }
    }
}
