//! What the log adds to a fact.

use serde::Serialize;
use uuid::Uuid;

use crate::{Cursor, Event, HardwareId, LicenseId, SessionId, TenantId, Time, UserId};

/// Whom a fact is about, as far as it is about somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The session.
    pub session_id: Option<SessionId>,
    /// Its user, or the user added, changed, removed.
    pub user_id: Option<UserId>,
    /// Its machine.
    pub hardware_id: Option<HardwareId>,
}

impl Subject {
    /// A holder of a seat.
    #[must_use]
    pub fn holder(session_id: SessionId, user_id: UserId, hardware_id: HardwareId) -> Self {
        Self { session_id: Some(session_id), user_id: Some(user_id), hardware_id: Some(hardware_id) }
    }

    /// A user of a tenant.
    #[must_use]
    pub fn user(user_id: UserId) -> Self {
        Self { user_id: Some(user_id), ..Self::default() }
    }
}

/// A fact as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Minted by the writer, UUIDv7.
    pub event_id: Uuid,
    /// Where readers find it, and go on from.
    pub cursor: Cursor,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The stream: a license's pool, or the tenant itself.
    pub stream_id: Uuid,
    /// In its stream, from 1; `None` for observations.
    pub version: Option<i64>,
    /// Whom it is about.
    pub subject: Subject,
    /// Postgres's clock.
    pub occurred_at: Time,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// The fact.
    pub event: Event,
}

impl Recorded {
    /// The license, if the fact is about one.
    #[must_use]
    pub fn license_id(&self) -> Option<LicenseId> {
        (self.stream_id != self.tenant_id.0).then_some(LicenseId(self.stream_id))
    }
}
