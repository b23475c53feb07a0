//! The list of a tenant's users. `append` keeps the table itself, so it is always current and needs no fold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{TenantId, Time, UserId};
use tokio_postgres::Row;

use crate::query::{Page, QueryError, ReadModels, one_more};

/// A user as an admin's list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct UserRow {
    pub user_id: String,
    pub email: Option<String>,
    pub roles: Vec<String>,
    pub created_at: Time,
    pub updated_at: Time,
    /// The last sign of life of any of its sessions; `None` before the first.
    pub last_seen_at: Option<Time>,
}

impl ReadModels {
    /// Users that have not been removed, by id.
    ///
    /// # Errors
    /// A bad cursor or limit; the database.
    pub async fn users(
        &self,
        tenant_id: TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<UserRow>, QueryError> {
        let after = after.map(user_cursor).transpose()?;
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/users.sql")).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&tenant_id.0, &after, &one_more(limit)?, &None::<&str>];
        let rows = client.query(&statement, &arguments).await?;
        Ok(Page::cut(rows.iter().map(user).collect(), limit, |row| {
            URL_SAFE_NO_PAD.encode(row.user_id.as_bytes())
        }))
    }

    /// One user, unless it was removed.
    ///
    /// # Errors
    /// The database.
    pub async fn user(&self, tenant_id: TenantId, user_id: &UserId) -> Result<Option<UserRow>, QueryError> {
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/users.sql")).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&tenant_id.0, &None::<&str>, &1_i64, &Some(user_id.as_str())];
        Ok(client.query_opt(&statement, &arguments).await?.as_ref().map(user))
    }
}

fn user_cursor(text: &str) -> Result<String, QueryError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| QueryError::bad_cursor())?;
    String::from_utf8(bytes).ok().filter(|id| UserId::new(id).is_ok()).ok_or_else(QueryError::bad_cursor)
}

fn user(row: &Row) -> UserRow {
    let at = |name: &str| row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(name).map(Time::from);
    let epoch = || chrono::DateTime::UNIX_EPOCH.into();
    UserRow {
        user_id: row.get("user_id"),
        email: row.get("email"),
        roles: row.get("roles"),
        created_at: at("created_at").unwrap_or_else(epoch),
        updated_at: at("updated_at").unwrap_or_else(epoch),
        last_seen_at: at("last_seen_at"),
    }
}
