//! ClickHouse as the archive of raw events.
//!
//! - `event_archive`: batches into the table `events` (`EventArchive`).
//! - `event_queries`: sums and single events (`EventQueries`).
//! - `view`: the view of a mapping, with its columns as they are typed there.
//! - `error`: what is worth trying again.
//!
//! The statements in `migrations/clickhouse` run at each start, in their order: each does nothing where it was run before.

mod error;
mod event_archive;
mod event_queries;
mod view;

use application::{decode::mapping::Mapping, ports::PortError};
use clickhouse::{Client, query::Query};
use error::port_error;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

const MIGRATIONS: [&str; 2] = [
    include_str!("../../../migrations/clickhouse/0001_events.sql"),
    include_str!("../../../migrations/clickhouse/0002_archive.sql"),
];
/// How long one statement may take.
const CALL_LIMIT: Duration = Duration::from_mins(1);
const DATABASE_BYTES_MAX: usize = 64;

/// The archive in ClickHouse, over its HTTP interface.
pub struct ClickhouseArchive {
    /// Knows the database.
    client: Client,
    /// Does not, so that it can be made.
    server: Client,
    database: String,
}

impl ClickhouseArchive {
    /// Takes `http://USER:PASSWORD@HOST:PORT/DATABASE`, or `https://`; the database is `default` where none is named.
    /// Nothing is called yet.
    ///
    /// # Errors
    /// Permanent: the URL cannot be used.
    pub fn new(url: &SecretString) -> Result<Self, PortError> {
        const OPERATION: &str = "read the URL of ClickHouse";
        let fault = |text: &str| PortError::permanent(OPERATION, text);
        let mut url =
            Url::parse(url.expose_secret()).map_err(|error| PortError::permanent(OPERATION, error))?;
        let database = match url.path().trim_matches('/') {
            "" => "default".to_owned(),
            name => name.to_owned(),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !database.bytes().all(plain) || database.len() > DATABASE_BYTES_MAX {
            return Err(fault("the database must be 1 to 64 letters, digits and underscores"));
        }
        let mut server = Client::default().with_product_info("pulse-ingestor", env!("CARGO_PKG_VERSION"));
        if !url.username().is_empty() {
            server = server.with_user(decoded(url.username()).ok_or_else(|| fault("the user is not UTF-8"))?);
        }
        if let Some(password) = url.password() {
            server =
                server.with_password(decoded(password).ok_or_else(|| fault("the password is not UTF-8"))?);
        }
        url.set_path("");
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| fault("it has no host"))?;
        let server = server.with_url(url);
        Ok(Self { client: server.clone().with_database(&database), server, database })
    }

    /// Makes the database where there is none, brings its tables up to date, and gives a mapping its view.
    ///
    /// # Errors
    /// Transient where the server is away, permanent where it refuses.
    pub async fn migrate(&self, mapping: Option<&Mapping>) -> Result<(), PortError> {
        const OPERATION: &str = "create the tables in ClickHouse";
        let known =
            self.server.query("SELECT count() FROM system.databases WHERE name = ?").bind(&self.database);
        if within(OPERATION, known.fetch_one::<u64>()).await? == 0 {
            let create = format!("CREATE DATABASE IF NOT EXISTS {}", self.database);
            execute(OPERATION, self.server.query_raw(&create)).await?;
        }
        for statement in MIGRATIONS {
            execute(OPERATION, self.client.query_raw(statement)).await?;
        }
        let Some(mapping) = mapping else { return Ok(()) };
        execute(
            "create the view of the mapping in ClickHouse",
            self.client.query_raw(&view::statement(mapping)),
        )
        .await
    }
}

async fn execute(operation: &'static str, query: Query) -> Result<(), PortError> {
    within(operation, query.execute()).await
}

async fn within<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, PortError> {
    match timeout(CALL_LIMIT, call).await {
        Ok(result) => result.map_err(|error| port_error(operation, error)),
        Err(_) => Err(PortError::transient(operation, format!("no answer within {CALL_LIMIT:?}"))),
    }
}

/// A part of a URL as it was before it was percent-encoded.
fn decoded(text: &str) -> Option<String> {
    // A query of one pair without a name: the plus sign alone means something else there.
    let query = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next()?.1.into_owned();
    (!decoded.contains('\u{fffd}')).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_user_and_database_and_is_refused_where_it_cannot() {
        let archive = |url: &str| ClickhouseArchive::new(&SecretString::from(url));
        assert_eq!(
            archive("http://u%40:p%2B+%26@h:8123/pulse").map(|it| it.database).ok().as_deref(),
            Some("pulse")
        );
        assert_eq!(archive("http://h:8123").map(|it| it.database).ok().as_deref(), Some("default"));
        assert!(archive("http://h:8123/a-b").is_err_and(|error| !error.is_transient()));
        assert_eq!(decoded("p%2B+%26=%25").as_deref(), Some("p++&=%"));
    }
}
