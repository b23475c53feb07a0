//! Administrative decisions: tenants, licenses issued, users added. Rare, so no actor: load, decide, append with the
//! expected version, and on a conflict once more. First acquires of many users at once are joined (`members.rs`).

mod members;
mod state;
mod users;

use std::time::Duration;

use events::{
    Event, EventLog, LicenseChange, LicenseId, LicenseTerms, LogError, NameClaim, NewEvent, Product, Refused,
    StreamWrite, Subject, TenantChange, TenantId, TenantTerms,
};
use uuid::Uuid;

use crate::pool::change::product_scope;
use crate::pool::load::load;
use crate::pool::state::PoolState;
use crate::writer::{Job, Writer};

pub use members::{Members, NewUser};
pub use state::TenantState;
pub use users::AddUser;

/// How often an administrative act is decided again before it is given up.
const MAX_ROUNDS: u32 = 30;

/// Pause after a conflict: some other act on the same stream goes first.
const PAUSE: Duration = Duration::from_millis(5);

/// Why an administrative act brings nothing about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRefusal {
    /// Somebody holds the name; the scope says which: `subdomain`, `identity_tenant`, `product/<tenant>`.
    NameTaken {
        /// What kind of name.
        scope: String,
        /// The name.
        name: String,
    },
    /// There is no such tenant.
    NoSuchTenant,
    /// The tenant has no such user.
    NoSuchUser,
    /// The tenant has this user already.
    UserExists,
    /// It has changed since the version that the admin saw.
    Stale,
}

/// A tenant and its first license.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// The tenant's terms; `max_seats` are the license's seats.
    pub terms: TenantTerms,
    /// Claims of the license's tokens.
    pub features: Vec<String>,
    /// The product of the first license.
    pub product: Product,
}

/// Administrative acts. Cheap to clone.
#[derive(Clone)]
pub struct Tenants {
    log: EventLog,
    writer: Writer,
}

type Decided<T> = Result<Result<T, AdminRefusal>, LogError>;

impl Tenants {
    /// Acts through this writer.
    #[must_use]
    pub fn new(log: EventLog, writer: Writer) -> Self {
        Self { log, writer }
    }

