//! The read model `sessions`: whole lives. Fold and queries; the table is `sessions_view`.
//!
//! A heartbeat costs this model nothing: what it moves of a live session is in `seats`, where `append` keeps it, and a
//! seat that goes leaves its last sign of life in `seat_ends`.

use events::{LicenseId, LogError, SessionId, TenantId, Time, UserId};
use tokio_postgres::Row;

use crate::page::Fold;
use crate::query::{Page, QueryError, ReadModels, id_cursor, one_more};

/// Folds a page; repeating it changes nothing.
pub(crate) async fn fold(fold: &Fold<'_>) -> Result<(), LogError> {
    fold.execute(include_str!("sql/fold_sessions.sql")).await
}

/// Whether a session lives, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the contract's word")]
pub enum SessionState {
    Active,
    Released,
    Expired,
    Revoked,
}

impl SessionState {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    fn of_end(end: Option<&str>) -> Self {
        match end {
            Some("released") => Self::Released,
            Some("expired") => Self::Expired,
            Some(_) => Self::Revoked,
            None => Self::Active,
        }
    }
}

/// Which sessions to show; every `None` lets all pass.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// `Some(true)`: live ones; `Some(false)`: ended ones.
    pub live: Option<bool>,
    /// Of this license.
    pub license_id: Option<LicenseId>,
    /// Of this user.
    pub user_id: Option<UserId>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct SessionRow {
    pub session_id: SessionId,
    pub license_id: LicenseId,
    pub product: String,
    pub user_id: String,
    pub hardware_id: String,
    pub machine_name: Option<String>,
    pub state: SessionState,
    pub started_at: Time,
    pub last_heartbeat_at: Time,
    pub expires_at: Time,
    pub ended_at: Option<Time>,
    /// `sub` of the admin who revoked it.
    pub ended_by: Option<String>,
    /// Why it was revoked, in the admin's words.
    pub ended_reason: Option<String>,
}

impl ReadModels {
    /// A tenant's sessions by age.
    ///
    /// # Errors
    /// A bad cursor or limit; the database.
    pub async fn sessions(
        &self,
        tenant_id: TenantId,
        filter: &SessionFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<SessionRow>, QueryError> {
        let after = id_cursor::<SessionId>(after)?.map(|id| id.0);
        let limit_and_one = one_more(limit)?;
        let license = filter.license_id.map(|id| id.0);
        let user = filter.user_id.as_ref().map(UserId::as_str);
        // Each kind of list has an index of its own, so each has a text of its own.
        let wanted = match filter.live {
            None => "true",
            Some(true) => "v.ended_at is null",
            Some(false) => "v.ended_at is not null",
        };
        let sql = include_str!("sql/sessions.sql").replace("{wanted}", wanted);
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(&sql).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&tenant_id.0, &after, &limit_and_one, &license, &user, &None::<uuid::Uuid>];
        let rows = client.query(&statement, &arguments).await?;
        Ok(Page::cut(rows.iter().map(session).collect(), limit, |row| row.session_id.to_string()))
    }

    /// One session of a tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn session(
        &self,
        tenant_id: TenantId,
        session_id: SessionId,
    ) -> Result<Option<SessionRow>, QueryError> {
        let sql = include_str!("sql/sessions.sql").replace("{wanted}", "v.session_id = $6");
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(&sql).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &tenant_id.0,
            &None::<uuid::Uuid>,
            &1_i64,
            &None::<uuid::Uuid>,
            &None::<&str>,
            &Some(session_id.0),
        ];
        Ok(client.query_opt(&statement, &arguments).await?.as_ref().map(session))
    }
}

fn session(row: &Row) -> SessionRow {
    let at = |name: &str| row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(name).map(Time::from);
    let started_at = at("started_at").unwrap_or_else(|| chrono::DateTime::UNIX_EPOCH.into());
    SessionRow {
        session_id: SessionId(row.get("session_id")),
        license_id: LicenseId(row.get("license_id")),
        product: row.get("product"),
        user_id: row.get("user_id"),
        hardware_id: row.get("hardware_id"),
        machine_name: row.get("machine_name"),
        state: SessionState::of_end(row.get("ended")),
        started_at,
        last_heartbeat_at: at("last_heartbeat_at").unwrap_or(started_at),
        expires_at: at("expires_at").unwrap_or(started_at),
        ended_at: at("ended_at"),
        ended_by: row.get("ended_by"),
        ended_reason: row.get("ended_reason"),
    }
}
