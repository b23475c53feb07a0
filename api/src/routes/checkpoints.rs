//! Evidence: checkpoints that anybody may keep, a tenant's own, the proof of an event, certificates.

use std::time::Duration;

use audit::AuditError;
use events::{TenantId, Time};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::keys::JwkSet;
use super::shared::page_limit;
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::problem::Problem;
use crate::signing::PublicKey;

/// Who may read a tenant's evidence.
const READERS: [Role; 2] = [Role::TenantAdmin, Role::Auditor];

/// How long a certificate waits for the seal that it rests on: a new tenant's first one is a few seconds away. Shorter
/// than a request may take (`edge.rs`), so that the answer says what is missing.
const SEAL: Duration = Duration::from_secs(4);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(250);

/// The operations.
pub struct Checkpoints(pub App);

/// A page of checkpoints.
#[derive(Object)]
struct CheckpointPage {
    /// Public: `{number, previous, root, sealed_at, kid, signature}`; a tenant's own: `{tenant_id, size, root, previous, number, sealed_at, blinding, path, checkpoint}`
    items: Vec<Any<Value>>,
    /// Where the next page begins; null: there is nothing more now
    #[oai(nullable)]
    next: Option<String>,
}

#[OpenApi]
impl Checkpoints {
    /// Signed public checkpoints of the log, oldest first: keep a copy
    #[oai(path = "/api/v1/checkpoints", method = "get", operation_id = "list_checkpoints")]
    async fn list(
        &self,
        /// Where the page begins: `next` of the page before, which is the number of its last checkpoint
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Json<CheckpointPage>, Problem> {
        let (after, limit) = (number_after(after.0.as_deref())?, page_limit(limit.0.as_deref())?);
        let found = audit::list_checkpoints(self.0.log(), after, limit as u32 + 1).await.map_err(problem)?;
        Ok(Json(page(&found, limit, |one| one.number)))
    }

    /// Every key that ever signed a checkpoint, also those that were retired since
    ///
    /// A retired key verifies what it signed before; whether a checkpoint is from before, the chain says.
    #[oai(path = "/api/v1/checkpoints/keys", method = "get", operation_id = "checkpoint_keys")]
    async fn keys(&self) -> Result<Json<JwkSet>, Problem> {
        let known = audit::checkpoint_keys(self.0.log()).await.map_err(problem)?;
        let jwk = |(kid, pem): &(String, String)| {
            PublicKey::from_pem(pem).map(|key| Any(key.jwk())).map_err(|error| {
                tracing::error!(%kid, %error, "a stored key of checkpoints cannot be read");
                Problem::Internal
            })
        };
        Ok(Json(JwkSet { keys: known.iter().map(jwk).collect::<Result<_, _>>()? }))
    }

    /// A tenant's own checkpoints, each with the path to the public one that covers it
    #[oai(
        path = "/api/v1/tenants/:tenant_id/checkpoints",
        method = "get",
        operation_id = "list_tenant_checkpoints"
    )]
    async fn list_own(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        /// Where the page begins: `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
    ) -> Result<Json<CheckpointPage>, Problem> {
        let tenant_id = self.auditor(&credentials, &tenant_id).await?;
        let (after, limit) = (number_after(after.0.as_deref())?, page_limit(limit.0.as_deref())?);
        let found = audit::list_tenant_checkpoints(self.0.log(), tenant_id, after, limit as u32 + 1).await;
        Ok(Json(page(&found.map_err(problem)?, limit, |own| own.head.number)))
    }

    /// The proof that an event is in the sealed log
    #[oai(
        path = "/api/v1/tenants/:tenant_id/events/:event_id/proof",
        method = "get",
        operation_id = "prove_event"
    )]
    async fn prove(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        event_id: Path<String>,
    ) -> Result<Json<Any<Value>>, Problem> {
        let authenticator = &self.0.authenticator;
        let caller = authenticator.verify(credentials.token(None)).await?;
        let tenant_id = authenticator.of_tenant(&caller, &tenant_id).await?;
        let event_id: Uuid = event_id.0.parse().map_err(|_| Problem::NotFound)?;
        let proof = audit::event_proof(self.0.log(), tenant_id, event_id).await.map_err(problem)?;
        let proof = proof.ok_or(Problem::NotFound)?;
        authenticator.authorize(&caller, tenant_id, &READERS).await?;
        Ok(shown(&proof))
    }

    /// A signed certificate of the limits in force and the most seats in use at once
    #[oai(path = "/api/v1/tenants/:tenant_id/certificate", method = "get", operation_id = "certify")]
    async fn certify(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        /// Beginning of the range, RFC 3339
        from: Query<Option<String>>,
        /// End of the range, not in it, RFC 3339
        to: Query<Option<String>>,
    ) -> Result<Json<Any<Value>>, Problem> {
        let tenant_id = self.auditor(&credentials, &tenant_id).await?;
        let time = |name: &str, text: Option<String>| {
            let text = text.ok_or_else(|| Problem::field(name, "is required"))?;
            Time::parse(&text).map_err(Problem::value(name))
        };
        let (from, to) = (time("from", from.0)?, time("to", to.0)?);
        if from >= to {
            return Err(Problem::field("from", "must be before to"));
        }
        if to > self.0.now() {
            return Err(Problem::field("to", "must not be in the future"));
        }
        let until = Instant::now() + SEAL;
        loop {
            match audit::certificate(self.0.log(), &self.0.ring, tenant_id, from, to).await {
                Err(AuditError::NotSealed(_)) if Instant::now() < until => tokio::time::sleep(LOOK).await,
                signed => return signed.map(|signed| shown(&signed)).map_err(problem),
            }
        }
    }
}

impl Checkpoints {
    async fn auditor(&self, credentials: &Credentials, tenant_id: &str) -> Result<TenantId, Problem> {
        let authenticator = &self.0.authenticator;
        let caller = authenticator.verify(credentials.token(None)).await?;
        authenticator.on_tenant(&caller, tenant_id, &READERS).await
    }
}

/// A checkpoint's number, as `next` wrote it.
fn number_after(text: Option<&str>) -> Result<u64, Problem> {
    let bad = || Problem::field("after", "is not a cursor that this service handed out");
    match text {
        None => Ok(0),
        Some(text) if text.len() <= 18 && text.bytes().all(|digit| digit.is_ascii_digit()) => {
            text.parse().map_err(|_| bad())
        }
        Some(_) => Err(bad()),
    }
}

fn page<T: serde::Serialize>(found: &[T], limit: usize, number: impl Fn(&T) -> u64) -> CheckpointPage {
    let shown_now = &found[..found.len().min(limit)];
    let next = if found.len() > limit { shown_now.last().map(|last| number(last).to_string()) } else { None };
    let items = shown_now.iter().map(|one| Any(serde_json::to_value(one).unwrap_or_default())).collect();
    CheckpointPage { items, next }
}

fn shown(value: &impl serde::Serialize) -> Json<Any<Value>> {
    Json(Any(serde_json::to_value(value).unwrap_or_default()))
}

fn problem(error: AuditError) -> Problem {
    match error {
        AuditError::Log(error) => error.into(),
        AuditError::NotSealed(_) => Problem::Unavailable {
            why: "The log is not sealed up to that time yet. Try again in half a minute.",
        },
        AuditError::Signer(why) => {
            tracing::warn!(%why, "a certificate was not signed");
            Problem::Unavailable { why: "The signer does not answer. Try again." }
        }
        error => {
            tracing::error!(%error, "evidence cannot be read: run `coditect-license verify`");
            Problem::Internal
        }
    }
}
