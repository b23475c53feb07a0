//! Tenants: made by the platform, read by their admins.

use actors::{NewTenant, TenantState};
use events::{LicenseId, Product, Seats, TenantChange, TenantId, TenantTerms, double_option};
use poem_openapi::param::{Path, Query};

use poem_openapi::{Object, OpenApi};
use projections::TenantRow;
use serde::Deserialize;
use serde_json::json;

use super::shared::{
    Created, IfMatch, Versioned, created, etag, page_limit, present, refused, text, versioned,
};
use crate::app::App;
use crate::auth::{Authenticator, Credentials, Role};
use crate::body::Body;
use crate::edge::RequestId;
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;
use crate::routes::licenses::SeatCount;

/// The product of a tenant's first license.
const FIRST_PRODUCT: &str = "coditect";

/// Whom requests that concern no tenant are counted for.
const NOBODYS: TenantId = TenantId(uuid::Uuid::nil());

/// The operations.
pub struct TenantRoutes(pub App);

/// A tenant to be made.
#[derive(Object, Deserialize)]
pub struct NewTenantBody {
    /// For people, 1 to 200 characters
    name: String,
    /// Unique; a DNS label
    subdomain: String,
    /// For people and billing, 1 to 64 characters
    plan: String,
    /// Seats of the first license, 0 to 1,000,000
    max_seats: i64,
    /// What the identity provider calls the tenant; unique, and no UUID
    #[serde(default)]
    #[oai(nullable)]
    identity_tenant: Option<String>,
}

/// The fields of a tenant to be changed.
#[derive(Object, Deserialize)]
pub struct TenantChangeBody {
    /// For people, 1 to 200 characters
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// Never changes
    #[serde(default, deserialize_with = "present")]
    subdomain: Option<String>,
    /// For people and billing, 1 to 64 characters
    #[serde(default, deserialize_with = "present")]
    plan: Option<String>,
    /// Seats of the first license, 0 to 1,000,000
    #[serde(default, deserialize_with = "present")]
    max_seats: Option<i64>,
    /// Inactive: acquires and heartbeats are refused
    #[serde(default, deserialize_with = "present")]
    active: Option<bool>,
    /// What the identity provider calls the tenant; unique, and no UUID; null: nothing
    #[serde(default, deserialize_with = "double_option")]
    #[oai(nullable)]
    identity_tenant: Option<Option<String>>,
}

/// A tenant.
#[derive(Object)]
#[oai(rename = "Tenant")]
struct TenantBody {
    id: String,
    name: String,
    subdomain: String,
    plan: String,
    max_seats: u32,
    active: bool,
    #[oai(nullable)]
    identity_tenant: Option<String>,
    /// The first license
    #[oai(nullable)]
    license_id: Option<String>,
    /// Of all active licenses
    seats: SeatCount,
    created_at: String,
    updated_at: String,
}

impl CsvRow for TenantBody {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "subdomain",
        "plan",
        "max_seats",
        "active",
        "identity_tenant",
        "license_id",
        "seats.used",
        "seats.total",
        "created_at",
        "updated_at",
    ];
}

#[OpenApi]
impl TenantRoutes {
    /// Make a tenant and its first license
    #[oai(path = "/api/v1/tenants", method = "post", operation_id = "create_tenant")]
    async fn create(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        body: Body<NewTenantBody>,
    ) -> Result<Created<TenantBody>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        Authenticator::require_platform_admin(&caller)?;
        app.limits.check(NOBODYS, &caller.user_id)?;
        let terms = parse(body.parse()?)?;
        let product = Product::new(FIRST_PRODUCT).map_err(Problem::value("product"))?;
        let new = NewTenant { terms, features: Vec::new(), product };
        let made = app.tenants.create(new, Some(request_id.0.0.clone())).await?;
        let (tenant_id, _) = made.map_err(|refusal| refused(&refusal))?;
        let (body, etag) = show(app, tenant_id).await?;
        Ok(created(body, &etag))
    }

    /// Tenants that the caller may see, oldest first
    #[oai(path = "/api/v1/tenants", method = "get", operation_id = "list_tenants")]
    async fn list(
        &self,
        credentials: Credentials,
        format: Format,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Listing<TenantBody>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let own = match Authenticator::require_platform_admin(&caller) {
            Ok(()) => {
                app.limits.check(NOBODYS, &caller.user_id)?;
                None
            }
            Err(_) => {
                let own = app.authenticator.tenant_of(&caller).await?;
                Some(app.authenticator.on_tenant(&caller, &own.to_string(), &[Role::TenantAdmin]).await?)
            }
        };
        let limit = page_limit(limit.0.as_deref())?;
        let app = app.clone();
        let page = move |after: Option<String>, limit| {
            let app = app.clone();
            async move {
                let Some(own) = own else {
                    let page = app.shown().await?.tenants(after.as_deref(), limit).await?;
                    let items = page.items.into_iter().map(TenantBody::from).collect();
                    return Ok(Page { items, next: page.next });
                };
                let after = after.as_deref().map(page_cursor).transpose()?;
                let items = match after {
                    Some(after) if after >= own => Vec::new(),
                    _ => vec![show(&app, own).await?.0],
                };
                Ok(Page { items, next: None })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }

    /// One tenant
    #[oai(path = "/api/v1/tenants/:tenant_id", method = "get", operation_id = "tenant")]
    async fn get(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
    ) -> Result<Versioned<TenantBody>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &[Role::TenantAdmin]).await?;
        let (body, etag) = show(app, tenant_id).await?;
        Ok(versioned(body, &etag))
    }

    /// Change a tenant; what is left out stays
    ///
    /// A tenant admin may change the name only. `max_seats` are the seats of the first license: changing either changes
    /// both. A tenant that is not active refuses acquires and heartbeats from the moment of this answer on.
    #[oai(path = "/api/v1/tenants/:tenant_id", method = "put", operation_id = "change_tenant")]
    async fn change(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        /// The ETag that the change is based on
        #[oai(name = "If-Match")]
        if_match: IfMatch,
        body: Body<TenantChangeBody>,
    ) -> Result<Versioned<TenantBody>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &[Role::TenantAdmin]).await?;
        let state = app.tenants.tenant(tenant_id).await?.ok_or(Problem::TenantNotFound)?;
        if Authenticator::require_platform_admin(&caller).is_err() {
            only_the_name(&body, &state.terms)?;
        }
        let change = change(body.parse()?, &state.terms)?;
        let if_version = if_match.version(state.terms_version);
        let changed = app.tenants.change(tenant_id, change, if_version, Some(request_id.0.0.clone())).await?;
        changed.map_err(|refusal| refused(&refusal))?;
        let (body, etag) = show(app, tenant_id).await?;
        Ok(versioned(body, &etag))
    }
}

