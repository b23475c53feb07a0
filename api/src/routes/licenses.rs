//! What CODITECT itself calls: acquire, heartbeat, release. These act for the token's subject only.

mod acquire;

use std::time::Instant;

use actors::{Answer, Request};
use events::{SessionEnd, SessionId, SessionPlace, TenantId, Time};
use futures_util::FutureExt;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};

use crate::app::{App, DECISION_DEADLINE};
use crate::auth::{Caller, Credentials};
use crate::body::Body;
use crate::edge::RequestId;
use crate::problem::Problem;

/// The operations.
pub struct Licenses(pub App);

/// A seat asked for.
#[derive(Object, Deserialize)]
#[oai(rename = "AcquireRequest")]
pub struct AcquireBody {
    /// If present, the token's subject
    #[serde(default)]
    #[oai(nullable)]
    user_id: Option<String>,
    /// Machine fingerprint chosen by the client
    #[oai(validator(min_length = 8, max_length = 128, pattern = "^[A-Za-z0-9._:-]*$"))]
    hardware_id: String,
    /// The caller's JWT, if it is not in the header
    #[serde(default)]
    #[oai(nullable)]
    jwt_token: Option<String>,
    /// What the seat is for; `coditect` if left out
    #[serde(default)]
    #[oai(nullable)]
    product: Option<String>,
    /// What admins see beside the session
    #[serde(default)]
    #[oai(nullable, validator(max_length = 64))]
    machine_name: Option<String>,
}

/// A session named.
#[derive(Object, Deserialize)]
#[oai(rename = "SessionRequest")]
pub struct SessionBody {
    /// As acquire answered it
    session_id: String,
    /// The caller's JWT, if it is not in the header
    #[serde(default)]
    #[oai(nullable)]
    jwt_token: Option<String>,
}

/// Seats of a pool.
#[derive(Object, Serialize, Debug, Clone, Copy)]
pub struct SeatCount {
    /// In use
    pub used: u32,
    /// That may be in use
    pub total: u32,
}

/// A seat held.
#[derive(Object, Debug, Clone)]
#[oai(rename = "AcquireAnswer")]
pub struct Acquired {
    /// The session that holds the seat
    pub session_id: String,
    /// A JWS to be verified offline
    pub license_token: String,
    /// When the token ends
    pub expires_at: String,
    /// The key that verifies the token, PEM
    pub public_key: String,
    /// `granted`, or `renewed` if the same user held it on the same machine already
    pub status: String,
    /// When to send a heartbeat
    pub next_heartbeat_at: String,
    /// Seconds between heartbeats
    pub heartbeat_interval_seconds: u32,
    /// Seconds without a heartbeat after which the session ends
    pub session_ttl_seconds: u32,
    /// Of the pool
    pub seats: SeatCount,
}

/// A session that lives on.
#[derive(Object)]
#[oai(rename = "HeartbeatAnswer")]
pub struct Alive {
    /// `ok`
    status: String,
    /// When to send the next one
    next_heartbeat_at: String,
    /// When the session ends if no further heartbeat comes
    expires_at: String,
}

/// A seat given back.
#[derive(Object)]
#[oai(rename = "ReleaseAnswer")]
pub struct Released {
    /// `released`
    status: String,
}

#[OpenApi]
impl Licenses {
    /// Take a seat, or renew the one held
    #[oai(path = "/api/v1/licenses/acquire", method = "post", operation_id = "acquire")]
    pub(super) async fn acquire(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        raw: &poem::Request,
        /// The same on every retry of one acquire: it never takes a second seat
        #[oai(name = "Idempotency-Key")]
        idempotency_key: poem_openapi::param::Header<Option<String>>,
        body: Body<AcquireBody>,
    ) -> Result<Json<Acquired>, Problem> {
        // The parameter is for the document: it does not tell a key that is no text from none.
        let _ = idempotency_key;
        let keys: Vec<_> = raw.headers().get_all("idempotency-key").into_iter().cloned().collect();
        acquire::acquire(&self.0, &credentials, &request_id.0.0, &keys, &body).await.map(Json)
    }

