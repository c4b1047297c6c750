//! One server, and the one connection to it that all calls share, made anew when it is lost.

use super::{
    RedisSettings,
    durability::{self, Findings},
    fault::Fault,
    script::{Invocation, Script},
};
use application::crash_point;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    Pipeline, aio::MultiplexedConnection,
};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Commands of concurrent calls go out together. No command is ever sent twice without the caller asking: whether a
/// lost answer may be asked for again is for the caller to know.
#[derive(Debug)]
pub(super) struct Node {
    /// By which an operator knows it.
    name: String,
    client: Client,
    config: AsyncConnectionConfig,
    settings: RedisSettings,
    current: Mutex<Option<Numbered>>,
    /// Held while connecting, so that one call connects for all that wait.
    connecting: tokio::sync::Mutex<Connecting>,
    /// Attempts to connect that have ended.
    attempts: AtomicU64,
}

/// What the latest attempts to connect have come to.
#[derive(Debug, Default)]
struct Connecting {
    /// Why the latest one failed.
    fault: Option<Fault>,
    /// What was said of the Redis that was found; it is said again only where it changes.
    remarks: Vec<String>,
}

#[derive(Clone, Debug)]
struct Numbered {
    connection: MultiplexedConnection,
    attempt: u64,
    in_cluster: bool,
}

/// What a server is asked.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    /// One command.
    Command(&'a Cmd),
    /// Several commands at once; they are not one step.
    Commands(&'a Pipeline),
    /// A script. It is loaded first where the server does not have it: it did not run then.
    Script(&'a Script, &'a Invocation),
}

impl Node {
    /// Does not connect yet.
    pub(super) fn new(info: impl IntoConnectionInfo, settings: &RedisSettings) -> Result<Self, Fault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let client = Client::open(info)?;
        Ok(Self {
            name: client.get_connection_info().addr().to_string(),
            client,
            config,
            settings: settings.clone(),
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
        })
    }

    /// The way to another server of the same cluster, which is asked with the same credentials and in the same manner.
    pub(super) fn neighbour(&self, host: &str, port: u16) -> Result<Self, Fault> {
        let own = self.client.get_connection_info();
        let host = host.to_owned();
        let address = match own.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self::new(ConnectionInfo::set_addr(own.clone(), address), &self.settings)
    }

    /// Where it is, unless it is a socket of this machine.
    pub(super) fn host(&self) -> Option<&str> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host),
            _ => None,
        }
    }

    /// Whether connections to it are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Connects unless it is connected; returns whether the server is one of a cluster.
    pub(super) async fn connect(&self) -> Result<bool, Fault> {
        self.connection().await.map(|numbered| numbered.in_cluster)
    }

    /// Asks it.
    pub(super) async fn ask<T: FromRedisValue>(&self, call: Call<'_>) -> Result<T, Fault> {
        let (script, invocation) = match call {
            Call::Command(command) => return self.query(command).await,
            Call::Commands(commands) => {
                let mut numbered = self.connection().await?;
                let answer = commands.query_async(&mut numbered.connection).await;
                return self.noting(numbered.attempt, answer);
            }
            Call::Script(script, invocation) => (script, invocation),
        };
        match self.query(invocation.command()).await {
            Err(fault) if fault.is_no_script() => {
                self.query::<()>(&script.load()).await?;
                crash_point::hit("script_load");
                self.query(invocation.command()).await
            }
            answer => answer,
        }
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let mut numbered = self.connection().await?;
        let answer = command.query_async(&mut numbered.connection).await;
        self.noting(numbered.attempt, answer)
    }

    fn noting<T>(&self, attempt: u64, answer: Result<T, redis::RedisError>) -> Result<T, Fault> {
        answer.map_err(|error| {
            let fault = Fault::from(error);
            if fault.spoils_the_connection() {
                // Another call may have connected anew already.
                let mut current = self.current();
                if current.as_ref().is_some_and(|numbered| numbered.attempt == attempt) {
                    *current = None;
                }
            }
            fault
        })
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Numbered>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<Numbered, Fault> {
        if let Some(numbered) = self.current().clone() {
            return Ok(numbered);
        }
        let attempts = self.attempts.load(Ordering::Acquire);
        let mut latest = self.connecting.lock().await;
        if let Some(numbered) = self.current().clone() {
            return Ok(numbered);
        }
        // Another call has tried for this one while it waited; trying again in turn would add up their timeouts.
        if let (true, Some(fault)) = (self.attempts.load(Ordering::Acquire) != attempts, &latest.fault) {
            return Err(fault.clone());
        }
        let outcome = self.try_connect().await;
        let attempt = self.attempts.fetch_add(1, Ordering::AcqRel);
        latest.fault = outcome.as_ref().err().cloned();
        let (connection, Findings { in_cluster, remarks }) = outcome?;
        if remarks != latest.remarks {
            for remark in &remarks {
                tracing::warn!(node = self.name, remark, "Redis is used at risk");
            }
            latest.remarks = remarks;
        }
        let numbered = Numbered { connection, attempt, in_cluster };
        *self.current() = Some(numbered.clone());
        Ok(numbered)
    }

    /// The settings are looked at on every connection: the server behind it may be another one.
    async fn try_connect(&self) -> Result<(MultiplexedConnection, Findings), Fault> {
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let findings = durability::check(&mut connection, &self.name, self.settings.durability).await?;
        Ok((connection, findings))
    }
}
