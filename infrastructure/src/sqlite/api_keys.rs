//! The keys by which services call the API.

use super::{
    EmbeddedStore,
    fault::{fault, refusal},
    time::{parse, text},
};
use application::ports::{ApiKey, ApiKeys, PortError, Scope};
use async_trait::async_trait;
use domain::Timestamp;
use sqlx::FromRow;

const INSERT: &str = "\
INSERT INTO api_keys (id, name, scope, hash, created_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING";

const FIND: &str = "SELECT id, name, scope, hash, created_at, revoked_at FROM api_keys WHERE id = ?";

/// Whole seconds come first in the text of a second: the order is made of what they stand for.
const LIST: &str = "\
SELECT id, name, scope, hash, created_at, revoked_at FROM api_keys ORDER BY julianday(created_at) DESC, id";

const REVOKE: &str = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";

#[derive(FromRow)]
struct KeyRow {
    id: String,
    name: String,
    scope: String,
    hash: Vec<u8>,
    created_at: String,
    revoked_at: Option<String>,
}

#[async_trait]
impl ApiKeys for EmbeddedStore {
    async fn add(&self, key: &ApiKey) -> Result<(), PortError> {
        let insert = sqlx::query(INSERT)
            .bind(&key.id)
            .bind(&key.name)
            .bind(key.scope.word())
            .bind(key.hash.as_slice())
            .bind(text(key.created_at))
            .bind(key.revoked_at.map(text));
        self.write("add an API key", insert).await
    }

    async fn find(&self, id: &str) -> Result<Option<ApiKey>, PortError> {
        const OPERATION: &str = "find an API key";
        let mut reader = self.file.reader(OPERATION).await?;
        let row: Option<KeyRow> =
            sqlx::query_as(FIND).bind(id).fetch_optional(&mut *reader).await.map_err(fault(OPERATION))?;
        row.map(|row| row.key(OPERATION)).transpose()
    }

    async fn list(&self) -> Result<Vec<ApiKey>, PortError> {
        const OPERATION: &str = "list the API keys";
        let mut reader = self.file.reader(OPERATION).await?;
        let rows: Vec<KeyRow> =
            sqlx::query_as(LIST).fetch_all(&mut *reader).await.map_err(fault(OPERATION))?;
        rows.into_iter().map(|row| row.key(OPERATION)).collect()
    }

    async fn revoke(&self, id: &str, now: Timestamp) -> Result<bool, PortError> {
        const OPERATION: &str = "revoke an API key";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let revoke = sqlx::query(REVOKE).bind(id).bind(text(now));
        let revoked = revoke.execute(&mut *step).await.map_err(fault(OPERATION))?.rows_affected();
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(revoked == 1)
    }
}

impl KeyRow {
    fn key(self, operation: &'static str) -> Result<ApiKey, PortError> {
        let unreadable = |what: &str| refusal(operation)(format!("the {what} of a key does not read"));
        Ok(ApiKey {
            id: self.id,
            name: self.name,
            scope: Scope::from_word(&self.scope).ok_or_else(|| unreadable("scope"))?,
            hash: self.hash.try_into().map_err(|_| unreadable("hash"))?,
            created_at: parse(operation, &self.created_at)?,
            revoked_at: self.revoked_at.map(|text| parse(operation, &text)).transpose()?,
        })
    }
}
