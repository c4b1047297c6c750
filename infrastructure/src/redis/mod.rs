//! Redis as the accumulator: one atomic script a step, on one hash slot a shard.
//!
//! | key | holds |
//! |---|---|
//! | `pulse:{S}:meta` | accumulator (after a recovery with its number), number of shards, generation, sequence, buckets, total, counters, last batches |
//! | `pulse:{S}:agg:G` | the rows of generation G: usage key to sum |
//! | `pulse:{S}:names:G:N` | the usage keys of generation G in the order of their appearance, 4,096 to a list |
//! | `pulse:{S}:gen:G` | what the sealed generation G comes to, and when it was sealed |
//! | `pulse:{S}:logs` | how far each log was counted: its name to its position |
//! | `pulse:{S}:taken` | how many pulses were taken from each log |
//! | `pulse:{0}:accounts` | what was received of each log and is settled: offset, pulses, and refused ones |
//! | `pulse:{S}:ids:B` | the identities of bucket B, each with the fingerprint of its content |
//! | `pulse:{S}:ids:B:P` | the same where the bucket is compact: those of its part P |
//! | `pulse:{0}:suspect:H` | a message that is taken alone: how often it was, and how often it had come back by then |
//!
//! `audit` shows all of it to an audit; `recovery` brings back a shard that was lost. The scripts are in `scripts/`; what each may rely on is said there.

mod answer;
mod audit;
mod batch;
mod cluster;
mod drop;
mod durability;
mod fault;
mod generations;
mod identities;
mod keys;
mod link;
mod log_accounts;
mod logs;
mod marks;
mod node;
mod recount;
mod recovery;
mod rows;
mod script;
mod settings;
mod shards;
mod sink;
mod strays;
mod sum;
mod suspects;

pub use settings::{IdentityLayout, RedisDurability, RedisSettings};

use application::ports::PortError;
use domain::{ShardCount, Timestamp};
use fault::Fault;
use link::Link;
use marks::{Marks, Seen};
use script::Invocation;
use std::time::Duration;
use uuid::Uuid;

/// Counts in Redis, or in a cluster of them. Calls may be made at the same time; they share one connection to a server,
/// which is made anew when it is lost.
#[derive(Debug)]
pub struct RedisAccumulator {
    link: Link,
    shards: ShardCount,
    dedupe_window: Duration,
    identities: IdentityLayout,
    /// Names this run of the program, by which Redis knows a repeated batch again.
    writer: String,
    marks: Marks,
}

impl RedisAccumulator {
    /// Connects, and refuses a Redis that could lose what it confirms unless the settings allow it.
    ///
    /// # Errors
    /// Transient where Redis is away or not ready; permanent where it is unsafe or too old, or the settings are wrong.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, PortError> {
        const OPERATION: &str = "connecting to Redis";
        if settings.dedupe_window < RedisSettings::DEDUPE_WINDOW_MIN {
            let fault = Fault::Refused("identities must be remembered for a second at least".to_owned());
            return Err(fault.during(OPERATION));
        }
        let link = Link::connect(settings).await.map_err(|fault| fault.during(OPERATION))?;
        Ok(Self {
            link,
            shards: settings.shards,
            dedupe_window: settings.dedupe_window,
            identities: settings.identities,
            writer: Uuid::new_v4().simple().to_string(),
            marks: Marks::default(),
        })
    }

    /// Adds what every script checks first: where this program has seen the shard.
    fn guard(&self, call: &mut Invocation, seen: Option<Seen>) {
        self.guard_for(call, seen.map(Seen::name), seen);
    }

    fn guard_for(&self, call: &mut Invocation, name: Option<String>, seen: Option<Seen>) {
        let (generation, sequence) = seen.map_or((0, 0), |seen| (seen.generation, seen.sequence));
        call.arg(name.unwrap_or_default()).arg(self.shards.get());
        call.arg(generation).arg(sequence);
    }
}

/// Milliseconds since 1970.
fn milliseconds(time: Timestamp) -> i64 {
    time.seconds().saturating_mul(1_000).saturating_add(i64::from(time.nanos() / 1_000_000))
}
