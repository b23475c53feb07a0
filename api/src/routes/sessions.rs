//! Who holds which seat since when, and how a seat is taken from its holder.

use std::time::Instant;

use actors::{Answer, Request};
use events::{SessionId, SessionPlace, TenantId};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::shared::{Deleted, text};
use crate::app::{App, DECISION_DEADLINE};
use crate::auth::{Credentials, Role};
use crate::edge::RequestId;
use crate::problem::Problem;

/// What a revocation says if the admin says nothing.
const DEFAULT_REASON: &str = "revoked by an admin";

/// Longest reason, in characters.
const MAX_REASON: usize = 200;

/// The operations.
pub struct Sessions(pub App);

#[OpenApi]
impl Sessions {
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