fn page_cursor(after: &str) -> Result<TenantId, Problem> {
    after.parse().map_err(|_| Problem::field("after", "is not a cursor that this service handed out"))
}

fn parse(body: NewTenantBody) -> Result<TenantTerms, Problem> {
    Ok(TenantTerms {
        name: text("name", body.name, 200)?,
        subdomain: subdomain(body.subdomain)?,
        plan: text("plan", body.plan, 64)?,
        max_seats: Seats::new(body.max_seats).map_err(Problem::value("max_seats"))?,
        active: true,
        identity_tenant: body.identity_tenant.map(identity_tenant).transpose()?,
    })
}

/// What a tenant's own admin may not change is refused, whatever its new value; what stays as it is changes nothing.
fn only_the_name(body: &Body<TenantChangeBody>, terms: &TenantTerms) -> Result<(), Problem> {
    let in_force = json!({
        "subdomain": terms.subdomain, "plan": terms.plan, "max_seats": terms.max_seats.get(),
        "active": terms.active, "identity_tenant": terms.identity_tenant,
    });
    let fields = in_force.as_object().into_iter().flatten();
    for (field, value) in fields {
        if body.field(field).is_some_and(|asked| asked != value) {
            return Err(Problem::Forbidden { why: "Only a platform admin may change this of a tenant." });
        }
    }
    Ok(())
}

fn change(body: TenantChangeBody, terms: &TenantTerms) -> Result<TenantChange, Problem> {
    if body.subdomain.is_some_and(|asked| asked != terms.subdomain) {
        return Err(Problem::field("subdomain", "never changes"));
    }
    let identity = match body.identity_tenant {
        None => None,
        Some(None) => Some(None),
        Some(Some(name)) => Some(Some(identity_tenant(name)?)),
    };
    Ok(TenantChange {
        name: body.name.map(|name| text("name", name, 200)).transpose()?,
        plan: body.plan.map(|plan| text("plan", plan, 64)).transpose()?,
        max_seats: body.max_seats.map(Seats::new).transpose().map_err(Problem::value("max_seats"))?,
        active: body.active,
        identity_tenant: identity,
    })
}

/// A DNS label (RFC 1035, section 2.3.1), in lower case.
fn subdomain(label: String) -> Result<String, Problem> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&label.len())
        && label.bytes().all(inside)
        && !label.starts_with('-')
        && !label.ends_with('-');
    if good { Ok(label) } else { Err(Problem::field("subdomain", "must be a DNS label in lower case")) }
}

/// A name that cannot be taken for a tenant's id.
fn identity_tenant(name: String) -> Result<String, Problem> {
    if name.parse::<TenantId>().is_ok() {
        return Err(Problem::field("identity_tenant", "must not be a UUID"));
    }
    text("identity_tenant", name, 128)
}

/// A tenant as it is now, out of the log, and its ETag.
async fn show(app: &App, tenant_id: TenantId) -> Result<(TenantBody, String), Problem> {
    let state: TenantState = app.tenants.tenant(tenant_id).await?.ok_or(Problem::TenantNotFound)?;
    let used = app.log().count_seats_by_license(tenant_id).await?;
    let (mut seats, mut first) = (SeatCount { used: 0, total: 0 }, None);
    for (license_id, held) in used {
        let Some(license) = app.log().license(license_id).await? else { continue };
        if license.terms.active {
            seats.used += u32::try_from(held).unwrap_or(u32::MAX);
            seats.total += license.terms.seats_total.get();
        }
        first.get_or_insert((license_id, license.terms.seats_total));
    }
    let etag = etag(state.terms_version);
    let terms = state.terms;
    let body = TenantBody {
        id: tenant_id.to_string(),
        name: terms.name,
        subdomain: terms.subdomain,
        plan: terms.plan,
        max_seats: first.map_or(terms.max_seats, |(_, total): (LicenseId, Seats)| total).get(),
        active: terms.active,
        identity_tenant: terms.identity_tenant,
        license_id: first.map(|(license_id, _)| license_id.to_string()),
        seats,
        created_at: state.created_at.to_string(),
        updated_at: state.updated_at.to_string(),
    };
    Ok((body, etag))
}

impl From<TenantRow> for TenantBody {
    fn from(row: TenantRow) -> Self {
        let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            id: row.id.to_string(),
            name: row.name,
            subdomain: row.subdomain,
            plan: row.plan,
            max_seats: count(row.max_seats),
            active: row.active,
            identity_tenant: row.identity_tenant,
            license_id: row.license_id.map(|id| id.to_string()),
            seats: SeatCount { used: count(row.seats_used), total: count(row.seats_total) },
            created_at: row.created_at.to_string(),
            updated_at: row.updated_at.to_string(),
        }
    }
}
