//! Brings back shards whose storage was lost or rolled back.

use super::{
    RedisAccumulator,
    answer::{self, Answer, Values},
    fault::Fault,
    keys, marks, milliseconds, script,
};
use application::ports::{LogMark, PortError, Remake, ShardRecovery, ShardStorage};
use async_trait::async_trait;
use domain::{LogName, Shard, Timestamp};
use redis::Value;

/// How many keys one step of the search looks at, and how many one step removes.
const KEYS_A_STEP: usize = 1_000;

#[async_trait]
impl ShardStorage for RedisAccumulator {
    async fn log_marks(&self, shard: Shard) -> Result<Vec<LogMark>, PortError> {
        const OPERATION: &str = "reading how far a shard has counted logs from Redis";
        self.find_log_marks(shard).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn restore(&self, recovery: &ShardRecovery, now: Timestamp) -> Result<bool, PortError> {
        const OPERATION: &str = "bringing a shard back in Redis";
        self.restore_shard(recovery, now).await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn find_log_marks(&self, shard: Shard) -> Result<Vec<LogMark>, Fault> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(keys::logs(shard));
        let mut values = Values::new(self.link.query::<Vec<Value>>(shard, &ask).await?);
        let mut found = Vec::with_capacity(values.len() / 2);
        while !values.is_empty() {
            let name = values.text()?;
            let log = LogName::parse(&name);
            let log = log.ok_or_else(|| Fault::Storage(format!("{name:?} is no name of a log")))?;
            found.push(LogMark { log, position: values.position()? });
        }
        found.sort_unstable();
        Ok(found)
    }

    async fn restore_shard(&self, recovery: &ShardRecovery, now: Timestamp) -> Result<bool, Fault> {
        if recovery.found.is_none() {
            self.sweep(recovery.shard).await?;
        }
        let logs = recovery.positions.len();
        let mut call = script::RESTORE.on(recovery.shard, 15 + 2 * logs, 256 + 128 * logs);
        call.arg("").arg("").arg(0).arg(0);
        call.arg(match recovery.remake {
            Remake::Anew => "anew",
            Remake::DropBooked => "drop",
            Remake::Keep => "keep",
        });
        let name = marks::name(recovery.accumulator, recovery.number);
        call.arg(&name);
        match recovery.found {
            Some(found) => {
                let name = marks::name(recovery.accumulator, found.recovery);
                call.arg(name).arg(found.generation).arg(found.sequence)
            }
            None => call.arg("").arg("").arg(""),
        };
        call.arg(recovery.shards.get()).arg(recovery.generation).arg(recovery.sequence);
        call.arg(recovery.counted).arg(milliseconds(now)).arg(self.identities.letter());
        if recovery.remake != Remake::Keep {
            for LogMark { log, position } in &recovery.positions {
                call.arg(log.as_str()).arg(position.to_string());
            }
        }
        let answer = self.link.run(recovery.shard, &script::RESTORE, &call).await?;
        match answer::read(recovery.shard, None, Some(recovery.shards), answer)? {
            Answer::Done(mut values) => {
                let (_, _, dropping) = (values.number()?, values.number()?, values.number()?);
                if dropping > 0 {
                    self.drop_identities(recovery.shard, Some(name), None).await?;
                }
                Ok(true)
            }
            Answer::Other(word, _) if word == b"changed" => Ok(false),
            Answer::Other(word, _) if word == b"left" => {
                Err(Fault::Passing("a program that ended only now wrote to the shard once more"))
            }
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }

    /// Removes what is left of a shard that is gone: its next generations and buckets will have the same names.
    async fn sweep(&self, shard: Shard) -> Result<(), Fault> {
        let pattern = keys::of_shard(shard);
        let mut cursor = 0_u64;
        loop {
            let mut ask = redis::cmd("SCAN");
            ask.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_A_STEP);
            let (next, names): (u64, Vec<Vec<u8>>) = self.link.query(shard, &ask).await?;
            for names in names.chunks(KEYS_A_STEP) {
                let mut call = script::SWEEP.on(shard, 4 + names.len(), 64 * names.len());
                call.arg("").arg("").arg(0).arg(0);
                for name in names {
                    call.arg(name);
                }
                // Where the shard is there nothing is removed, and the next step says what became of it.
                self.link.run(shard, &script::SWEEP, &call).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
