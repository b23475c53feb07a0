//! Users of a tenant: added, changed and removed by its admins.
//!
//! Who is added by email alone has an id of ours until its first sign-in with that email; an email that the issuer calls
//! unverified (`email_verified: false`) takes no invitation. A removed user's sessions are revoked, and its acquires
//! refused until it is added again.

use std::time::Instant;

use actors::{AddUser, Request};
use events::{TenantId, UserChange, UserId, UserRecord, double_option};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use projections::UserRow;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::shared::{Created, Deleted, IfMatch, Versioned, created, page_limit, present, refused, versioned};
use crate::app::{App, DECISION_DEADLINE};
use crate::auth::{Caller, Credentials, Role};
use crate::body::Body;
use crate::edge::RequestId;
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;

/// Roles that can be stored with a user; what the platform may comes from tokens alone.
const ROLES: [&str; 3] = ["analyst", "auditor", "tenant_admin"];

/// Longest email, in characters (RFC 5321: 64 before the @, 255 after it).
const MAX_EMAIL: usize = 320;

/// How often a removed user's sessions are looked for: a grant that began before the removal may end after it.
const MAX_ROUNDS: u32 = 5;

/// The operations.
pub struct Users(pub App);

/// A user to be added.
#[derive(Object, Deserialize)]
pub struct NewUserBody {
    /// Required without a user_id; then the user has an id of ours until its first sign-in with this email
    #[serde(default)]
    #[oai(nullable)]
    email: Option<String>,
    /// `sub` of the user's tokens
    #[serde(default)]
    #[oai(nullable)]
    user_id: Option<String>,
    /// Beside those of its tokens: `tenant_admin`, `auditor`, `analyst`
    #[serde(default, deserialize_with = "present")]
    roles: Option<Vec<String>>,
}

/// The fields of a user to be changed.
#[derive(Object, Deserialize)]
pub struct UserChangeBody {
    /// null: none
    #[serde(default, deserialize_with = "double_option")]
    #[oai(nullable)]
    email: Option<Option<String>>,
    /// Never changes
    #[serde(default, deserialize_with = "present")]
    user_id: Option<String>,
    /// Beside those of its tokens: `tenant_admin`, `auditor`, `analyst`
    #[serde(default, deserialize_with = "present")]
    roles: Option<Vec<String>>,
}

/// A user.
#[derive(Object)]
#[oai(rename = "User")]
pub struct UserView {
    user_id: String,
    #[oai(nullable)]
    email: Option<String>,
    /// Stored with the user, beside those of its tokens
    roles: Vec<String>,
    created_at: String,
    /// The last sign of life of any of its sessions
    #[oai(nullable)]
    last_seen_at: Option<String>,
}

impl CsvRow for UserView {
    const COLUMNS: &'static [&'static str] = &["user_id", "email", "roles", "created_at", "last_seen_at"];
}

