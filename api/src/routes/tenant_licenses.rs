//! Licenses: issued and changed by the platform, read by their tenant's admins.

use std::time::Instant;

use actors::{Answer, Request};
use events::{LicenseChange, LicenseId, LicenseTerms, Product, Seats, TenantId, Time, double_option};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use projections::LicenseRow;
use serde::Deserialize;

use super::shared::{
    Created, IfMatch, Versioned, created, etag, page_limit, present, refused, text, versioned,
};
use crate::app::{App, DECISION_DEADLINE};
use crate::auth::{Authenticator, Credentials, Role};
use crate::body::Body;
use crate::edge::RequestId;
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;

/// Longest grace that a license can give, in seconds: a year.
const MAX_GRACE: i64 = 31_536_000;

/// Most features of a license.
const MAX_FEATURES: usize = 100;

/// The operations.
pub struct TenantLicenses(pub App);

/// A license to be issued, or the fields of one to be changed.
#[derive(Object, Deserialize)]
#[oai(rename = "LicenseRequest")]
pub struct LicenseBody {
    /// What it is for; required when it is issued, and never changes
    #[serde(default, deserialize_with = "present")]
    product: Option<String>,
    /// For people and billing; a claim of the license token
    #[serde(default, deserialize_with = "present")]
    plan: Option<String>,
    /// How many sessions may live at a time, 0 to 1,000,000
    #[serde(default, deserialize_with = "present")]
    seats_total: Option<i64>,
    /// Inactive: acquires and heartbeats are refused
    #[serde(default, deserialize_with = "present")]
    active: Option<bool>,
    /// Claims of the license token
    #[serde(default, deserialize_with = "present")]
    features: Option<Vec<String>>,
    /// Refused before; null: no bound
    #[serde(default, deserialize_with = "double_option")]
    #[oai(nullable)]
    valid_from: Option<Option<String>>,
    /// Refused from here on; null: no bound
    #[serde(default, deserialize_with = "double_option")]
    #[oai(nullable)]
    valid_until: Option<Option<String>>,
    /// Seconds that a license token outlives its issue; null: the service's default
    #[serde(default, deserialize_with = "double_option")]
    #[oai(nullable)]
    offline_grace_seconds: Option<Option<i64>>,
}

/// A license.
#[derive(Object)]
#[oai(rename = "License")]
struct LicenseView {
    license_id: String,
    tenant_id: String,
    product: String,
    plan: String,
    seats_total: u32,
    seats_used: u32,
    active: bool,
    features: Vec<String>,
    #[oai(nullable)]
    valid_from: Option<String>,
    #[oai(nullable)]
    valid_until: Option<String>,
    #[oai(nullable)]
    offline_grace_seconds: Option<u32>,
    created_at: String,
    updated_at: String,
}

impl CsvRow for LicenseView {
    const COLUMNS: &'static [&'static str] = &[
        "license_id",
        "tenant_id",
        "product",
        "plan",
        "seats_total",
        "seats_used",
        "active",
        "features",
        "valid_from",
        "valid_until",
        "offline_grace_seconds",
        "created_at",
        "updated_at",
    ];
}

#[OpenApi]
impl TenantLicenses {
    /// Issue a license
    #[oai(path = "/api/v1/tenants/:tenant_id/licenses", method = "post", operation_id = "issue_license")]
    async fn issue(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        body: Body<LicenseBody>,
    ) -> Result<Created<LicenseView>, Problem> {
        let app = &self.0;
        let tenant_id = platform_only(app, &credentials, &tenant_id).await?;
        let terms = terms(body.parse()?)?;
        let issued = app.tenants.issue_license(tenant_id, terms, Some(request_id.0.0.clone())).await?;
        let license_id = issued.map_err(|refusal| refused(&refusal))?;
        app.forget_licenses(tenant_id).await;
        let (body, etag) = show(app, tenant_id, license_id).await?;
        Ok(created(body, &etag))
    }

