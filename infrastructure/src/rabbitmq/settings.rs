//! Where the messages are, and what the queue is like.

use secrecy::SecretString;

/// How RabbitMQ keeps the messages of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated by Raft and synced to disk before a confirm; read about three times as fast as a classic queue.
    #[default]
    Quorum,
    /// One copy on one node.
    Classic,
    /// A log: messages stay, are known by their offsets, and one reader at a time takes them in their order.
    Stream,
}

impl QueueType {
    /// What the queue argument `x-queue-type` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }

    /// The type of queues beside it that somebody takes messages out of.
    #[must_use]
    pub const fn beside(self) -> Self {
        match self {
            Self::Stream => Self::Quorum,
            other => other,
        }
    }
}

/// How to reach RabbitMQ, and the names there. All of it is declared where it does not exist.
#[derive(Clone, Debug)]
pub struct RabbitmqSettings {
    /// `amqp://` or `amqps://`, with user, password, host, port and percent-encoded virtual host; the query may set
    /// `heartbeat` in seconds (10 otherwise) and `frame_max` in bytes (131,072 otherwise).
    pub url: SecretString,
    /// The queue that pulses are read from.
    pub queue: String,
    /// What kind of queue it is, and the dead-letter queue with it, as far as that can be of this kind.
    pub queue_type: QueueType,
    /// A topic exchange that feeds the queue; without one, publishers name the queue itself.
    pub exchange: Option<String>,
    /// Which routing keys of the exchange reach the queue; all (`#`) where it is absent. Without an exchange it means
    /// nothing.
    pub binding: Option<String>,
    /// How many messages RabbitMQ sends ahead of their acknowledgement, or of a stream ahead of what is taken, which may be
    /// one chunk more: 1 to 65,535. It is also the bound on the memory
    /// that unread messages take here.
    pub prefetch: u16,
    /// The queue that refused messages go to.
    pub dead_letter_queue: String,
}

impl RabbitmqSettings {
    /// Enough for batches of several hundred pulses on each of eight shards; above it mostly memory grows.
    pub const PREFETCH: u16 = 4_000;
}
