//! One connection that all calls share, made anew when it is lost.

use super::{
    RedisSettings, durability,
    fault::Fault,
    script::{Invocation, Script},
};
use application::crash_point;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, Value, aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Commands of concurrent calls go out together. No command is ever sent twice without the caller asking: whether a
/// lost answer may be asked for again is for the caller to know.
#[derive(Debug)]
pub(super) struct Link {
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
}

impl Link {
    /// Connects for the first time.
    pub(super) async fn connect(settings: &RedisSettings) -> Result<Self, Fault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let link = Self {
            client: Client::open(settings.url.expose_secret())?,
            config,
            settings: settings.clone(),
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
        };
        link.connection().await?;
        Ok(link)
    }

    /// Sends one command.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let mut numbered = self.connection().await?;
        let answer = command.query_async(&mut numbered.connection).await;
        self.noting(numbered.attempt, answer)
    }

    /// Sends several commands at once; they are not one step.
    pub(super) async fn query_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Fault> {
        let mut numbered = self.connection().await?;
        let answer = commands.query_async(&mut numbered.connection).await;
        self.noting(numbered.attempt, answer)
    }

    /// Runs a script, and loads it first where Redis does not have it: it did not run then.
    pub(super) async fn run(&self, script: &Script, invocation: &Invocation) -> Result<Vec<Value>, Fault> {
        match self.query(invocation.command()).await {
            Err(fault) if fault.is_no_script() => {
                self.query::<()>(&script.load()).await?;
                crash_point::hit("script_load");
                self.query(invocation.command()).await
            }
            answer => answer,
        }
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
        let (connection, remarks) = outcome?;
        if remarks != latest.remarks {
            for remark in &remarks {
                tracing::warn!(remark, "Redis is used at risk");
            }
            latest.remarks = remarks;
        }
        let numbered = Numbered { connection, attempt };
        *self.current() = Some(numbered.clone());
        Ok(numbered)
    }

    /// The settings are looked at on every connection: the server behind it may be another one.
    async fn try_connect(&self) -> Result<(MultiplexedConnection, Vec<String>), Fault> {
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let remarks = durability::check(&mut connection, self.settings.durability).await?;
        Ok((connection, remarks))
    }
}
