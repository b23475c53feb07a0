//! What a tenant's own decisions fold into.

use events::{Event, EventLog, LogError, Recorded, Snapshot, TenantId, TenantTerms, Time};
use serde::{Deserialize, Serialize};

/// The format of a tenant's snapshot; another one is ignored and the stream folded from its first event.
const SNAPSHOT_FORMAT: i16 = 1;

/// A snapshot is taken when so many decisions were folded since the last: every user is one.
const SNAPSHOT_EVERY: i64 = 500;

/// A tenant at one of its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TenantState {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Of the latest decision folded; users count too.
    pub version: i64,
    /// The version at which the terms last changed.
    pub terms_version: i64,
    /// The terms in force.
    pub terms: TenantTerms,
    /// When it was created.
    pub created_at: Time,
    /// When the terms last changed.
    pub updated_at: Time,
}

impl TenantState {
    /// A tenant after its first event.
    #[must_use]
    pub fn new(tenant_id: TenantId, terms: TenantTerms, at: Time) -> Self {
        Self { tenant_id, version: 1, terms_version: 1, terms, created_at: at, updated_at: at }
    }

    /// Folds one decision that occurred at `at`.
    pub fn apply(&mut self, event: &Event, at: Time) {
        self.version += 1;
        if let Event::TenantUpdated(change) = event {
            self.terms.change(change);
            self.terms_version = self.version;
            self.updated_at = at;
        }
    }
}

/// A tenant out of its snapshot and the decisions since.
///
/// # Errors
/// When the log cannot be read. `Ok(None)`: there is no such tenant.
pub(super) async fn load(log: &EventLog, tenant_id: TenantId) -> Result<Option<TenantState>, LogError> {
    let snapshot = log.snapshot(tenant_id.0).await?;
    let thawed = snapshot
        .filter(|snapshot| snapshot.format == SNAPSHOT_FORMAT)
        .and_then(|snapshot| serde_json::from_value::<TenantState>(snapshot.state).ok())
        .filter(|state| state.tenant_id == tenant_id);
    let mut state = thawed;
    let begun_at = state.as_ref().map_or(0, |state| state.version);
    loop {
        let version = state.as_ref().map_or(0, |state| state.version);
        let page = log.decisions_after(tenant_id.0, version).await?;
        if page.is_empty() {
            break;
        }
        for Recorded { event, occurred_at, .. } in page {
            match (&mut state, &event) {
                (None, Event::TenantCreated(terms)) => {
                    state = Some(TenantState::new(tenant_id, terms.clone(), occurred_at));
                }
                (Some(state), event) => state.apply(event, occurred_at),
                // A pool's stream is no tenant.
                (None, _) => return Ok(None),
            }
        }
    }
    if let Some(state) = &state
        && state.version - begun_at >= SNAPSHOT_EVERY
    {
        save(log, state).await?;
    }
    Ok(state)
}

async fn save(log: &EventLog, state: &TenantState) -> Result<(), LogError> {
    let frozen = serde_json::to_value(state).map_err(|error| LogError::Rejected(error.to_string()))?;
    let snapshot = Snapshot { version: state.version, format: SNAPSHOT_FORMAT, state: frozen };
    log.save_snapshot(state.tenant_id.0, &snapshot).await
}
