//! Which server of a Redis Cluster has which shard, as the servers tell it.

use super::{
    fault::Fault,
    node::{Call, Node},
};
use domain::Shard;
use futures_util::future::{join_all, select_ok};
use redis::{ParsingError, Value, from_redis_value};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The servers, and which of them has which slots. It is learnt anew where a call was sent elsewhere or got lost.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The server that the settings name; its name may stand for another one each time.
    first: Arc<Node>,
    view: Mutex<Arc<View>>,
    /// Held while learning, so that one call learns for all that wait.
    learning: tokio::sync::Mutex<()>,
}

/// The cluster as one of its servers saw it.
#[derive(Debug, Default)]
struct View {
    number: u64,
    nodes: HashMap<Address, Arc<Node>>,
    /// The first slots of the ranges, each with the last one and the server that has them.
    ranges: BTreeMap<u16, (u16, Arc<Node>)>,
}

type Address = (String, u16);

impl View {
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let (_, (last, node)) = self.ranges.range(..=slot).next_back()?;
        (slot <= *last).then(|| Arc::clone(node))
    }
}

impl Cluster {
    /// Learns of all servers, and looks how each of them is set: a replica may become a master.
    pub(super) async fn discover(first: Arc<Node>) -> Result<Self, Fault> {
        let cluster = Self {
            first: Arc::clone(&first),
            view: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
        };
        let members = ask(&first).await?;
        for met in cluster.see(&first, members).await? {
            met?;
        }
        Ok(cluster)
    }

    /// The server that has the shard, and the number of the view that says so.
    pub(super) async fn owner(&self, shard: Shard) -> Result<(Arc<Node>, u64), Fault> {
        let slot = slot(shard);
        let mut view = self.view();
        if view.owner(slot).is_none() {
            self.learn(view.number).await?;
            view = self.view();
        }
        let owner = view.owner(slot).map(|node| (node, view.number));
        owner.ok_or(Fault::Passing("no server of the Redis cluster has the slot of a shard"))
    }

    /// The servers that have slots at this time.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>, Fault> {
        self.learn(self.view().number).await?;
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for (_, node) in self.view().ranges.values() {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        Ok(masters)
    }

    /// Learns from whichever server answers first, unless another call has since the view of that number.
    pub(super) async fn learn(&self, known: u64) -> Result<(), Fault> {
        let _learning = self.learning.lock().await;
        let view = self.view();
        if view.number != known {
            return Ok(());
        }
        let nodes = view.nodes.values().chain([&self.first]);
        let asked = nodes.map(|node| Box::pin(async move { Ok::<_, Fault>((node, ask(node).await?)) }));
        let ((node, members), _) = select_ok(asked).await?;
        self.update(node, members).await
    }

    /// Learns from a server that knows better than the view of that number.
    pub(super) async fn learn_from(&self, node: &Node, known: u64) -> Result<(), Fault> {
        let _learning = self.learning.lock().await;
        if self.view().number != known {
            return Ok(());
        }
        let members = ask(node).await?;
        self.update(node, members).await
    }

    /// One server that is away holds up its own shards only.
    async fn update(&self, node: &Node, members: Vec<Member>) -> Result<(), Fault> {
        let mut met = self.see(node, members).await?.into_iter();
        met.find_map(|met| met.err().filter(|fault| !fault.is_transient())).map_or(Ok(()), Err)
    }

    /// Takes what `from` says for the view from now on, and connects to all servers that are new, and there.
    async fn see(&self, from: &Node, members: Vec<Member>) -> Result<Vec<Result<bool, Fault>>, Fault> {
        let old = self.view();
        let mut view = View { number: old.number + 1, ..View::default() };
        let mut new = Vec::new();
        for member in members {
            let Some(host) = member.host.as_deref().or_else(|| from.host()) else { continue };
            let address = (host.to_owned(), member.port);
            let node = if let Some(node) = old.nodes.get(&address) {
                Arc::clone(node)
            } else {
                let node = Arc::new(from.neighbour(host, member.port)?);
                if member.is_there {
                    new.push(Arc::clone(&node));
                }
                node
            };
            for (first, last) in member.slots {
                view.ranges.insert(first, (last, Arc::clone(&node)));
            }
            view.nodes.insert(address, node);
        }
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        Ok(join_all(new.iter().map(|node| node.connect())).await)
    }

