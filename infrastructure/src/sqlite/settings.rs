//! What a service makes for itself at its first start, kept in its file.

use super::{EmbeddedStore, fault::fault};
use application::ports::PortError;

impl EmbeddedStore {
    /// Keeps the value under the name, unless one is kept there already; returns the one that is kept.
    ///
    /// # Errors
    /// Transient while another process writes for long, permanent where the file cannot be written.
    pub async fn keep_setting(&self, name: &str, value: &str) -> Result<String, PortError> {
        const OPERATION: &str = "keep a setting in the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        let kept = sqlx::query_scalar("SELECT value FROM settings WHERE name = ?")
            .bind(name)
            .fetch_one(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        step.commit().await.map_err(fault(OPERATION))?;
        Ok(kept)
    }
}
