//! The marks of messages that are taken alone, beside the counts.

use super::{RedisAccumulator, answer::Values, fault::Fault, keys, script};
use application::ports::{PortError, SuspectId, Suspects};
use async_trait::async_trait;

/// A week.
const KEPT_SECONDS: u32 = 7 * 24 * 3_600;

#[async_trait]
impl Suspects for RedisAccumulator {
    async fn take(&self, suspect: SuspectId, returns: u32) -> Result<u32, PortError> {
        const OPERATION: &str = "marking a message in Redis that is taken alone";
        self.mark_suspect(suspect, returns).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn clear(&self, suspect: SuspectId) -> Result<(), PortError> {
        const OPERATION: &str = "removing the mark of a message from Redis";
        let mut remove = redis::cmd("DEL");
        remove.arg(keys::suspect(suspect));
        self.link.query::<()>(keys::OF_ALL, &remove).await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn mark_suspect(&self, suspect: SuspectId, returns: u32) -> Result<u32, Fault> {
        let mut call = script::TAKE_ALONE.on(keys::OF_ALL, 3, 64);
        call.arg(keys::suspect(suspect)).arg(returns).arg(KEPT_SECONDS);
        let answer = self.link.run(keys::OF_ALL, &script::TAKE_ALONE, &call).await?;
        let times = Values::new(answer).number()?;
        u32::try_from(times).map_err(|_| Fault::Storage("the mark of a message makes no sense".into()))
    }
}
