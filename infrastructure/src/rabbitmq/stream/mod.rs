//! A stream of RabbitMQ as a log: read by one reader at a time, from where the shards say, with nothing committed.
//!
//! The offset of a message, which the broker sends as the header `x-stream-offset`, is its identity. AMQP 0-9-1 has nothing
//! that a reader could commit to the broker, and nothing is needed: the shards know how far they have counted, the account
//! of the log how far it is settled, and reading begins at the smallest of these. Acknowledgements are only credit for more, and are given as messages are taken.
//!
//! - `source`: one reader at a time, by an exclusive queue; the others wait (`PulseSource`).
//! - `reading`: one reading, which lets no offset be missing.
//! - `marks`: exchanges that are deleted with the stream, by which a stream that was made anew is told from the old one.
//! - `fault`: where a reading may begin, and what stops it; `recovery`: marks that are set back after counts were lost
//!   (`LogSource`); `backlog`: how much waits.

pub(super) mod backlog;
mod fault;
mod marks;
mod reading;
mod recovery;
mod source;

pub use recovery::RabbitmqStreamMarks;
pub use source::RabbitmqStreamSource;