    /// Licenses of a tenant, oldest first
    #[oai(path = "/api/v1/tenants/:tenant_id/licenses", method = "get", operation_id = "list_licenses")]
    async fn list(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Listing<LicenseView>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &[Role::TenantAdmin]).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let app = app.clone();
        let page = move |after: Option<String>, limit| {
            let app = app.clone();
            async move {
                let page = app.shown().await?.licenses(tenant_id, after.as_deref(), limit).await?;
                let items = page.items.into_iter().map(LicenseView::from).collect();
                Ok(Page { items, next: page.next })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }

    /// One license
    #[oai(path = "/api/v1/tenants/:tenant_id/licenses/:license_id", method = "get", operation_id = "license")]
    async fn get(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        license_id: Path<String>,
    ) -> Result<Versioned<LicenseView>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.of_tenant(&caller, &tenant_id).await?;
        let license_id = own_license(app, tenant_id, &license_id).await?;
        app.authenticator.authorize(&caller, tenant_id, &[Role::TenantAdmin]).await?;
        let (body, etag) = show(app, tenant_id, license_id).await?;
        Ok(versioned(body, &etag))
    }

    /// Change a license; what is left out stays
    #[oai(
        path = "/api/v1/tenants/:tenant_id/licenses/:license_id",
        method = "put",
        operation_id = "change_license"
    )]
    async fn change(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        license_id: Path<String>,
        /// The ETag that the change is based on
        #[oai(name = "If-Match")]
        if_match: IfMatch,
        body: Body<LicenseBody>,
    ) -> Result<Versioned<LicenseView>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.of_tenant(&caller, &tenant_id).await?;
        let license_id = own_license(app, tenant_id, &license_id).await?;
        Authenticator::require_platform_admin(&caller)?;
        let license = app.log().license(license_id).await?.ok_or(Problem::LicenseNotFound)?;
        let change = change(body.parse()?, &license.terms)?;
        let if_version = if_match.version(license.terms_version);
        let request = Request {
            request_id: Some(request_id.0.0.clone()),
            deadline: Instant::now() + DECISION_DEADLINE,
        };
        match app.pools.change_license(license_id, change, if_version, &request).await? {
            Answer::Changed { .. } => {}
            Answer::Stale => return Err(Problem::PreconditionFailed),
            Answer::ProductTaken => {
                let why = "The tenant has another active license of this product.".to_owned();
                return Err(Problem::Conflict { why });
            }
            _ => return Err(Problem::Internal),
        }
        app.forget_licenses(tenant_id).await;
        let (body, etag) = show(app, tenant_id, license_id).await?;
        Ok(versioned(body, &etag))
    }
}

async fn platform_only(app: &App, credentials: &Credentials, tenant_id: &str) -> Result<TenantId, Problem> {
    let caller = app.authenticator.verify(credentials.token(None)).await?;
    // 404 before 403: another's tenant does not exist, whatever the caller may do at home.
    let tenant_id = app.authenticator.of_tenant(&caller, tenant_id).await?;
    Authenticator::require_platform_admin(&caller)?;
    Ok(tenant_id)
}

async fn own_license(app: &App, tenant_id: TenantId, license_id: &str) -> Result<LicenseId, Problem> {
    let license_id: LicenseId = license_id.parse().map_err(|_| Problem::LicenseNotFound)?;
    let owner = app.log().tenant_of(license_id.0).await?;
    if owner == Some(tenant_id) && license_id.0 != tenant_id.0 {
        Ok(license_id)
    } else {
        Err(Problem::LicenseNotFound)
    }
}

fn terms(body: LicenseBody) -> Result<LicenseTerms, Problem> {
    let missing = |field: &'static str| move || Problem::field(field, "is missing");
    let product = body.product.clone().ok_or_else(missing("product"))?;
    let seats_total = body.seats_total.ok_or_else(missing("seats_total"))?;
    let plan = body.plan.clone().ok_or_else(missing("plan"))?;
    let mut terms = LicenseTerms {
        product: Product::new(product).map_err(Problem::value("product"))?,
        plan,
        seats_total: Seats::new(seats_total).map_err(Problem::value("seats_total"))?,
        active: true,
        features: Vec::new(),
        valid_from: None,
        valid_until: None,
        offline_grace_seconds: None,
    };
    terms.change(&parse(body)?);
    in_order(&terms)?;
    Ok(terms)
}

