//! Who holds which seat since when, and how a seat is taken from its holder.

use std::time::Instant;

use actors::{Answer, Request};
use events::{SessionId, SessionPlace, TenantId, UserId};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use projections::{SessionFilter, SessionRow};

use super::shared::{Deleted, page_limit, text};
use crate::app::{App, DECISION_DEADLINE};
use crate::auth::{Credentials, Role};
use crate::edge::RequestId;
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;

/// What a revocation says if the admin says nothing.
const DEFAULT_REASON: &str = "revoked by an admin";

/// Longest reason, in characters.
const MAX_REASON: usize = 200;

/// The operations.
pub struct Sessions(pub App);

/// A session.
#[derive(Object)]
#[oai(rename = "Session")]
struct SessionView {
    session_id: String,
    license_id: String,
    product: String,
    user_id: String,
    hardware_id: String,
    #[oai(nullable)]
    machine_name: Option<String>,
    /// `active`, `released`, `expired` or `revoked`
    state: String,
    started_at: String,
    last_heartbeat_at: String,
    /// When it ends, or would have ended, without a further heartbeat
    expires_at: String,
    #[oai(nullable)]
    ended_at: Option<String>,
}

impl CsvRow for SessionView {
    const COLUMNS: &'static [&'static str] = &[
        "session_id",
        "license_id",
        "product",
        "user_id",
        "hardware_id",
        "machine_name",
        "state",
        "started_at",
        "last_heartbeat_at",
        "expires_at",
        "ended_at",
    ];
}

#[OpenApi]
impl Sessions {
    /// Sessions of a tenant, oldest first
    #[oai(path = "/api/v1/tenants/:tenant_id/sessions", method = "get", operation_id = "list_sessions")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn list(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// `active`, `ended` or `all`; `active` if left out
        state: Query<Option<String>>,
        /// Only sessions of this user
        user_id: Query<Option<String>>,
        /// Only sessions of this license
        license_id: Query<Option<String>>,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Listing<SessionView>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let readers = [Role::TenantAdmin, Role::Analyst];
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &readers).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let filter = SessionFilter {
            live: match state.0.as_deref() {
                None | Some("active") => Some(true),
                Some("ended") => Some(false),
                Some("all") => None,
                Some(_) => return Err(Problem::field("state", "must be active, ended or all")),
            },
            license_id: license_id
                .0
                .map(|id| id.parse())
                .transpose()
                .map_err(Problem::value("license_id"))?,
            user_id: user_id.0.map(UserId::new).transpose().map_err(Problem::value("user_id"))?,
        };
        let app = app.clone();
        let page = move |after: Option<String>, limit| {
            let (app, filter) = (app.clone(), filter.clone());
            async move {
                let page = app.shown().await?.sessions(tenant_id, &filter, after.as_deref(), limit).await?;
                let items = page.items.into_iter().map(SessionView::from).collect();
                Ok(Page { items, next: page.next })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }

    /// Revoke a session: its seat is free at once
    #[oai(
        path = "/api/v1/tenants/:tenant_id/sessions/:session_id",
        method = "delete",
        operation_id = "revoke_session"
    )]
    async fn revoke(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        tenant_id: Path<String>,
        session_id: Path<String>,
        /// Why, 1 to 200 characters: what auditors read
        reason: Query<Option<String>>,
    ) -> Result<Deleted, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let tenant_id = app.authenticator.of_tenant(&caller, &tenant_id).await?;
        let (session_id, place) = find(app, tenant_id, &session_id).await?;
        app.authenticator.authorize(&caller, tenant_id, &[Role::TenantAdmin]).await?;
        let reason = reason.0.map(|reason| text("reason", reason, MAX_REASON)).transpose()?;
        let reason = reason.unwrap_or_else(|| DEFAULT_REASON.to_owned());
        let request = Request {
            request_id: Some(request_id.0.0.clone()),
            deadline: Instant::now() + DECISION_DEADLINE,
        };
        let by = caller.user_id.to_string();
        match app.pools.revoke(place.license_id, session_id, by, reason, &request).await? {
            Answer::Revoked | Answer::NotHeld { end: Some(_) } => {
                app.forget_session(session_id).await;
                Ok(Deleted::Gone)
            }
            _ => Err(Problem::SessionNotFound),
        }
    }
}

/// The tenant's own session that a path names, live or ended.
async fn find(
    app: &App,
    tenant_id: TenantId,
    session_id: &str,
) -> Result<(SessionId, SessionPlace), Problem> {
    let session_id: SessionId = session_id.parse().map_err(|_| Problem::SessionNotFound)?;
    let place = app.place_of(session_id).await?.ok_or(Problem::SessionNotFound)?;
    if place.tenant_id == tenant_id { Ok((session_id, place)) } else { Err(Problem::SessionNotFound) }
}

impl From<SessionRow> for SessionView {
    fn from(row: SessionRow) -> Self {
        Self {
            session_id: row.session_id.to_string(),
            license_id: row.license_id.to_string(),
            product: row.product,
            user_id: row.user_id,
            hardware_id: row.hardware_id,
            machine_name: row.machine_name,
            state: row.state.as_str().to_owned(),
            started_at: row.started_at.to_string(),
            last_heartbeat_at: row.last_heartbeat_at.to_string(),
            expires_at: row.expires_at.to_string(),
            ended_at: row.ended_at.map(|at| at.to_string()),
        }
    }
}
