//! What was true of a tenant's pools at an instant, folded from the log.

use events::{PoolAt, Time};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use super::shared::time;
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::problem::Problem;

/// The operations.
pub struct State(pub App);

/// What was true at an instant.
#[derive(Object)]
#[oai(rename = "State")]
pub struct StateView {
    at: String,
    licenses: Vec<PoolView>,
}

/// A pool as it was.
#[derive(Object)]
#[oai(rename = "PoolState")]
struct PoolView {
    license_id: String,
    product: String,
    seats_total: u32,
    active: bool,
    seats_used: u32,
    sessions: Vec<HolderView>,
}

/// A session that held a seat.
#[derive(Object)]
#[oai(rename = "Holder")]
struct HolderView {
    session_id: String,
    user_id: String,
    hardware_id: String,
    started_at: String,
}

#[OpenApi]
impl State {
    /// What was true at an instant, what happened in its millisecond included
    #[oai(path = "/api/v1/tenants/:tenant_id/state", method = "get", operation_id = "state")]
    async fn at(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        /// The instant; now if left out
        at: Query<Option<String>>,
    ) -> Result<Json<StateView>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let readers = [Role::TenantAdmin, Role::Auditor];
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &readers).await?;
        let now = app.log().clock().await?;
        let at = time("at", at.0.as_deref())?.unwrap_or(now);
        if at > now {
            return Err(Problem::field("at", format!("must not be in the future: it is {now}")));
        }
        app.log().settled().await?;
        let pools = app.log().pools_at(tenant_id, at).await?;
        Ok(Json(StateView::new(at, pools)))
    }
}

impl StateView {
    /// As the contract writes it.
    #[must_use]
    pub fn new(at: Time, pools: Vec<PoolAt>) -> Self {
        Self { at: at.to_string(), licenses: pools.into_iter().map(PoolView::from).collect() }
    }
}

impl From<PoolAt> for PoolView {
    fn from(pool: PoolAt) -> Self {
        let sessions: Vec<_> = pool
            .sessions
            .into_iter()
            .map(|session| HolderView {
                session_id: session.session_id.to_string(),
                user_id: session.user_id.to_string(),
                hardware_id: session.hardware_id.to_string(),
                started_at: session.started_at.to_string(),
            })
            .collect();
        Self {
            license_id: pool.license_id.to_string(),
            product: pool.license.terms.product.to_string(),
            seats_total: pool.license.terms.seats_total.get(),
            active: pool.license.terms.active,
            seats_used: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
            sessions,
        }
    }
}