    /// Makes a tenant and its first license, both or neither.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn create(&self, new: NewTenant, request_id: Option<String>) -> Decided<(TenantId, LicenseId)> {
        let (tenant_id, license_id) = (TenantId::mint(), LicenseId::mint());
        let hold = |scope: &str, name: &str| NameClaim {
            stream_id: tenant_id.0,
            scope: scope.to_owned(),
            name: name.to_owned(),
            hold: true,
        };
        let mut names = vec![hold("subdomain", &new.terms.subdomain)];
        names.extend(new.terms.identity_tenant.as_deref().map(|name| hold("identity_tenant", name)));
        let license = LicenseTerms {
            product: new.product.clone(),
            plan: new.terms.plan.clone(),
            seats_total: new.terms.max_seats,
            active: true,
            features: new.features,
            valid_from: None,
            valid_until: None,
            offline_grace_seconds: None,
        };
        names.push(product_claim(tenant_id, license_id, &new.product));
        let tenant =
            write(tenant_id.0, tenant_id, None, 0, Event::TenantCreated(new.terms), request_id.clone());
        let pool =
            write(license_id.0, tenant_id, Some(new.product), 0, Event::LicenseIssued(license), request_id);
        let job = Job { whole: true, streams: vec![tenant, pool], names, heartbeats: Vec::new() };
        let appended = self.writer.append(job).await?;
        Ok(match name_taken(&appended.refused) {
            Some(refusal) => Err(refusal),
            None => Ok((tenant_id, license_id)),
        })
    }

    /// Issues one more license.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn issue_license(
        &self,
        tenant_id: TenantId,
        terms: LicenseTerms,
        request_id: Option<String>,
    ) -> Decided<LicenseId> {
        if self.log.stream_head(tenant_id.0).await?.is_none() {
            return Ok(Err(AdminRefusal::NoSuchTenant));
        }
        let license_id = LicenseId::mint();
        let product = terms.product.clone();
        let names =
            if terms.active { vec![product_claim(tenant_id, license_id, &product)] } else { Vec::new() };
        let pool = write(license_id.0, tenant_id, Some(product), 0, Event::LicenseIssued(terms), request_id);
        let job = Job { whole: true, streams: vec![pool], names, heartbeats: Vec::new() };
        let appended = self.writer.append(job).await?;
        Ok(name_taken(&appended.refused).map_or(Ok(license_id), Err))
    }

    /// Changes a tenant's terms; a switch of `active` holds on every pool of the tenant once this has answered, and
    /// `max_seats` are those of its first license from then on. A change that changes nothing writes nothing.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub async fn change(
        &self,
        tenant_id: TenantId,
        change: TenantChange,
        if_version: Option<i64>,
        request_id: Option<String>,
    ) -> Decided<()> {
        for _ in 0..MAX_ROUNDS {
            let Some(state) = self.tenant(tenant_id).await? else {
                return Ok(Err(AdminRefusal::NoSuchTenant));
            };
            if if_version.is_some_and(|seen| seen != state.terms_version) {
                return Ok(Err(AdminRefusal::Stale));
            }
            let change = state.terms.difference(change.clone());
            if change == TenantChange::default() {
                return Ok(Ok(()));
            }
            let names = identity_claims(tenant_id, &state.terms, &change);
            let pool = self.first_pool(tenant_id, &change, request_id.clone()).await?;
            let event = Event::TenantUpdated(change);
            let stream = write(tenant_id.0, tenant_id, None, state.version, event, request_id.clone());
            let streams = std::iter::once(stream).chain(pool).collect();
            let job = Job { whole: true, streams, names, heartbeats: Vec::new() };
            let appended = self.writer.append(job).await?;
            if let Some(refusal) = name_taken(&appended.refused) {
                return Ok(Err(refusal));
            }
            if !appended.refused.iter().any(|one| matches!(one, Refused::Conflict { .. })) {
                return Ok(Ok(()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(LogError::Unavailable("the tenant changes too often".to_owned()))
    }

    /// What the first license's stream says of a change of `max_seats`.
    async fn first_pool(
        &self,
        tenant_id: TenantId,
        change: &TenantChange,
        request_id: Option<String>,
    ) -> Result<Option<StreamWrite>, LogError> {
        let Some(seats) = change.max_seats else { return Ok(None) };
        let Some(license_id) = self.log.licenses_of(tenant_id).await?.first().copied() else {
            return Ok(None);
        };
        let Some(head) = self.log.stream_head(license_id.0).await? else { return Ok(None) };
        let change = LicenseChange { seats_total: Some(seats), ..LicenseChange::default() };
        let event = Event::LicenseUpdated(change);
        Ok(Some(write(license_id.0, tenant_id, None, head.version, event, request_id)))
    }

    /// A tenant out of its stream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantState>, LogError> {
        state::load(&self.log, tenant_id).await
    }

    /// A license's pool out of its stream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn license(&self, license_id: LicenseId) -> Result<Option<PoolState>, LogError> {
        Ok(load(&self.log, &self.writer, license_id).await?.map(|loaded| loaded.state))
    }
}

/// One event of one stream.
fn write(
    stream_id: Uuid,
    tenant_id: TenantId,
    product: Option<Product>,
    expected: i64,
    event: Event,
    request_id: Option<String>,
) -> StreamWrite {
    let new = NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::default(),
        event,
        request_id,
        key: None,
        give_back: false,
    };
    StreamWrite { stream_id, tenant_id, product, expected, standing: None, events: vec![new] }
}

fn product_claim(tenant_id: TenantId, license_id: LicenseId, product: &Product) -> NameClaim {
    NameClaim {
        stream_id: license_id.0,
        scope: product_scope(tenant_id),
        name: product.as_str().to_owned(),
        hold: true,
    }
}

fn identity_claims(tenant_id: TenantId, terms: &TenantTerms, change: &TenantChange) -> Vec<NameClaim> {
    let claim = |name: &String, hold| NameClaim {
        stream_id: tenant_id.0,
        scope: "identity_tenant".to_owned(),
        name: name.clone(),
        hold,
    };
    match &change.identity_tenant {
        Some(new) if *new != terms.identity_tenant => {
            let old = terms.identity_tenant.iter().map(|name| claim(name, false));
            old.chain(new.iter().map(|name| claim(name, true))).collect()
        }
        _ => Vec::new(),
    }
}

fn name_taken(refused: &[Refused]) -> Option<AdminRefusal> {
    refused.iter().find_map(|one| match one {
        Refused::NameTaken { scope, name, .. } => {
            Some(AdminRefusal::NameTaken { scope: scope.clone(), name: name.clone() })
        }
        _ => None,
    })
}