fn change(body: LicenseBody, in_force: &LicenseTerms) -> Result<LicenseChange, Problem> {
    if body.product.as_ref().is_some_and(|asked| asked != in_force.product.as_str()) {
        return Err(Problem::field("product", "never changes"));
    }
    let change = parse(body)?;
    let mut after = in_force.clone();
    after.change(&change);
    in_order(&after)?;
    Ok(change)
}

fn in_order(terms: &LicenseTerms) -> Result<(), Problem> {
    match (terms.valid_from, terms.valid_until) {
        (Some(from), Some(until)) if from >= until => {
            Err(Problem::field("valid_until", "must be after valid_from"))
        }
        _ => Ok(()),
    }
}

fn parse(body: LicenseBody) -> Result<LicenseChange, Problem> {
    let time = |field: &'static str, text: Option<Option<String>>| match text {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(text)) => match Time::parse(&text) {
            Ok(time) => Ok(Some(Some(time))),
            Err(_) => Err(Problem::field(field, "must be an RFC 3339 time")),
        },
    };
    let grace = match body.offline_grace_seconds {
        None => None,
        Some(None) => Some(None),
        Some(Some(seconds)) => {
            let bad = || Problem::field("offline_grace_seconds", format!("must be 60 to {MAX_GRACE}"));
            let good = (60..=MAX_GRACE).contains(&seconds).then_some(seconds).ok_or_else(bad)?;
            Some(Some(u32::try_from(good).map_err(|_| bad())?))
        }
    };
    let features = body.features.map(|features| {
        if features.len() > MAX_FEATURES {
            return Err(Problem::field("features", format!("must be at most {MAX_FEATURES}")));
        }
        features.into_iter().map(|feature| text("features", feature, 64)).collect::<Result<Vec<_>, _>>()
    });
    let valid_from = time("valid_from", body.valid_from)?;
    let valid_until = time("valid_until", body.valid_until)?;
    Ok(LicenseChange {
        plan: body.plan.map(|plan| text("plan", plan, 64)).transpose()?,
        seats_total: body.seats_total.map(Seats::new).transpose().map_err(Problem::value("seats_total"))?,
        active: body.active,
        features: features.transpose()?,
        valid_from,
        valid_until,
        offline_grace_seconds: grace,
    })
}

/// A license as it is now, out of the log, and its ETag.
async fn show(
    app: &App,
    tenant_id: TenantId,
    license_id: LicenseId,
) -> Result<(LicenseView, String), Problem> {
    let license = app.log().license(license_id).await?.ok_or(Problem::LicenseNotFound)?;
    let seats_used = app.log().count_seats_of(license_id).await?;
    let terms = license.terms;
    let view = LicenseView {
        license_id: license_id.to_string(),
        tenant_id: tenant_id.to_string(),
        product: terms.product.to_string(),
        plan: terms.plan,
        seats_total: terms.seats_total.get(),
        seats_used: u32::try_from(seats_used).unwrap_or(u32::MAX),
        active: terms.active,
        features: terms.features,
        valid_from: terms.valid_from.map(|time| time.to_string()),
        valid_until: terms.valid_until.map(|time| time.to_string()),
        offline_grace_seconds: terms.offline_grace_seconds,
        created_at: license.created_at.to_string(),
        updated_at: license.updated_at.to_string(),
    };
    Ok((view, etag(license.terms_version)))
}

impl From<LicenseRow> for LicenseView {
    fn from(row: LicenseRow) -> Self {
        let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            license_id: row.license_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            product: row.product,
            plan: row.plan,
            seats_total: count(row.seats_total),
            seats_used: count(row.seats_used),
            active: row.active,
            features: row.features,
            valid_from: row.valid_from.map(|time| time.to_string()),
            valid_until: row.valid_until.map(|time| time.to_string()),
            offline_grace_seconds: row.offline_grace_seconds.map(count),
            created_at: row.created_at.to_string(),
            updated_at: row.updated_at.to_string(),
        }
    }
}
