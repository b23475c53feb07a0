//! The read model `tenants`: which tenants there are. Fold and queries; the table is `tenants_view`.

use events::{EventLog, LicenseId, LogError, TenantId, Time};
use tokio_postgres::Row;

use crate::page::Fold;
use crate::query::{Page, QueryError, ReadModels, id_cursor, one_more};

/// Folds a page; repeating it changes nothing.
pub(crate) async fn fold(fold: &Fold<'_>) -> Result<(), LogError> {
    fold.execute(include_str!("sql/fold_tenants.sql")).await
}

/// A tenant as an admin's list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    pub subdomain: String,
    pub plan: String,
    pub max_seats: i64,
    pub active: bool,
    pub identity_tenant: Option<String>,
    /// The first license.
    pub license_id: Option<LicenseId>,
    /// Of all active licenses.
    pub seats_used: i64,
    /// Of all active licenses.
    pub seats_total: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

impl ReadModels {
    /// Tenants by age.
    ///
    /// # Errors
    /// A bad cursor or limit; the database.
    pub async fn tenants(&self, after: Option<&str>, limit: usize) -> Result<Page<TenantRow>, QueryError> {
        let after = id_cursor::<TenantId>(after)?.map(|id| id.0);
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/tenants.sql")).await?;
        let rows = client.query(&statement, &[&after, &one_more(limit)?, &None::<uuid::Uuid>]).await?;
        Ok(Page::cut(rows.iter().map(tenant).collect(), limit, |row| row.id.to_string()))
    }

    /// One tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantRow>, QueryError> {
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/tenants.sql")).await?;
        let row = client.query_opt(&statement, &[&None::<uuid::Uuid>, &1_i64, &Some(tenant_id.0)]).await?;
        Ok(row.as_ref().map(tenant))
    }
}

fn tenant(row: &Row) -> TenantRow {
    let at = |name: &str| row.get::<_, chrono::DateTime<chrono::Utc>>(name).into();
    TenantRow {
        id: TenantId(row.get("tenant_id")),
        name: row.get("name"),
        subdomain: row.get("subdomain"),
        plan: row.get("plan"),
        max_seats: row.get("max_seats"),
        active: row.get("active"),
        identity_tenant: row.get("identity_tenant"),
        license_id: row.get::<_, Option<_>>("license_id").map(LicenseId),
        seats_used: row.get("seats_used"),
        seats_total: row.get("seats_total"),
        created_at: at("created_at"),
        updated_at: at("updated_at"),
    }
}

/// The ids of all tenants, for the platform's admins. Cheap to clone.
#[derive(Clone)]
pub struct TenantList {
    log: EventLog,
}

impl TenantList {
    /// Reads through this log's database.
    #[must_use]
    pub fn new(log: EventLog) -> Self {
        Self { log }
    }

    /// The next tenants after one, by id, which is by age.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn page(&self, after: Option<TenantId>, limit: usize) -> Result<Vec<TenantId>, LogError> {
        let client = self.log.database().get().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = client
            .query(
                "select tenant_id from tenants_view where $1::uuid is null or tenant_id > $1 order by tenant_id limit $2",
                &[&after.map(|after| after.0), &limit],
            )
            .await?;
        Ok(rows.iter().map(|row| TenantId(row.get(0))).collect())
    }
}
