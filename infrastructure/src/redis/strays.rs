//! Looks through the keys for what belongs to no shard.

use super::{
    RedisAccumulator,
    fault::Fault,
    keys::{self, Purpose},
    node::Call,
};
use application::ports::Stray;
use domain::Shard;
use std::collections::{BTreeMap, HashMap, btree_map::Entry};

/// How many keys one step of the search looks at.
const KEYS_A_STEP: usize = 1_000;
/// How many strays are told.
const STRAYS_MAX: usize = 100;

impl RedisAccumulator {
    /// Looks at every key, then at where the shards stand, then whether what is behind them is still there. A generation
    /// and a bucket never come back, and one that is ahead of its shard after it was found never was its.
    ///
    /// A shard is looked at when its first key is found as well: what it has then is not kept in mind, for a compact bucket
    /// has very many keys.
    pub(super) async fn find_strays(&self) -> Result<Vec<Stray>, Fault> {
        let mut found: BTreeMap<Shard, (Standing, Vec<(String, Purpose)>)> = BTreeMap::new();
        let mut strays = Vec::new();
        for node in self.link.nodes().await? {
            let mut cursor = 0_u64;
            loop {
                let mut ask = redis::cmd("SCAN");
                ask.arg(cursor).arg("MATCH").arg(keys::OF_ALL_SHARDS).arg("COUNT").arg(KEYS_A_STEP);
                let (next, names): (u64, Vec<Vec<u8>>) = node.ask(Call::Command(&ask)).await?;
                for name in names {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let Some((shard, purpose)) = keys::purpose(&name) else {
                        strays.push(Stray { shard: Shard(0), name });
                        continue;
                    };
                    let (standing, names) = match found.entry(shard) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => new.insert((self.standing(shard).await?, Vec::new())),
                    };
                    if !standing.has(purpose) {
                        names.push((name, purpose));
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        for (shard, (_, names)) in found.into_iter().filter(|(_, (_, names))| !names.is_empty()) {
            let standing = self.standing(shard).await?;
            for (name, _) in names.into_iter().filter(|(_, purpose)| !standing.has(*purpose)) {
                let there: u64 = self.link.query(shard, redis::cmd("EXISTS").arg(&name)).await?;
                if there > 0 && strays.len() < STRAYS_MAX {
                    strays.push(Stray { shard, name });
                }
            }
        }
        Ok(strays)
    }

    async fn standing(&self, shard: Shard) -> Result<Standing, Fault> {
        let mut ask = redis::cmd("HGETALL");
        ask.arg(keys::meta(shard));
        Standing::read(&self.link.query(shard, &ask).await?)
    }
}

/// What a shard has.
#[derive(Default)]
struct Standing {
    generation: u64,
    deleted: u64,
    /// The buckets that are fast.
    fast: Vec<u64>,
    /// The compact ones, and how many parts they have.
    compact: BTreeMap<u64, u64>,
}

impl Standing {
    /// Nothing where there is no such shard.
    fn read(meta: &HashMap<String, Vec<u8>>) -> Result<Self, Fault> {
        if meta.is_empty() {
            return Ok(Self::default());
        }
        let text = |field: &str| meta.get(field).and_then(|value| std::str::from_utf8(value).ok());
        let missing = |field: &str| Fault::Storage(format!("{field} of a shard does not read"));
        let number =
            |field: &str| text(field).and_then(|text| text.parse().ok()).ok_or_else(|| missing(field));
        let mut standing =
            Self { generation: number("generation")?, deleted: number("deleted")?, ..Self::default() };
        let listed = text("buckets").or_else(|| text("bucket_layouts")).ok_or_else(|| missing("buckets"))?;
        for bucket in listed.split(',') {
            let (name, time) = bucket.split_once('@').ok_or_else(|| missing("buckets"))?;
            let bucket = name.parse().map_err(|_| missing("buckets"))?;
            if time.bytes().all(|byte| byte.is_ascii_digit()) {
                standing.fast.push(bucket);
            } else {
                standing.compact.insert(bucket, number(&format!("parts:{name}"))?);
            }
        }
        Ok(standing)
    }

    fn has(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Shard => self.generation > 0,
            Purpose::Generation(generation) => self.deleted < generation && generation <= self.generation,
            Purpose::Sealed(generation) => self.deleted < generation && generation < self.generation,
            Purpose::Bucket(bucket) => self.fast.contains(&bucket),
            Purpose::Part(bucket, part) => self.compact.get(&bucket).is_some_and(|parts| part < *parts),
            Purpose::Nothing => false,
        }
    }
}
