//! Marks of messages in memory.

use crate::ports::{PortError, SuspectId, Suspects};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Times and returns of each message that is marked; a clone is the handle of another program on the same marks.
#[derive(Clone, Debug, Default)]
pub struct MemorySuspects(Arc<Mutex<HashMap<SuspectId, (u32, u32)>>>);

#[async_trait]
impl Suspects for MemorySuspects {
    async fn take(&self, suspect: SuspectId, returns: u32) -> Result<u32, PortError> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = marks.entry(suspect).or_insert((1, returns));
        if mark.1 < returns {
            *mark = (mark.0 + 1, returns);
        }
        Ok(mark.0 - 1)
    }

    async fn clear(&self, suspect: SuspectId) -> Result<(), PortError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&suspect);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::suspects::FreshMarks;

    impl FreshMarks for MemorySuspects {
        type Marks = Self;

        async fn open(&self) -> Self {
            self.clone()
        }
    }

    crate::suspects_contract!(std::future::ready(MemorySuspects::default()));
}
