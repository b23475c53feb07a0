//! What a tenant's own decisions fold into.

use events::{Event, TenantId, TenantTerms, Time};

/// A tenant at one of its versions.
#[derive(Debug, Clone)]
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
