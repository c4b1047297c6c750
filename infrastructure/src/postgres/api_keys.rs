//! The keys by which services call the API.

use super::{PostgresLedger, session, timestamp, timestamptz};
use application::ports::{ApiKey, ApiKeys, PortError, Scope};
use async_trait::async_trait;
use domain::Timestamp;
use sqlx::{
    FromRow,
    types::chrono::{DateTime, Utc},
};

const INSERT: &str = "\
insert into api_keys (id, name, scope, hash, created_at, revoked_at) values ($1, $2, $3, $4, $5, $6)
on conflict (id) do nothing";

const FIND: &str = "select id, name, scope, hash, created_at, revoked_at from api_keys where id = $1";

const LIST: &str =
    "select id, name, scope, hash, created_at, revoked_at from api_keys order by created_at desc, id";

const REVOKE: &str = "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1";

#[derive(FromRow)]
struct KeyRow {
    id: String,
    name: String,
    scope: String,
    hash: Vec<u8>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

#[async_trait]
impl ApiKeys for PostgresLedger {
    async fn add(&self, key: &ApiKey) -> Result<(), PortError> {
        const OPERATION: &str = "add an API key";
        let revoked_at = key.revoked_at.map(|time| timestamptz(OPERATION, time)).transpose()?;
        let insert = sqlx::query(INSERT)
            .bind(&key.id)
            .bind(&key.name)
            .bind(key.scope.word())
            .bind(key.hash.as_slice())
            .bind(timestamptz(OPERATION, key.created_at)?)
            .bind(revoked_at);
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        session.execute(insert).await?;
        session.commit().await
    }

    async fn find(&self, id: &str) -> Result<Option<ApiKey>, PortError> {
        const OPERATION: &str = "find an API key";
        let mut session = self.begin(OPERATION, session::READ).await?;
        let row: Option<KeyRow> = session.fetch_optional(sqlx::query_as(FIND).bind(id)).await?;
        session.finish().await?;
        row.map(|row| row.key(OPERATION)).transpose()
    }

    async fn list(&self) -> Result<Vec<ApiKey>, PortError> {
        const OPERATION: &str = "list the API keys";
        let mut session = self.begin(OPERATION, session::READ).await?;
        let rows: Vec<KeyRow> = session.fetch_all(sqlx::query_as(LIST)).await?;
        session.finish().await?;
        rows.into_iter().map(|row| row.key(OPERATION)).collect()
    }

    async fn revoke(&self, id: &str, now: Timestamp) -> Result<bool, PortError> {
        const OPERATION: &str = "revoke an API key";
        let now = timestamptz(OPERATION, now)?;
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let revoked = session.execute(sqlx::query(REVOKE).bind(id).bind(now)).await?;
        session.commit().await?;
        Ok(revoked == 1)
    }
}

impl KeyRow {
    fn key(self, operation: &'static str) -> Result<ApiKey, PortError> {
        let unreadable =
            |what: &str| PortError::permanent(operation, format!("the {what} of a key does not read"));
        Ok(ApiKey {
            id: self.id,
            name: self.name,
            scope: Scope::from_word(&self.scope).ok_or_else(|| unreadable("scope"))?,
            hash: self.hash.try_into().map_err(|_| unreadable("hash"))?,
            created_at: timestamp(self.created_at),
            revoked_at: self.revoked_at.map(timestamp),
        })
    }
}
