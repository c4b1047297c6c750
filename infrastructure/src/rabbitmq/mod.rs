//! RabbitMQ as a source, as the place of its dead letters, and as a target of made-up load.
//!
//! What is declared, and why:
//!
//! - The queue is *durable*, and a *quorum queue* by default: a confirmed message is on the disks of a majority, and it
//!   is read three times as fast as a classic one. `RabbitmqSettings::queue_type` selects classic.
//! - `x-overflow=reject-publish`: where an operator limits the length of the queue by a policy, the publisher is told
//!   that the queue is full. The default, `drop-head`, silently drops the oldest message, a pulse that was accepted.
//! - `x-delivery-limit=-1` on RabbitMQ 4 and later, where the default is 20: the broker drops a message that came back
//!   that often, and each crash of a worker brings back everything that was prefetched. Before version 4 there is no
//!   limit by default, and -1 is refused.
//! - A *stream* has no `x-overflow`: it never refuses a message, and is without an end until somebody gives it a retention
//!   (by a policy, or by declaring it first). What retention deletes before it was counted stops the reader. `stream` says what
//!   else is declared for it.
//! - The *dead-letter queue* is a queue of the same kind, or of quorum kind beside a stream, that this program publishes to, with confirms. The broker's own
//!   dead-lettering (`x-dead-letter-exchange`) is not used: it knows no reason, and is at most once on classic queues.
//! - A durable *topic exchange* and one binding, where an exchange is set.
//!
//! A queue or exchange that exists with other arguments, or that this user may not declare, is used as it is, with one
//! warning that repeats what the broker said.
//!
//! A message whose properties are not UTF-8, or whose headers are nested thousands deep, is received like any other:
//! `frames` makes it readable before the client sees it.
//!
//! Connections: a source has one, and dead letters have another that opens with the first letter. They do not share one
//! because RabbitMQ stops reading from a connection that publishes too fast or while its disk is full, and the
//! acknowledgements of the source would wait behind the letters.

mod connection;
mod dead_letters;
mod envelope;
mod error;
mod frames;
mod intake;
mod letters;
mod observer;
mod outlet;
mod publisher;
mod settings;
mod source;
mod stream;
mod topology;
mod transport;

pub use dead_letters::{RabbitmqDeadLetters, header};
pub use intake::RabbitmqIntake;
pub use letters::RabbitmqLetters;
pub use observer::{RabbitmqObserver, RabbitmqStreamObserver};
pub use publisher::{OutgoingMessage, RabbitmqPublisher};
pub use settings::{QueueType, RabbitmqSettings};
pub use source::RabbitmqSource;
pub use stream::{RabbitmqStreamMarks, RabbitmqStreamSource};
