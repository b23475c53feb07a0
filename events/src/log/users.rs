//! Who belongs to a tenant, as `append` keeps it beside the log: never behind what was answered.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::log::EventLog;
use crate::{LicenseId, LogError, SessionId, TenantId, Time, UserId};

/// A user as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// `sub`, or an id of ours until the first sign-in.
    pub user_id: UserId,
    /// As the identity provider or an admin gave it.
    pub email: Option<String>,
    /// Roles stored with the user.
    pub roles: Vec<String>,
    /// Removed: may not acquire.
    pub removed: bool,
    /// When it was first added.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

const COLUMNS: &str = "u.user_id, u.email, u.roles, u.removed, u.created_at, u.updated_at";

/// The scope in which an email that was invited is held: one invitation of an email at a time.
#[must_use]
pub fn invitation_scope(tenant_id: TenantId) -> String {
    format!("invitation/{tenant_id}")
}

/// An email as it is compared: the case of its letters says nothing.
#[must_use]
pub fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

impl EventLog {
    /// A user of a tenant, removed ones too; `None` if it was never added.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_user(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
    ) -> Result<Option<UserRecord>, LogError> {
        let client = self.database.get().await?;
        let sql = format!("select {COLUMNS} from users u where u.tenant_id = $1 and u.user_id = $2");
        let statement = client.prepare_cached(&sql).await?;
        let row = client.query_opt(&statement, &[&tenant_id.0, &user_id.as_str()]).await?;
        row.as_ref().map(record).transpose()
    }

    /// The id of ours under which an email waits for its first sign-in.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_invitation(&self, tenant_id: TenantId, email: &str) -> Result<Option<Uuid>, LogError> {
        let client = self.database.get().await?;
        let statement =
            client.prepare_cached("select stream_id from names where scope = $1 and name = $2").await?;
        let (scope, name) = (invitation_scope(tenant_id), email_key(email));
        Ok(client.query_opt(&statement, &[&scope, &name]).await?.map(|row| row.get(0)))
    }

    /// Those of many emails that were invited, by [`email_key`], and the ids under which they wait.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_invitations(
        &self,
        tenant_id: TenantId,
        emails: &[&str],
    ) -> Result<HashMap<String, Uuid>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached("select name, stream_id from names where scope = $1 and name = any ($2)")
            .await?;
        let keys: Vec<_> = emails.iter().map(|email| email_key(email)).collect();
        let rows = client.query(&statement, &[&invitation_scope(tenant_id), &keys]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Whether a user of a tenant, removed ones apart, has this email.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn has_email(&self, tenant_id: TenantId, email: &str) -> Result<bool, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select exists (select from users where tenant_id = $1 and lower(email) = $2 and not removed)",
            )
            .await?;
        Ok(client.query_one(&statement, &[&tenant_id.0, &email_key(email)]).await?.get(0))
    }

    /// The live sessions of a user in all pools of a tenant.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn sessions_of_user(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
    ) -> Result<Vec<(LicenseId, SessionId)>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select t.stream_id, t.session_id from streams s join seats t on t.stream_id = s.stream_id
                 where s.tenant_id = $1 and s.product is not null and t.user_id = $2 order by t.session_id",
            )
            .await?;
        let rows = client.query(&statement, &[&tenant_id.0, &user_id.as_str()]).await?;
        Ok(rows.iter().map(|row| (LicenseId(row.get(0)), SessionId(row.get(1)))).collect())
    }
}

fn record(row: &Row) -> Result<UserRecord, LogError> {
    let user_id = UserId::new(row.get::<_, &str>("user_id"))
        .map_err(|error| LogError::Rejected(format!("a stored user: {error}")))?;
    Ok(UserRecord {
        user_id,
        email: row.get("email"),
        roles: row.get("roles"),
        removed: row.get("removed"),
        created_at: row.get::<_, DateTime<Utc>>("created_at").into(),
        updated_at: row.get::<_, DateTime<Utc>>("updated_at").into(),
    })
}
