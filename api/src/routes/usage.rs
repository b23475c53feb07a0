//! Usage and refusals, for whoever analyses them.

use std::time::Duration;

use events::{TenantId, Time, UserId};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use projections::{Bucket, Denial, DenialFilter, UsageItem, UsageRange};
use serde::Serialize;

use super::shared::{own_license, page_limit, range, time};
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;

/// The operations.
pub struct Reports(pub App);

/// Usage in one bucket.
#[derive(Object, Serialize)]
#[oai(rename = "Usage")]
struct UsageView {
    from: String,
    to: String,
    /// null: the tenant as a whole
    #[oai(nullable)]
    license_id: Option<String>,
    /// The limit in force when the bucket ended, or now
    seats_total: i64,
    /// Most seats in use at a time
    peak: i64,
    /// Seats in use, weighted by time
    average: f64,
    acquired: i64,
    denied: i64,
    released: i64,
    expired: i64,
    revoked: i64,
    /// Users who held a seat at any time of it
    unique_users: i64,
}

impl CsvRow for UsageView {
    const COLUMNS: &'static [&'static str] = &[
        "from",
        "to",
        "license_id",
        "seats_total",
        "peak",
        "average",
        "acquired",
        "denied",
        "released",
        "expired",
        "revoked",
        "unique_users",
    ];
}

/// A refusal.
#[derive(Object)]
#[oai(rename = "Denial")]
struct DenialView {
    denied_at: String,
    user_id: String,
    #[oai(nullable)]
    hardware_id: Option<String>,
    license_id: String,
    product: String,
    /// The error's code
    reason: String,
    seats_used: i64,
    seats_total: i64,
    /// Until the same user's next grant of the same product; null: none came so far
    #[oai(nullable)]
    granted_after_seconds: Option<f64>,
}

impl CsvRow for DenialView {
    const COLUMNS: &'static [&'static str] = &[
        "denied_at",
        "user_id",
        "hardware_id",
        "license_id",
        "product",
        "reason",
        "seats_used",
        "seats_total",
        "granted_after_seconds",
    ];
}

#[OpenApi]
impl Reports {
    /// Usage by the minute, hour or day
    ///
    /// One item per bucket that `[from, to)` touches, empty ones included, all in one answer: at most a leap year of
    /// minutes.
    #[oai(path = "/api/v1/tenants/:tenant_id/usage", method = "get", operation_id = "usage")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn usage(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// `minute`, `hour` or `day`; `hour` if left out
        bucket: Query<Option<String>>,
        /// From this time on; 60 minutes, 24 hours or 30 days before `to` if left out
        from: Query<Option<String>>,
        /// Before this time; now if left out
        to: Query<Option<String>>,
        /// Of one license; of the tenant as a whole if left out
        license_id: Query<Option<String>>,
    ) -> Result<Listing<UsageView>, Problem> {
        let tenant_id = self.on_tenant(&credentials, &tenant_id).await?;
        let license_id = own_license(&self.0, tenant_id, license_id.0).await?;
        let bucket: Bucket = bucket.0.as_deref().unwrap_or("hour").parse()?;
        let (from, to) = (time("from", from.0.as_deref())?, time("to", to.0.as_deref())?);
        let to = match to {
            Some(to) => to,
            None => self.0.log().clock().await?,
        };
        let from = from.unwrap_or_else(|| before(to, bucket));
        let range = UsageRange { bucket, from, to, license_id }.bounded()?;
        let models = self.0.read_models.clone();
        models.settled().await?;
        let rows = move |part| {
            let models = models.clone();
            async move {
                let usage = models.usage(tenant_id, &part).await?;
                Ok(views(usage.items()))
            }
        };
        Listing::of_parts(format, range.parts(), rows).await
    }

    /// Each refusal: who, when, why, and what came of it
    #[oai(path = "/api/v1/tenants/:tenant_id/denials", method = "get", operation_id = "denials")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn denials(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// From this time on
        from: Query<Option<String>>,
        /// Before this time
        to: Query<Option<String>>,
        /// Only refusals of this user
        user_id: Query<Option<String>>,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Listing<DenialView>, Problem> {
        let tenant_id = self.on_tenant(&credentials, &tenant_id).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let (from, to) = range(from.0.as_deref(), to.0.as_deref())?;
        let user_id = user_id.0.map(UserId::new).transpose().map_err(Problem::value("user_id"))?;
        let filter = DenialFilter { from, to, user_id };
        let app = self.0.clone();
        let page = move |after: Option<String>, limit| {
            let (app, filter) = (app.clone(), filter.clone());
            async move {
                let page = app.shown().await?.denials(tenant_id, &filter, after.as_deref(), limit).await?;
                let items = page.items.into_iter().map(DenialView::from).collect();
                Ok(Page { items, next: page.next })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }
}

impl Reports {
    async fn on_tenant(&self, credentials: &Credentials, tenant_id: &str) -> Result<TenantId, Problem> {
        let authenticator = &self.0.authenticator;
        let caller = authenticator.verify(credentials.token(None)).await?;
        authenticator.on_tenant(&caller, tenant_id, &[Role::TenantAdmin, Role::Analyst]).await
    }
}

/// Where a range begins that says only where it ends.
fn before(to: Time, bucket: Bucket) -> Time {
    let length = match bucket {
        Bucket::Minute => Duration::from_secs(3_600),
        Bucket::Hour => Duration::from_secs(86_400),
        Bucket::Day => Duration::from_secs(30 * 86_400),
    };
    let length = chrono::Duration::from_std(length).unwrap_or_default();
    to.as_datetime().checked_sub_signed(length).map_or(to, Time::new)
}

/// A bucket begins where the one before ends: of a year of minutes, each time is put into words once.
fn views(items: impl Iterator<Item = UsageItem>) -> Vec<UsageView> {
    let mut begin = String::new();
    let view = |item: UsageItem| {
        if begin.is_empty() {
            begin = item.from.to_string();
        }
        let end = item.to.to_string();
        UsageView {
            from: std::mem::replace(&mut begin, end.clone()),
            to: end,
            license_id: item.license_id.map(|id| id.to_string()),
            seats_total: item.seats_total,
            peak: item.peak,
            average: item.average,
            acquired: item.acquired,
            denied: item.denied,
            released: item.released,
            expired: item.expired,
            revoked: item.revoked,
            unique_users: item.unique_users,
        }
    };
    items.map(view).collect()
}

impl From<Denial> for DenialView {
    fn from(denial: Denial) -> Self {
        Self {
            denied_at: denial.denied_at.to_string(),
            user_id: denial.user_id,
            hardware_id: denial.hardware_id,
            license_id: denial.license_id.to_string(),
            product: denial.product,
            reason: denial.reason,
            seats_used: denial.seats_used,
            seats_total: denial.seats_total,
            granted_after_seconds: denial.granted_after_seconds,
        }
    }
}