    fn view(&self) -> Arc<View> {
        let view: MutexGuard<'_, Arc<View>> = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }
}

/// A server as another one knows it.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    /// `None` where it is that of the server that says so.
    host: Option<String>,
    port: u16,
    /// The others do not hold it for failed.
    is_there: bool,
    /// The ranges that it has, from the first slot to the last; a replica has none.
    slots: Vec<(u16, u16)>,
}

async fn ask(node: &Node) -> Result<Vec<Member>, Fault> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SHARDS");
    let answer = node.ask(Call::Command(&command)).await?;
    members(answer, node.is_encrypted()).map_err(|error| Fault::Redis(error.into()))
}

/// Reads the answer to `CLUSTER SHARDS`: for each master its slots, and the master with its replicas.
fn members(answer: Vec<HashMap<String, Value>>, encrypted: bool) -> Result<Vec<Member>, ParsingError> {
    let mut members = Vec::new();
    for mut part in answer {
        let mut take = |name: &str| part.remove(name).unwrap_or(Value::Nil);
        let bounds: Vec<u16> = from_redis_value(take("slots"))?;
        let nodes: Vec<HashMap<String, Value>> = from_redis_value(take("nodes"))?;
        for mut node in nodes {
            let mut take = |name: &str| node.remove(name).unwrap_or(Value::Nil);
            let host: Option<String> = from_redis_value(take("endpoint"))?;
            let (role, health): (String, String) =
                (from_redis_value(take("role"))?, from_redis_value(take("health"))?);
            let has = if role == "master" { &bounds[..] } else { &[] };
            members.push(Member {
                // The name of a server that has none is given as a question mark.
                host: host.filter(|host| !host.is_empty() && host != "?"),
                port: from_redis_value(take(if encrypted { "tls-port" } else { "port" }))?,
                is_there: !health.starts_with("fail"),
                slots: has.chunks_exact(2).map(|range| (range[0], range[1])).collect(),
            });
        }
    }
    Ok(members)
}

/// The slot of all keys of a shard: of its number, which is what stands between their braces.
///
/// CRC16 as in the specification of Redis Cluster (polynomial 0x1021, from 0).
fn slot(shard: Shard) -> u16 {
    let crc = shard.to_string().bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn numbers(numbers: &[i64]) -> Value {
        Value::Array(numbers.iter().copied().map(Value::Int).collect())
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT 'pulse:{3}:meta'` answers.
        for (shard, expected) in [(0, 13_907), (3, 1_584), (7, 1_716), (123, 5_970)] {
            assert_eq!(slot(Shard(shard)), expected, "shard {shard}");
        }
    }

    #[test]
    fn masters_have_slots_and_servers_without_a_name_are_where_the_answer_came_from() {
        let node = |endpoint: Value, port: i64, role: &str, health: &str| {
            Value::Array(vec![
                text("endpoint"),
                endpoint,
                text("port"),
                Value::Int(port),
                text("role"),
                text(role),
                text("health"),
                text(health),
            ])
        };
        let nodes = vec![
            node(Value::Nil, 1, "master", "online"),
            node(text("b"), 2, "replica", "fail"),
            node(text("?"), 3, "replica", "loading"),
        ];
        let part = HashMap::from([
            ("slots".to_owned(), numbers(&[0, 9, 20, 20])),
            ("nodes".to_owned(), Value::Array(nodes)),
        ]);
        let member = |host: Option<&str>, port, is_there, slots: &[(u16, u16)]| Member {
            host: host.map(str::to_owned),
            port,
            is_there,
            slots: slots.to_vec(),
        };
        assert_eq!(
            members(vec![part.clone()], false).unwrap(),
            [
                member(None, 1, true, &[(0, 9), (20, 20)]),
                member(Some("b"), 2, false, &[]),
                member(None, 3, true, &[])
            ]
        );
        assert!(members(vec![part], true).is_err(), "there is no port for encrypted connections");
    }
}