#[OpenApi]
impl Users {
    /// Users of a tenant, by id
    #[oai(path = "/api/v1/tenants/:tenant_id/users", method = "get", operation_id = "list_users")]
    async fn list(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Listing<UserView>, Problem> {
        let app = &self.0;
        let (_, tenant_id) = admin(app, &credentials, &tenant_id).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let app = app.clone();
        let page = move |after: Option<String>, limit| {
            let app = app.clone();
            async move {
                let page = app.shown().await?.users(tenant_id, after.as_deref(), limit).await?;
                let items = page.items.into_iter().map(UserView::from).collect();
                Ok(Page { items, next: page.next })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }

    /// Add a user, or add a removed one again
    #[oai(path = "/api/v1/tenants/:tenant_id/users", method = "post", operation_id = "add_user")]
    async fn add(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        body: Body<NewUserBody>,
    ) -> Result<Created<UserView>, Problem> {
        let app = &self.0;
        let (_, tenant_id) = admin(app, &credentials, &tenant_id).await?;
        let body = body.parse()?;
        if body.email.is_none() && body.user_id.is_none() {
            return Err(Problem::field("email", "is missing, and so is user_id"));
        }
        let new = AddUser {
            user_id: body.user_id.map(UserId::new).transpose().map_err(Problem::value("user_id"))?,
            email: body.email.map(email).transpose()?,
            roles: roles(body.roles.unwrap_or_default())?,
        };
        let added = app.tenants.add_user(tenant_id, new, Some(request_id.0.0.clone())).await?;
        let user_id = added.map_err(|refusal| refused(&refusal))?;
        let user = known(app, tenant_id, &user_id).await?;
        Ok(created(show(app, tenant_id, &user).await?, &etag(&user)))
    }

    /// One user
    #[oai(path = "/api/v1/tenants/:tenant_id/users/:user_id", method = "get", operation_id = "user")]
    async fn get(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        user_id: Path<String>,
    ) -> Result<Versioned<UserView>, Problem> {
        let app = &self.0;
        let (tenant_id, user, _) = on_user(app, &credentials, &tenant_id, &user_id, Removed::Hidden).await?;
        Ok(versioned(show(app, tenant_id, &user).await?, &etag(&user)))
    }

    /// Change a user; what is left out stays
    #[oai(path = "/api/v1/tenants/:tenant_id/users/:user_id", method = "put", operation_id = "change_user")]
    async fn change(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        user_id: Path<String>,
        /// The ETag that the change is based on
        #[oai(name = "If-Match")]
        if_match: IfMatch,
        body: Body<UserChangeBody>,
    ) -> Result<Versioned<UserView>, Problem> {
        let app = &self.0;
        let (tenant_id, user, _) = on_user(app, &credentials, &tenant_id, &user_id, Removed::Hidden).await?;
        let user_id = user.user_id;
        let body = body.parse()?;
        if body.user_id.is_some_and(|asked| asked != user_id.as_str()) {
            return Err(Problem::field("user_id", "never changes"));
        }
        let change = UserChange {
            email: match body.email {
                Some(Some(text)) => Some(Some(email(text)?)),
                other => other,
            },
            roles: body.roles.map(roles).transpose()?,
        };
        let current = |user: &UserRecord| if_match.allows(&etag(user));
        let request_id = Some(request_id.0.0.clone());
        let changed = app.tenants.change_user(tenant_id, &user_id, change, current, request_id).await?;
        changed.map_err(|refusal| refused(&refusal))?;
        let user = known(app, tenant_id, &user_id).await?;
        Ok(versioned(show(app, tenant_id, &user).await?, &etag(&user)))
    }

    /// Remove a user, and revoke its sessions
    #[oai(
        path = "/api/v1/tenants/:tenant_id/users/:user_id",
        method = "delete",
        operation_id = "remove_user"
    )]
    async fn remove(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        user_id: Path<String>,
        /// The ETag that the removal is based on
        #[oai(name = "If-Match")]
        if_match: IfMatch,
    ) -> Result<Deleted, Problem> {
        let app = &self.0;
        let (tenant_id, user, caller) =
            on_user(app, &credentials, &tenant_id, &user_id, Removed::Shown).await?;
        let user_id = user.user_id;
        let request_id = request_id.0.0.clone();
        let current = |user: &UserRecord| if_match.allows(&etag(user));
        let removed = app.tenants.remove_user(tenant_id, &user_id, current, Some(request_id.clone())).await?;
        removed.map_err(|refusal| refused(&refusal))?;
        app.members.forget(tenant_id, &user_id).await;
        revoke_all(app, tenant_id, &user_id, &caller, &request_id).await?;
        Ok(Deleted::Gone)
    }
}

/// Whoever may change the tenant's users.
async fn admin(app: &App, credentials: &Credentials, tenant_id: &str) -> Result<(Caller, TenantId), Problem> {
    let caller = app.authenticator.verify(credentials.token(None)).await?;
    let tenant_id = app.authenticator.on_tenant(&caller, tenant_id, &[Role::TenantAdmin]).await?;
    Ok((caller, tenant_id))
}

/// Whether a removed user is still there for whoever asks.
#[derive(PartialEq, Eq)]
enum Removed {
    Shown,
    Hidden,
}

/// The user that a path names, and who asks. 404 comes before 403.
async fn on_user(
    app: &App,
    credentials: &Credentials,
    tenant_id: &str,
    user_id: &str,
    removed: Removed,
) -> Result<(TenantId, UserRecord, Caller), Problem> {
    let caller = app.authenticator.verify(credentials.token(None)).await?;
    let tenant_id = app.authenticator.of_tenant(&caller, tenant_id).await?;
    let user_id = UserId::new(user_id).map_err(|_| Problem::UserNotFound)?;
    let user = app.log().find_user(tenant_id, &user_id).await?;
    let user = user.filter(|user| removed == Removed::Shown || !user.removed);
    let user = user.ok_or(Problem::UserNotFound)?;
    app.authenticator.authorize(&caller, tenant_id, &[Role::TenantAdmin]).await?;
    Ok((tenant_id, user, caller))
}

async fn known(app: &App, tenant_id: TenantId, user_id: &UserId) -> Result<UserRecord, Problem> {
    app.log().find_user(tenant_id, user_id).await?.ok_or(Problem::UserNotFound)
}

/// Ends all sessions of a user who was removed: from then on none can begin, so there is an end to it.
async fn revoke_all(
    app: &App,
    tenant_id: TenantId,
    user_id: &UserId,
    caller: &Caller,
    request_id: &str,
) -> Result<(), Problem> {
    let request =
        Request { request_id: Some(request_id.to_owned()), deadline: Instant::now() + DECISION_DEADLINE };
    for _ in 0..MAX_ROUNDS {
        let live = app.log().sessions_of_user(tenant_id, user_id).await?;
        if live.is_empty() {
            return Ok(());
        }
        for (license_id, session_id) in live {
            let (by, reason) = (caller.user_id.to_string(), "user_removed".to_owned());
            app.pools.revoke(license_id, session_id, by, reason, &request).await?;
            app.forget_session(session_id).await;
        }
    }
    Err(Problem::Unavailable { why: "Not all sessions have ended. Try again." })
}

/// Of what an admin may change. Times alone could be the same twice within a millisecond.
fn etag(user: &UserRecord) -> String {
    let state = format!("{:?}", (&user.email, &user.roles, user.removed, user.updated_at.millis()));
    let digest = Sha256::digest(state.as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn email(text: String) -> Result<String, Problem> {
    let bad = || Problem::field("email", "must be an email address");
    let (local, domain) = text.split_once('@').ok_or_else(bad)?;
    let good = !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && text.chars().count() <= MAX_EMAIL
        && !text.chars().any(|one| one.is_control() || one.is_whitespace());
    if good { Ok(text) } else { Err(bad()) }
}

/// Sorted, each once.
fn roles(named: Vec<String>) -> Result<Vec<String>, Problem> {
    if let Some(unknown) = named.iter().find(|role| !ROLES.contains(&role.as_str())) {
        let why = if unknown == "platform_admin" {
            "must not hold platform_admin: it comes from the token alone".to_owned()
        } else {
            format!("must be some of {}", ROLES.join(", "))
        };
        return Err(Problem::field("roles", why));
    }
    let sorted: std::collections::BTreeSet<String> = named.into_iter().collect();
    Ok(sorted.into_iter().collect())
}

async fn show(app: &App, tenant_id: TenantId, user: &UserRecord) -> Result<UserView, Problem> {
    let seen = app.shown().await?.user(tenant_id, &user.user_id).await?;
    Ok(UserView {
        user_id: user.user_id.to_string(),
        email: user.email.clone(),
        roles: user.roles.clone(),
        created_at: user.created_at.to_string(),
        last_seen_at: seen.and_then(|seen| seen.last_seen_at).map(|at| at.to_string()),
    })
}

impl From<UserRow> for UserView {
    fn from(row: UserRow) -> Self {
        Self {
            user_id: row.user_id,
            email: row.email,
            roles: row.roles,
            created_at: row.created_at.to_string(),
            last_seen_at: row.last_seen_at.map(|at| at.to_string()),
        }
    }
}
