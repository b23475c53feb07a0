//! The concurrency certificate: a signed document that states, for a tenant and a time range, the limits in force and
//! the most sessions that were held at once; provable from the exported log without the server.

mod check;
mod fold;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{EventLog, Position, TenantId, Time};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::AuditError;
use crate::canonical::canonical;
use crate::checkpoint::{NotarySigner, TenantCheckpoint};
use crate::page::page;
use crate::read::tenant_checkpoint;
use crate::stored::{COLUMNS, StoredEvent};

pub use check::verify_certificate;
use fold::Fold;

/// What stands in front of the signed bytes of a certificate: no token and no checkpoint begins so.
const CERTIFICATE: &[u8] = b"coditect-license certificate v1\n";

/// How long after the range the log must have been sealed: longer than any append may take.
const SETTLED_SECONDS: f64 = 10.0;

/// Events of a page.
const PAGE: i64 = 5_000;

/// A certificate with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificate {
    /// What is stated.
    pub certificate: Certificate,
    /// The key that signed.
    pub kid: String,
    /// That key, SubjectPublicKeyInfo, PEM: whoever verifies compares it with one from elsewhere.
    pub public_key: String,
    /// base64url, RSASSA-PKCS1-v1_5 with SHA-256, over [`Certificate::message`].
    pub signature: String,
}

/// What a certificate states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose.
    pub tenant_id: Uuid,
    /// The range's beginning, inclusive.
    pub from: String,
    /// The range's end, exclusive.
    pub to: String,
    /// When it was signed.
    pub issued_at: String,
    /// Each license that was in force at some time in the range.
    pub licenses: Vec<LicenseUse>,
    /// The sealed log that all of this follows from.
    pub log: TenantCheckpoint,
}

/// What one license's log shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseUse {
    /// The license.
    pub license_id: Uuid,
    /// What it is for.
    pub product: String,
    /// The limits in force: the one at the beginning, and each change.
    pub limits: Vec<Limit>,
    /// Most sessions held at once.
    pub peak: u64,
    /// When that was reached first.
    pub peak_at: String,
    /// Sessions that began in the range.
    pub acquired: u64,
    /// Acquires that were refused for want of a seat.
    pub denied: u64,
    /// Sessions that began although the limit then in force was exceeded by them.
    pub over_limit: u64,
}

/// A limit and since when it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Since when; the range's beginning for the first.
    pub since: String,
    /// Seats.
    pub seats_total: u64,
    /// Whether the license accepts at all.
    pub active: bool,
}

impl Certificate {
    /// The bytes that are signed: a line that names the purpose, and the canonical form.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn message(&self) -> Result<Vec<u8>, AuditError> {
        Ok([CERTIFICATE, &canonical(self)?].concat())
    }
}

/// States and signs what the sealed log shows for `[from, to)`.
///
/// # Errors
/// [`AuditError::NotSealed`] until everything before `to` is sealed for certain; else when log or signer fail.
pub async fn certificate(
    log: &EventLog,
    signer: &dyn NotarySigner,
    tenant_id: TenantId,
    from: Time,
    to: Time,
) -> Result<SignedCertificate, AuditError> {
    let sealed = head_after(log, tenant_id, to).await?;
    // What was before the range is not folded again: its pools are as they were a millisecond before.
    let mut fold = Fold::new(from, to);
    if let Some(before) = Time::from_millis(from.millis() - 1) {
        log.pools_at(tenant_id, before).await?.iter().for_each(|pool| fold.begin(pool));
    }
    // Looked for in the whole log: where a time is in it depends on a clock that never went back.
    let mut after = Position::default();
    let mut client = log.database().get().await?;
    let sql = format!(
        "select {COLUMNS} from events
         where tenant_id = $1 and class in ('decision', 'denial') and occurred_at >= $2 and occurred_at < $3
           and (xid, position) > ($4::bigint::text::xid8, $5) and xid < pg_snapshot_xmin(pg_current_snapshot())
         order by events.xid, events.position limit $6"
    );
    loop {
        let arguments: [&(dyn ToSql + Sync); 6] =
            [&tenant_id.0, &from.as_datetime(), &to.as_datetime(), &after.xid, &after.position, &PAGE];
        let rows = page(&mut client, &sql, &arguments).await?;
        if rows.is_empty() {
            break;
        }
        for (event, place) in rows.iter().map(StoredEvent::of_row) {
            fold.apply(&event);
            after = place;
        }
    }
    let now: chrono::DateTime<chrono::Utc> = client.query_one("select clock_timestamp()", &[]).await?.get(0);
    drop(client);
    let certificate = Certificate {
        tenant_id: tenant_id.0,
        from: from.to_string(),
        to: to.to_string(),
        issued_at: Time::new(now).to_string(),
        licenses: fold.finish(),
        log: sealed,
    };
    let key = signer.current().map_err(AuditError::Signer)?;
    let signature = signer.sign(&key.kid, &certificate.message()?).await.map_err(AuditError::Signer)?;
    Ok(SignedCertificate {
        certificate,
        kid: key.kid,
        public_key: key.public_key,
        signature: URL_SAFE_NO_PAD.encode(signature),
    })
}

/// The tenant's latest head, if everything before `to` is in it for certain: the log is read up to a while after `to`, and
/// no seat was decided on before `to` that came after the leaves under the head.
async fn head_after(log: &EventLog, tenant_id: TenantId, to: Time) -> Result<TenantCheckpoint, AuditError> {
    let client = log.database().get().await?;
    let covered = client
        .query_opt(
            "select n.read_at >= $2::timestamptz + make_interval(secs => $3) and not exists (
               select from events e where e.tenant_id = t.tenant_id and e.class in ('decision', 'denial') and e.occurred_at < $2
                 and (e.xid, e.position) > (l.xid, l.position))
             from trees t cross join notary n cross join lateral (
               select xid, position from leaves where tenant_id = t.tenant_id and first < t.sealed_size
               order by first desc limit 1) l
             where t.tenant_id = $1",
            &[&tenant_id.0, &to.as_datetime(), &SETTLED_SECONDS],
        )
        .await?;
    drop(client);
    let not_yet =
        || AuditError::NotSealed(format!("the log is not sealed up to {to} yet: try again in half a minute"));
    if !covered.is_some_and(|row| row.get(0)) {
        return Err(not_yet());
    }
    tenant_checkpoint(log, tenant_id, None).await?.ok_or_else(not_yet)
}
