//! Questions that name something other than a stream: a tenant by its claim, a session's pool, an Idempotency-Key.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::log::EventLog;
use crate::{Event, LicenseId, LogError, Product, SessionId, TenantId, UserId, decode};

/// The license that an acquire of a product is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplicableLicense {
    /// The active license of the product, else the latest one.
    pub license_id: LicenseId,
}

/// Where a session is or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPlace {
    /// Its pool.
    pub license_id: LicenseId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its user.
    pub user_id: UserId,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// By its holder.
    Released,
    /// By its deadline.
    Expired,
    /// By an admin.
    Revoked,
}

impl SessionEnd {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What an Idempotency-Key was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Of the request that got the grant.
    pub request_hash: Vec<u8>,
    /// The grant's pool.
    pub license_id: LicenseId,
    /// The grant's session.
    pub session_id: SessionId,
}

/// A user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Stored roles.
    pub roles: Vec<String>,
    /// Removed: may not acquire.
    pub removed: bool,
}

impl EventLog {
    /// The tenant whose id or `identity_tenant` is the claim. The platform's own stream is no tenant's.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_tenant(&self, claim: &str) -> Result<Option<TenantId>, LogError> {
        let client = self.database.get().await?;
        let id = claim.parse::<TenantId>().ok().filter(|id| *id != TenantId::PLATFORM).map(|id| id.0);
        let statement = client
            .prepare_cached(
                "select stream_id from streams where stream_id = $1 and product is null
                 union all select stream_id from names where scope = 'identity_tenant' and name = $2 limit 1",
            )
            .await?;
        let row = client.query_opt(&statement, &[&id, &claim]).await?;
        Ok(row.map(|row| TenantId(row.get(0))))
    }

    /// The license of a product that an acquire is decided on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_license(
        &self,
        tenant_id: TenantId,
        product: &Product,
    ) -> Result<Option<ApplicableLicense>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select stream_id from streams where tenant_id = $1 and product = $2
                 order by license_active desc, stream_id desc limit 1",
            )
            .await?;
        let row = client.query_opt(&statement, &[&tenant_id.0, &product.as_str()]).await?;
        Ok(row.map(|row| ApplicableLicense { license_id: LicenseId(row.get(0)) }))
    }

    /// The licenses of a tenant, oldest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn licenses_of(&self, tenant_id: TenantId) -> Result<Vec<LicenseId>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select stream_id from streams where tenant_id = $1 and product is not null order by 1",
            )
            .await?;
        let rows = client.query(&statement, &[&tenant_id.0]).await?;
        Ok(rows.iter().map(|row| LicenseId(row.get(0))).collect())
    }

    /// The pool and user of a session, live or ended.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_session(&self, session_id: SessionId) -> Result<Option<SessionPlace>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select stream_id, tenant_id, user_id from seats where session_id = $1
                 union all
                 select stream_id, tenant_id, user_id from events_decision
                 where session_id = $1 and type = 'seat_acquired' limit 1",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&session_id.0]).await? else { return Ok(None) };
        Ok(Some(SessionPlace {
            license_id: LicenseId(row.get(0)),
            tenant_id: TenantId(row.get(1)),
            user_id: UserId::new(row.get::<_, &str>(2))
                .map_err(|error| LogError::Rejected(error.to_string()))?,
        }))
    }

    /// How a session ended; `None` while it lives, or if it never was.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn session_end(&self, session_id: SessionId) -> Result<Option<SessionEnd>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select type, format, data from events_decision where session_id = $1 order by version desc limit 1",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&session_id.0]).await? else { return Ok(None) };
        Ok(match decode(row.get(0), row.get(1), row.get(2))? {
            Event::SeatReleased {} => Some(SessionEnd::Released),
            Event::SeatExpired { .. } => Some(SessionEnd::Expired),
            Event::SeatRevoked { .. } => Some(SessionEnd::Revoked),
            _ => None,
        })
    }

    /// What an Idempotency-Key of a user was granted.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_key(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
        key: &str,
    ) -> Result<Option<KnownKey>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select request_hash, stream_id, session_id from idempotency_keys
                 where tenant_id = $1 and user_id = $2 and key = $3",
            )
            .await?;
        let row = client.query_opt(&statement, &[&tenant_id.0, &user_id.as_str(), &key]).await?;
        Ok(row.map(|row| KnownKey {
            request_hash: row.get(0),
            license_id: LicenseId(row.get(1)),
            session_id: SessionId(row.get(2)),
        }))
    }

    /// A user of a tenant; `None` if it was never added.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_member(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
    ) -> Result<Option<Member>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached("select roles, removed from users where tenant_id = $1 and user_id = $2")
            .await?;
        let row = client.query_opt(&statement, &[&tenant_id.0, &user_id.as_str()]).await?;
        Ok(row.map(|row| Member { roles: row.get(0), removed: row.get(1) }))
    }

    /// Those of many users that were ever added to a tenant.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn find_members(
        &self,
        tenant_id: TenantId,
        user_ids: &[&str],
    ) -> Result<HashMap<String, Member>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select user_id, roles, removed from users where tenant_id = $1 and user_id = any ($2)",
            )
            .await?;
        let rows = client.query(&statement, &[&tenant_id.0, &user_ids]).await?;
        let member = |row: &Row| (row.get(0), Member { roles: row.get(1), removed: row.get(2) });
        Ok(rows.iter().map(member).collect())
    }

    /// Makes the heartbeat partitions of the coming days.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn ensure_partitions(&self, days: i32) -> Result<i32, LogError> {
        let client = self.database.get().await?;
        Ok(client.query_one("select ensure_heartbeat_partitions($1)", &[&days]).await?.get(0))
    }

    /// Forgets Idempotency-Keys older than `age_hours` (24 at least) whose session has ended; answers how many.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn forget_keys(&self, age_hours: i32) -> Result<i64, LogError> {
        let client = self.database.get().await?;
        Ok(client.query_one("select forget_idempotency_keys($1)", &[&age_hours]).await?.get(0))
    }

    /// The tenant that owns a stream id, for an id that a client names.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn tenant_of(&self, stream_id: Uuid) -> Result<Option<TenantId>, LogError> {
        Ok(self.stream_head(stream_id).await?.map(|head| head.tenant_id))
    }
}
