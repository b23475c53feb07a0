//! The read model `licenses`: the terms in force, and which limit was in force when. Fold and queries; the tables are
//! `licenses_view` and `license_limits`.

use events::{LicenseId, LogError, TenantId, Time};
use tokio_postgres::Row;

use crate::page::Fold;
use crate::query::{Page, QueryError, ReadModels, id_cursor, one_more};

/// Folds a page; repeating it changes nothing.
pub(crate) async fn fold(fold: &Fold<'_>) -> Result<(), LogError> {
    fold.execute(include_str!("sql/fold_licenses.sql")).await?;
    fold.execute(include_str!("sql/fold_limits.sql")).await
}

/// A license as an admin's list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct LicenseRow {
    pub license_id: LicenseId,
    pub tenant_id: TenantId,
    /// Of the license's stream when the terms last changed: its ETag.
    pub version: i64,
    pub product: String,
    pub plan: String,
    pub seats_total: i64,
    pub seats_used: i64,
    pub active: bool,
    pub features: Vec<String>,
    pub valid_from: Option<Time>,
    pub valid_until: Option<Time>,
    pub offline_grace_seconds: Option<i64>,
    pub created_at: Time,
    pub updated_at: Time,
}

impl ReadModels {
    /// A tenant's licenses by age.
    ///
    /// # Errors
    /// A bad cursor or limit; the database.
    pub async fn licenses(
        &self,
        tenant_id: TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<LicenseRow>, QueryError> {
        let after = id_cursor::<LicenseId>(after)?.map(|id| id.0);
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/licenses.sql")).await?;
        let rows = client.query(&statement, &[&tenant_id.0, &after, &one_more(limit)?]).await?;
        Ok(Page::cut(rows.iter().map(license).collect(), limit, |row| row.license_id.to_string()))
    }
}

fn license(row: &Row) -> LicenseRow {
    let at = |name: &str| row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(name).map(Time::from);
    let epoch = || chrono::DateTime::UNIX_EPOCH.into();
    LicenseRow {
        license_id: LicenseId(row.get("license_id")),
        tenant_id: TenantId(row.get("tenant_id")),
        version: row.get("version"),
        product: row.get("product"),
        plan: row.get("plan"),
        seats_total: row.get("seats_total"),
        seats_used: row.get("seats_used"),
        active: row.get("active"),
        features: serde_json::from_value(row.get("features")).unwrap_or_default(),
        valid_from: at("valid_from"),
        valid_until: at("valid_until"),
        offline_grace_seconds: row.get("offline_grace_seconds"),
        created_at: at("created_at").unwrap_or_else(epoch),
        updated_at: at("updated_at").unwrap_or_else(epoch),
    }
}
