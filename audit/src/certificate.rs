//! The concurrency certificate: a signed document that states, for a tenant and a time range, the limits in force and
//! the most sessions that were held at once; provable from the exported log without the server.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{EventLog, PoolAt, Position, TenantId, Time};
use merkle::{Digest, Frontier};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::canonical::{canonical, leaf_of};
use crate::checkpoint::{NotarySigner, TenantCheckpoint};
use crate::keys::PublicKeys;
use crate::page::page;
use crate::personal::Salts;
use crate::read::tenant_checkpoint;
use crate::stored::{COLUMNS, StoredEvent};
use crate::verify::{EventLines, LeafLines};
use crate::{AuditError, Hex};

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

/// Folds a tenant's events, in the order of the log, into what a certificate states.
struct Fold {
    from: Time,
    to: Time,
    pools: BTreeMap<Uuid, Pool>,
}

struct Pool {
    product: String,
    seats_total: u64,
    active: bool,
    held: HashSet<Uuid>,
    shown: LicenseUse,
}

impl Fold {
    fn new(from: Time, to: Time) -> Self {
        Self { from, to, pools: BTreeMap::new() }
    }

    /// A pool as it was when the range began.
    fn begin(&mut self, was: &PoolAt) {
        let terms = &was.license.terms;
        let mut pool = Pool::new(
            was.license_id.0,
            terms.product.as_str(),
            u64::from(terms.seats_total.get()),
            terms.active,
        );
        pool.held.extend(was.sessions.iter().map(|session| session.session_id.0));
        pool.limit(self.from, true);
        pool.shown.peak = pool.held.len() as u64;
        pool.shown.peak_at = self.from.to_string();
        self.pools.insert(was.license_id.0, pool);
    }

    fn apply(&mut self, event: &StoredEvent) {
        let Some(license_id) = event.license_id else { return };
        let Ok(at) = Time::parse(&event.occurred_at) else { return };
        if at >= self.to {
            return;
        }
        let before = at <= self.from;
        let text = |name: &str| event.data.get(name).and_then(|value| value.as_str());
        let seats = event.data.get("seats_total").and_then(serde_json::Value::as_u64);
        let active = event.data.get("active").and_then(serde_json::Value::as_bool);
        if event.event_type == "license_issued" {
            let (seats_total, active) = (seats.unwrap_or_default(), active.unwrap_or_default());
            let mut pool = Pool::new(license_id, text("product").unwrap_or_default(), seats_total, active);
            pool.limit(self.from.max(at), before);
            pool.shown.peak_at = self.from.max(at).to_string();
            self.pools.insert(license_id, pool);
            return;
        }
        let Some(pool) = self.pools.get_mut(&license_id) else { return };
        match (event.event_type.as_str(), event.session_id) {
            ("license_updated", _) if seats.is_some() || active.is_some() => {
                pool.seats_total = seats.unwrap_or(pool.seats_total);
                pool.active = active.unwrap_or(pool.active);
                pool.limit(self.from.max(at), before);
            }
            ("seat_acquired", Some(session)) => {
                pool.held.insert(session);
                if at >= self.from {
                    pool.shown.acquired += 1;
                    pool.shown.over_limit += u64::from(pool.held.len() as u64 > pool.seats_total);
                }
            }
            ("seat_released" | "seat_expired" | "seat_revoked", Some(session)) => {
                pool.held.remove(&session);
            }
            ("seat_denied", _) if at >= self.from && text("reason") == Some("no_seats_available") => {
                pool.shown.denied += 1;
            }
            _ => {}
        }
        let held = pool.held.len() as u64;
        if before || held > pool.shown.peak {
            pool.shown.peak = held;
            pool.shown.peak_at = self.from.max(at).to_string();
        }
    }

    fn finish(self) -> Vec<LicenseUse> {
        self.pools.into_values().map(|pool| pool.shown).collect()
    }
}

impl Pool {
    fn new(license_id: Uuid, product: &str, seats_total: u64, active: bool) -> Self {
        let shown = LicenseUse {
            license_id,
            product: product.to_owned(),
            limits: Vec::new(),
            peak: 0,
            peak_at: String::new(),
            acquired: 0,
            denied: 0,
            over_limit: 0,
        };
        Self { product: product.to_owned(), seats_total, active, held: HashSet::new(), shown }
    }

