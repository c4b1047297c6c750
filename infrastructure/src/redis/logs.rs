//! How far logs were counted.

use super::{RedisAccumulator, answer, fault::Fault, keys};
use application::ports::{Batch, LogMark, LogPositions, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition, Shard};
use redis::Value;

#[async_trait]
impl LogPositions for RedisAccumulator {
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError> {
        const OPERATION: &str = "reading how far a log was counted from Redis";
        let mut positions = Vec::with_capacity(usize::from(self.shards.get()));
        for shard in self.shards.shards() {
            positions.push(self.position(shard, log).await.map_err(|fault| fault.during(OPERATION))?);
        }
        Ok(positions)
    }
}

impl RedisAccumulator {
    pub(super) async fn position(&self, shard: Shard, log: &LogName) -> Result<LogPosition, Fault> {
        let seen = self.marks.get(shard);
        let mut ask = redis::pipe();
        ask.cmd("HMGET").arg(keys::meta(shard)).arg(&["accumulator", "generation", "sequence"]);
        ask.cmd("HMGET").arg(keys::logs(shard)).arg(log.as_str());
        let (meta, position): (Vec<Value>, Vec<Value>) = self.link.query_all(shard, &ask).await?;
        if meta.first() == Some(&Value::Nil) {
            return Err(Fault::Storage(answer::missing(shard, seen)));
        }
        let mut meta = answer::Values::new(meta);
        let (name, found) = (meta.text()?, (meta.number()?, meta.number()?));
        if let Some(other) = seen.filter(|seen| seen.name() != name) {
            return Err(Fault::Storage(answer::foreign(shard, &name, Some(other))));
        }
        if seen.is_some_and(|seen| found.0 < seen.generation || found.1 < seen.sequence) {
            return Err(Fault::Storage(answer::behind(shard, found, seen)));
        }
        if position.first() == Some(&Value::Nil) {
            return Ok(LogPosition::START);
        }
        answer::Values::new(position).position()
    }
}

/// Refuses what Lua could not compute with, or a step could not hold.
pub(super) fn check(batch: &Batch) -> Result<(), Fault> {
    if batch.stretches.len() > Batch::PULSES_MAX {
        return Err(Fault::Refused(format!(
            "the batch has stretches of more than {} logs",
            Batch::PULSES_MAX
        )));
    }
    match batch.stretches.iter().find(|stretch| stretch.to.offset > LogPosition::OFFSET_END) {
        Some(stretch) => {
            Err(Fault::Refused(format!("log {} has no offset {}", stretch.log, stretch.to.offset)))
        }
        None => Ok(()),
    }
}

pub(super) fn too_many(shard: Shard, logs: u64) -> Fault {
    Fault::Refused(format!(
        "shard {shard} remembers {logs} logs and takes no more ({}): those of topics that are gone can be removed",
        keys::logs(shard)
    ))
}

/// Reads the lines that a seal wrote.
pub(super) fn marks(lines: &str) -> Result<Vec<LogMark>, Fault> {
    let mark = |line: &str| {
        let (position, log) = line.split_once(' ')?;
        Some(LogMark { log: LogName::parse(log)?, position: LogPosition::parse(position)? })
    };
    let mut marks: Vec<LogMark> = lines
        .lines()
        .map(|line| mark(line).ok_or_else(|| Fault::Storage(format!("{line:?} is no position of a log"))))
        .collect::<Result<_, _>>()?;
    marks.sort_unstable();
    Ok(marks)
}
