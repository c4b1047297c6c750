//! Forgets what compact buckets remember: they have too many keys for one step.

use super::{
    RedisAccumulator,
    answer::{self, Answer},
    fault::Fault,
    marks::Seen,
    script,
};
use application::crash_point;
use domain::Shard;

/// How many parts one step removes: about two milliseconds.
const PARTS_A_STEP: u32 = 1_000;

impl RedisAccumulator {
    /// Removes what was left to be dropped of a shard, by the name and where it was seen. The shard notes what is left of it:
    /// after a crash whoever seals next goes on.
    pub(super) async fn drop_identities(
        &self,
        shard: Shard,
        name: Option<String>,
        seen: Option<Seen>,
    ) -> Result<(), Fault> {
        while self.drop_step(shard, name.clone(), seen).await? {}
        Ok(())
    }

    async fn drop_step(&self, shard: Shard, name: Option<String>, seen: Option<Seen>) -> Result<bool, Fault> {
        crash_point::hit("bucket_drop");
        let mut call = script::DROP.on(shard, 5, 128);
        self.guard_for(&mut call, name, seen);
        call.arg(PARTS_A_STEP);
        let answer = self.link.run(shard, &script::DROP, &call).await?;
        match answer::read(shard, seen, Some(self.shards), answer)? {
            Answer::Done(mut values) => {
                self.note(shard, seen, &mut values)?;
                Ok(values.number()? > 0)
            }
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }
}
