//! The read model `denials`: each refusal, and what came of it. Fold and queries; the table is `denials_view`.
//!
//! The outcome is the same user's next grant of the same product, in the order of (time, position in the log).

use events::{LicenseId, LogError, TenantId, Time, UserId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::cursor::Instant;
use crate::page::Fold;
use crate::query::{Page, QueryError, ReadModels, one_more};

/// Folds a page; needs its sessions folded.
pub(crate) async fn fold(fold: &Fold<'_>) -> Result<(), LogError> {
    fold.execute(include_str!("sql/fold_denials.sql")).await?;
    fold.execute(include_str!("sql/fold_outcomes.sql")).await
}

/// Which denials to show; every `None` lets all pass.
#[derive(Debug, Clone, Default)]
pub struct DenialFilter {
    /// From this time on.
    pub from: Option<Time>,
    /// Before this time.
    pub to: Option<Time>,
    /// Of this user.
    pub user_id: Option<UserId>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct Denial {
    /// The event.
    pub event_id: Uuid,
    pub denied_at: Time,
    pub user_id: String,
    pub hardware_id: Option<String>,
    pub license_id: LicenseId,
    pub product: String,
    pub reason: String,
    pub seats_used: i64,
    pub seats_total: i64,
    /// Whole milliseconds are kept; `None`: no grant came so far.
    pub granted_after_seconds: Option<f64>,
    position: i64,
}

impl ReadModels {
    /// A tenant's denials, oldest first.
    ///
    /// # Errors
    /// A bad cursor, limit or range; the database.
    pub async fn denials(
        &self,
        tenant_id: TenantId,
        filter: &DenialFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Denial>, QueryError> {
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from > to
        {
            return Err(QueryError::invalid("from", "must not be after to"));
        }
        let seal = self.log.cursors().await?;
        let after = after.map(|text| Instant::open(seal, text)).transpose()?;
        let limit_and_one = one_more(limit)?;
        let client = self.log.database().get().await?;
        let statement = client.prepare_cached(include_str!("sql/denials.sql")).await?;
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
            &tenant_id.0,
            &after.map(|place| place.at.as_datetime()),
            &after.map(|place| place.position),
            &limit_and_one,
            &filter.from.map(Time::as_datetime),
            &filter.to.map(Time::as_datetime),
            &filter.user_id.as_ref().map(UserId::as_str),
        ];
        let rows = client.query(&statement, &arguments).await?;
        Ok(Page::cut(rows.iter().map(denial).collect(), limit, |row| {
            Instant { at: row.denied_at, position: row.position }.cursor(seal).to_string()
        }))
    }
}

fn denial(row: &Row) -> Denial {
    let at = |name: &str| row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(name).map(Time::from);
    let denied_at = at("denied_at").unwrap_or_else(|| chrono::DateTime::UNIX_EPOCH.into());
    Denial {
        event_id: row.get("event_id"),
        denied_at,
        user_id: row.get("user_id"),
        hardware_id: row.get("hardware_id"),
        license_id: LicenseId(row.get("license_id")),
        product: row.get("product"),
        reason: row.get("reason"),
        seats_used: row.get("seats_used"),
        seats_total: row.get("seats_total"),
        granted_after_seconds: at("granted_at")
            .map(|granted| (granted.millis() - denied_at.millis()) as f64 / 1_000.0),
        position: row.get("position"),
    }
}
