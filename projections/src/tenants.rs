//! The read model `tenants`: which tenants there are. Table, fold and query.

use events::{Event, EventLog, LogError, Recorded, TenantId};
use tokio_postgres::Transaction;

/// The projection's name, in its cursor and its metrics.
pub(crate) const NAME: &str = "tenants";

/// Folds one event; repeating it changes nothing.
pub(crate) async fn fold(transaction: &Transaction<'_>, recorded: &Recorded) -> Result<(), LogError> {
    let id = recorded.tenant_id.0;
    let at = recorded.occurred_at.as_datetime();
    match &recorded.event {
        Event::TenantCreated(terms) => {
            transaction
                .execute(
                    "insert into tenants_view (tenant_id, name, subdomain, plan, max_seats, active, identity_tenant,
                                               created_at, updated_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $8) on conflict do nothing",
                    &[
                        &id, &terms.name, &terms.subdomain, &terms.plan, &i64::from(terms.max_seats), &terms.active,
                        &terms.identity_tenant, &at,
                    ],
                )
                .await?;
        }
        Event::TenantUpdated(change) => {
            let max_seats = change.max_seats.map(i64::from);
            transaction
                .execute(
                    "update tenants_view set name = coalesce($2, name), plan = coalesce($3, plan),
                       max_seats = coalesce($4, max_seats), active = coalesce($5, active),
                       identity_tenant = case when $6 then $7 else identity_tenant end, updated_at = $8
                     where tenant_id = $1",
                    &[
                        &id,
                        &change.name,
                        &change.plan,
                        &max_seats,
                        &change.active,
                        &change.identity_tenant.is_some(),
                        &change.identity_tenant.clone().flatten(),
                        &at,
                    ],
                )
                .await?;
        }
        _ => {}
    }
    Ok(())
}

/// All tenants, for the platform's admins. Cheap to clone.
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