    /// Keep the seat
    #[oai(path = "/api/v1/licenses/heartbeat", method = "post", operation_id = "heartbeat")]
    pub(super) async fn heartbeat(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        body: Body<SessionBody>,
    ) -> Result<Json<Alive>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(body.peek("jwt_token"))).await?;
        let request = request(&request_id.0.0);
        let (session_id, place) = within(&request, find(app, &caller, &body)).await?;
        match app.pools.heartbeat(place.license_id, session_id, caller.user_id, &request).await? {
            Answer::Alive { deadline } => Ok(Json(Alive {
                status: "ok".to_owned(),
                next_heartbeat_at: app.next_heartbeat().to_string(),
                expires_at: deadline.to_string(),
            })),
            Answer::NotAccepted(standing) => Err(Problem::NotAccepted(standing)),
            Answer::NotHeld { end: Some(end) } => Err(Problem::SessionEnded(end)),
            _ => Err(Problem::SessionNotFound),
        }
    }

    /// Give the seat back
    #[oai(path = "/api/v1/licenses/release", method = "post", operation_id = "release")]
    pub(super) async fn release(
        &self,
        credentials: Credentials,
        request_id: poem::web::Data<&RequestId>,
        body: Body<SessionBody>,
    ) -> Result<Json<Released>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(body.peek("jwt_token"))).await?;
        let request = request(&request_id.0.0);
        let (session_id, place) = within(&request, find(app, &caller, &body)).await?;
        match app.pools.release(place.license_id, session_id, caller.user_id, &request).await? {
            Answer::Released | Answer::NotHeld { end: Some(_) } => {
                app.forget_session(session_id).await;
                Ok(Json(Released { status: "released".to_owned() }))
            }
            _ => Err(Problem::SessionNotFound),
        }
    }
}

/// The caller's own tenant, counted against its limits.
async fn tenant_of(app: &App, caller: &Caller) -> Result<TenantId, Problem> {
    let tenant_id = app.authenticator.tenant_of(caller).await?;
    tracing::Span::current().record("tenant_id", tracing::field::display(tenant_id));
    app.limits.check(tenant_id, &caller.user_id)?;
    Ok(tenant_id)
}

/// The caller's own session that a body names; anybody else's does not exist for it.
async fn find(
    app: &App,
    caller: &Caller,
    body: &Body<SessionBody>,
) -> Result<(SessionId, SessionPlace), Problem> {
    let tenant_id = tenant_of(app, caller).await?;
    let session_id = body.parse()?.session_id.parse().map_err(Problem::value("session_id"))?;
    let place = app.place_of(session_id).await?.ok_or(Problem::SessionNotFound)?;
    if place.tenant_id == tenant_id && place.user_id == caller.user_id {
        Ok((session_id, place))
    } else {
        Err(Problem::SessionNotFound)
    }
}

/// Waits for what a decision needs to know, as long as the decision itself may take.
fn within<T>(
    request: &Request,
    work: impl Future<Output = Result<T, Problem>>,
) -> impl Future<Output = Result<T, Problem>> {
    let deadline = tokio::time::Instant::from_std(request.deadline);
    // Not an `async fn`: that would keep room for the work twice, as its argument and while it waits.
    tokio::time::timeout_at(deadline, work)
        .map(|done| done.unwrap_or(Err(Problem::Unavailable { why: "No answer in time. Try again." })))
}

fn request(request_id: &str) -> Request {
    Request { request_id: Some(request_id.to_owned()), deadline: Instant::now() + DECISION_DEADLINE }
}

/// A Unix time in seconds as the API writes times.
fn seconds(at: i64) -> String {
    Time::from_millis(at.saturating_mul(1_000)).map(|time| time.to_string()).unwrap_or_default()
}

/// An acquire repeated with the key of a session that has ended.
fn ended(end: Option<SessionEnd>) -> Problem {
    end.map_or(Problem::SessionNotFound, Problem::SessionEnded)
}