    /// The limit as it is from now on; up to the range's beginning only the last one counts.
    fn limit(&mut self, since: Time, replaces: bool) {
        if replaces {
            self.shown.limits.clear();
        }
        self.shown.product.clone_from(&self.product);
        let since = since.to_string();
        self.shown.limits.push(Limit { since, seats_total: self.seats_total, active: self.active });
    }
}

/// What does not hold about a certificate; empty: it is proved by the export.
///
/// The export must begin with the first event, and reach at least to the size that the certificate names. With archived
/// heartbeats missing from it, `index` (a file of checkpoints) gives the leaves of what was archived.
///
/// # Errors
/// When a file cannot be read.
pub fn verify_certificate(
    certificate: &Path,
    export: &Path,
    index: Option<&Path>,
    keys: Option<&PublicKeys>,
) -> Result<Vec<String>, AuditError> {
    let text = std::fs::read_to_string(certificate).map_err(AuditError::file(certificate))?;
    let signed: SignedCertificate = serde_json::from_str(&text)
        .map_err(|error| AuditError::unreadable(format!("{}: {error}", certificate.display())))?;
    let own;
    let keys = match keys {
        Some(keys) => keys,
        None => {
            own = PublicKeys::parse(&signed.public_key)?;
            &own
        }
    };
    let stated = &signed.certificate;
    let mut wrong = Vec::new();
    if !keys.verify(&signed.kid, &stated.message()?, &signed.signature) {
        wrong.push("the certificate's signature does not verify".to_owned());
    }
    if !stated.log.hangs_together()? || stated.log.head.tenant_id != stated.tenant_id {
        wrong.push(
            "the tenant's head is not below the public checkpoint that the certificate names".to_owned(),
        );
    }
    if !stated.log.checkpoint.is_signed_by(keys)? {
        wrong.push("the signature of the checkpoint that the certificate names does not verify".to_owned());
    }
    let time = |text: &str| Time::parse(text).map_err(AuditError::unreadable);
    let range = (time(&stated.from)?, time(&stated.to)?);
    let (tree, licenses) = fold_export(export, index, range, stated.log.head.size)?;
    if tree.size() < stated.log.head.size {
        wrong.push(format!(
            "the export has {} sealed events, the certificate follows from {}",
            tree.size(),
            stated.log.head.size
        ));
    } else if Hex(tree.root()) != stated.log.head.root {
        wrong.push(
            "the events of the export are not those that were sealed (verify --export names the first)"
                .to_owned(),
        );
    }
    if licenses != stated.licenses {
        wrong.push(format!(
            "the events show {}, the certificate states {}",
            serde_json::json!(licenses),
            serde_json::json!(stated.licenses)
        ));
    }
    Ok(wrong)
}

/// The tree over the first `size` events of an export, and what all of its events show.
fn fold_export(
    export: &Path,
    index: Option<&Path>,
    (from, to): (Time, Time),
    size: u64,
) -> Result<(Frontier, Vec<LicenseUse>), AuditError> {
    let mut lines = EventLines::open(export)?;
    let mut leaves = index.map(LeafLines::open).transpose()?;
    let mut ahead = VecDeque::new();
    let (mut tree, mut fold) = (Frontier::default(), Fold::new(from, to));
    let hash = |event: StoredEvent| {
        let leaf = leaf_of(&event, &Salts::of(&event)?).map_err(AuditError::unreadable)?;
        Ok((event, leaf))
    };
    while let Some(page) = lines.next_events(hash)? {
        for (event, leaf) in page {
            // What was archived is not among the events: its leaves are in the index, and the root vouches for them.
            while event.index.is_some_and(|index| tree.size() < index.min(size)) {
                let Some(archived) = next_leaf(&mut leaves, &mut ahead)? else { break };
                tree.push(archived);
            }
            if tree.size() < size {
                next_leaf(&mut leaves, &mut ahead)?;
                tree.push(leaf);
            }
            fold.apply(&event);
        }
    }
    while tree.size() < size {
        let Some(archived) = next_leaf(&mut leaves, &mut ahead)? else { break };
        tree.push(archived);
    }
    Ok((tree, fold.finish()))
}

fn next_leaf(
    leaves: &mut Option<LeafLines>,
    ahead: &mut VecDeque<(Uuid, Digest)>,
) -> Result<Option<Digest>, AuditError> {
    let Some(leaves) = leaves else { return Ok(None) };
    if ahead.is_empty() {
        ahead.extend(leaves.next()?.unwrap_or_default());
    }
    Ok(ahead.pop_front().map(|(_, hash)| hash))
}
