//! What was received of logs, beside what the shards have taken of them.

use super::{RedisAccumulator, answer::Values, fault::Fault, keys, script};
use application::ports::{LogAccount, LogAccounts, LogBalance, LogStep, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};
use redis::Value;

#[async_trait]
impl LogAccounts for RedisAccumulator {
    async fn open(&self, log: &LogName, from: u64) -> Result<Option<u64>, PortError> {
        const OPERATION: &str = "opening the account of a log in Redis";
        self.open_account(log, from).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn settle(&self, log: &LogName, step: LogStep) -> Result<u64, PortError> {
        const OPERATION: &str = "settling a log in Redis";
        self.settle_account(log, step).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn balances(&self) -> Result<Vec<LogBalance>, PortError> {
        const OPERATION: &str = "reading the accounts of logs from Redis";
        self.read_balances().await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn open_account(&self, log: &LogName, from: u64) -> Result<Option<u64>, Fault> {
        let mut ask = redis::cmd("HGET");
        ask.arg(keys::accounts()).arg(log.as_str());
        let account: Option<String> = self.link.query(keys::OF_ALL, &ask).await?;
        if let Some(account) = account {
            return parse(&account).map(|account| Some(account.next));
        }
        // Before the positions: where no shard is further than the beginning, all of it was taken before that.
        let taken = self.taken(&[log.as_str()]).await?.iter().sum::<u64>();
        for shard in self.shards.shards() {
            if self.position(shard, log).await? > LogPosition::before(from) {
                return Ok(None);
            }
        }
        let mut open = redis::cmd("HSETNX");
        open.arg(keys::accounts()).arg(log.as_str()).arg(format!("{from} {taken} 0"));
        self.link.query::<()>(keys::OF_ALL, &open).await?;
        // Another may have been the first.
        let account: String = self.link.query(keys::OF_ALL, &ask).await?;
        parse(&account).map(|account| Some(account.next))
    }

    /// How many pulses all shards together have taken from each log.
    async fn taken(&self, logs: &[&str]) -> Result<Vec<u64>, Fault> {
        let mut sums = vec![0; logs.len()];
        for shard in self.shards.shards() {
            let mut ask = redis::cmd("HMGET");
            ask.arg(keys::taken(shard)).arg(logs);
            let taken: Vec<Value> = self.link.query(shard, &ask).await?;
            for (sum, taken) in sums.iter_mut().zip(taken) {
                if taken != Value::Nil {
                    *sum += Values::new(vec![taken]).number()?;
                }
            }
        }
        Ok(sums)
    }

    async fn settle_account(&self, log: &LogName, step: LogStep) -> Result<u64, Fault> {
        let LogStep { from, to, received, refused } = step;
        let mut call = script::SETTLE_LOG.on(keys::OF_ALL, 6, 192);
        call.arg(keys::accounts()).arg(log.as_str()).arg(from).arg(to).arg(received).arg(refused);
        let answer = self.link.run(keys::OF_ALL, &script::SETTLE_LOG, &call).await?;
        if answer.is_empty() {
            return Err(Fault::Storage(format!(
                "log {log} has no account: the storage of Redis was lost or replaced"
            )));
        }
        Values::new(answer).number()
    }

    async fn read_balances(&self) -> Result<Vec<LogBalance>, Fault> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(keys::accounts());
        let accounts: Vec<(String, String)> = self.link.query(keys::OF_ALL, &ask).await?;
        if accounts.is_empty() {
            return Ok(Vec::new());
        }
        let mut balances = accounts
            .iter()
            .map(|(log, account)| {
                let name = LogName::parse(log).ok_or_else(|| Fault::Storage(format!("{log:?} is no log")))?;
                Ok(LogBalance { log: name, account: parse(account)?, taken: 0 })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let logs: Vec<&str> = accounts.iter().map(|(log, _)| log.as_str()).collect();
        for (balance, taken) in balances.iter_mut().zip(self.taken(&logs).await?) {
            balance.taken = taken;
        }
        Ok(balances)
    }
}

fn parse(text: &str) -> Result<LogAccount, Fault> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(next), Some(received), Some(refused)) => Ok(LogAccount { next, received, refused }),
        _ => Err(Fault::Storage(format!("{text:?} is no account of a log"))),
    }
}
