//! The way to the shards: to one server that has all of them, or to the server of a cluster that has this one.

use super::{
    RedisSettings,
    cluster::Cluster,
    fault::Fault,
    node::{Call, Node},
    script::{Invocation, Script},
};
use domain::Shard;
use redis::{Cmd, FromRedisValue, Pipeline, Value};
use secrecy::ExposeSecret;
use std::sync::Arc;

/// How often a call goes where the one before it was sent to: slots may be on the move.
const REDIRECTIONS_MAX: usize = 5;

/// Each call is about one shard. No command is carried out twice without the caller asking: whether a lost answer may be
/// asked for again is for the caller to know. A server of a cluster that sends a call elsewhere has not carried it out.
#[derive(Debug)]
pub(super) struct Link {
    /// The server that the settings name.
    first: Arc<Node>,
    /// Where that is one of a cluster.
    cluster: Option<Cluster>,
}

impl Link {
    /// Connects for the first time, in a cluster to all servers of it.
    pub(super) async fn connect(settings: &RedisSettings) -> Result<Self, Fault> {
        let first = Arc::new(Node::new(settings.url.expose_secret(), settings)?);
        let in_cluster = first.connect().await?;
        let cluster = if in_cluster { Some(Cluster::discover(Arc::clone(&first)).await?) } else { None };
        Ok(Self { first, cluster })
    }

    /// Sends one command.
    pub(super) async fn query<T: FromRedisValue>(&self, shard: Shard, command: &Cmd) -> Result<T, Fault> {
        self.call(shard, Call::Command(command)).await
    }

    /// Sends several commands at once; they are not one step.
    pub(super) async fn query_all<T: FromRedisValue>(
        &self,
        shard: Shard,
        commands: &Pipeline,
    ) -> Result<T, Fault> {
        self.call(shard, Call::Commands(commands)).await
    }

    /// Runs a script.
    pub(super) async fn run(
        &self,
        shard: Shard,
        script: &Script,
        invocation: &Invocation,
    ) -> Result<Vec<Value>, Fault> {
        self.call(shard, Call::Script(script, invocation)).await
    }

    /// The servers that have keys.
    pub(super) async fn nodes(&self) -> Result<Vec<Arc<Node>>, Fault> {
        match &self.cluster {
            None => Ok(vec![Arc::clone(&self.first)]),
            Some(cluster) => cluster.masters().await,
        }
    }

    async fn call<T: FromRedisValue>(&self, shard: Shard, call: Call<'_>) -> Result<T, Fault> {
        let Some(cluster) = &self.cluster else { return self.first.ask(call).await };
        for _ in 0..REDIRECTIONS_MAX {
            let (node, view) = cluster.owner(shard).await?;
            match node.ask(call).await {
                Err(fault) if fault.is_moved() => cluster.learn_from(&node, view).await?,
                Err(fault) if fault.is_ask() => {
                    return Err(Fault::Passing("the slot of a shard is being moved in the Redis cluster"));
                }
                Err(fault) if fault.spoils_the_connection() => {
                    // Whether another server has the shard by now is known for the next try.
                    let _ = cluster.learn(view).await;
                    return Err(fault);
                }
                answer => return answer,
            }
        }
        Err(Fault::Passing("the servers of the Redis cluster do not agree who has a shard"))
    }
}
