//! Tenants: made by the platform, read by their admins.

use actors::{AdminRefusal, NewTenant, TenantState};
use events::{LicenseId, Product, Seats, TenantId, TenantTerms};
use poem_openapi::param::Path;
use poem_openapi::payload::{Json, Response};
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::auth::{Authenticator, Credentials, Role};
use crate::body::Body;
use crate::edge::RequestId;
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

/// A page of tenants.
#[derive(Object)]
struct TenantPage {
    items: Vec<TenantBody>,
    /// Where the next page begins
    #[oai(nullable)]
    next: Option<String>,
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
        let (tenant_id, _) = made.map_err(|refusal| conflict(&refusal))?;
        let (body, etag) = show(app, tenant_id).await?;
        Ok(created(body, &etag))
    }

    /// Tenants that the caller may see
    #[oai(path = "/api/v1/tenants", method = "get", operation_id = "list_tenants")]
    async fn list(
        &self,
        credentials: Credentials,
        /// Where the page begins: `next` of the page before
        after: poem_openapi::param::Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: poem_openapi::param::Query<Option<String>>,
    ) -> Result<Json<TenantPage>, Problem> {
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
        let after = after.0.as_deref().map(page_cursor).transpose()?;
        let ids = match own {
            Some(own) => vec![own],
            None => app.tenant_list.page(after, limit + 1).await?,
        };
        let more = ids.len() > limit;
        let mut items = Vec::new();
        for tenant_id in ids.iter().take(limit) {
            items.push(show(app, *tenant_id).await?.0);
        }
        let next = if more { ids.get(limit - 1).map(ToString::to_string) } else { None };
        Ok(Json(TenantPage { items, next }))
    }

    /// One tenant
    #[oai(path = "/api/v1/tenants/:tenant_id", method = "get", operation_id = "tenant")]
    async fn get(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
    ) -> Result<Response<Json<TenantBody>>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &[Role::TenantAdmin]).await?;
        let (body, etag) = show(app, tenant_id).await?;
        Ok(Response::new(Json(body)).header("ETag", etag))
    }
}

/// A resource that was made: 201.
#[derive(poem_openapi::ApiResponse)]
pub enum Created<T: poem_openapi::types::ToJSON> {
    /// Made
    #[oai(status = 201)]
    Made(Json<T>, #[oai(header = "ETag")] String),
}

pub(super) fn created<T: poem_openapi::types::ToJSON>(body: T, etag: &str) -> Created<T> {
    Created::Made(Json(body), etag.to_owned())
}

/// The ETag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// `limit` of a list.
pub(super) fn page_limit(limit: Option<&str>) -> Result<usize, Problem> {
    match limit.map(str::parse::<usize>) {
        None => Ok(100),
        Some(Ok(limit @ 1..=1000)) => Ok(limit),
        Some(_) => Err(Problem::field("limit", "must be 1 to 1000")),
    }
}

fn page_cursor(after: &str) -> Result<TenantId, Problem> {
    after.parse().map_err(|_| Problem::field("after", "is not a cursor that this service handed out"))
}

/// What a name that somebody holds is answered with.
pub(super) fn conflict(refusal: &AdminRefusal) -> Problem {
    match refusal {
        AdminRefusal::NameTaken { scope, name } if scope.starts_with("product/") => {
            Problem::Conflict { why: format!("The tenant has an active license of product {name} already.") }
        }
        AdminRefusal::NameTaken { scope, name } => {
            Problem::Conflict { why: format!("The {scope} {name} is taken.") }
        }
        AdminRefusal::NoSuchTenant => Problem::TenantNotFound,
        AdminRefusal::Stale => Problem::PreconditionFailed,
    }
}

/// A text of 1 to `most` characters that a terminal shows as it is.
pub(super) fn text(field: &str, value: String, most: usize) -> Result<String, Problem> {
    let length = value.chars().count();
    if (1..=most).contains(&length) && !value.chars().any(char::is_control) {
        Ok(value)
    } else {
        Err(Problem::field(field, format!("must be 1 to {most} characters without control characters")))
    }
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
        let Some(license) = app.tenants.license(license_id).await?.and_then(|pool| pool.license) else {
            continue;
        };
        if license.active {
            seats.used += u32::try_from(held).unwrap_or(u32::MAX);
            seats.total += license.seats_total.get();
        }
        first.get_or_insert((license_id, license.seats_total));
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
