//! The audit trail in words: a sentence per event, who did what and when. Read from the log itself, so it needs no fold
//! and says nothing that the log does not.

use events::{AddReason, Event, EventFilter, LicenseTerms, Position, Recorded, TenantId, Time, UserId};
use uuid::Uuid;

use crate::query::{Page, QueryError, ReadModels, one_more};

/// An event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailEntry {
    /// The event.
    pub event_id: Uuid,
    /// Where it is in the log.
    pub cursor: String,
    /// When it occurred.
    pub occurred_at: Time,
    /// Its type.
    pub event_type: &'static str,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// What happened, a sentence.
    pub sentence: String,
}

impl ReadModels {
    /// A tenant's events in words, oldest first.
    ///
    /// # Errors
    /// A bad cursor or limit; the database.
    pub async fn audit_trail(
        &self,
        tenant_id: TenantId,
        filter: &EventFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<TrailEntry>, QueryError> {
        let after = self.log_place(after).await?;
        let rows = self.log.read_tenant(tenant_id, after, filter, one_more(limit)?).await?;
        Ok(Page::cut(rows.iter().map(TrailEntry::of).collect(), limit, |row: &TrailEntry| row.cursor.clone()))
    }

    async fn log_place(&self, after: Option<&str>) -> Result<Position, QueryError> {
        let Some(text) = after else { return Ok(Position::default()) };
        self.log.cursors().await?.open(text).map_err(|_| QueryError::bad_cursor())
    }
}

impl TrailEntry {
    /// An event in words.
    #[must_use]
    pub fn of(recorded: &Recorded) -> Self {
        Self {
            event_id: recorded.event_id,
            cursor: recorded.cursor.to_string(),
            occurred_at: recorded.occurred_at,
            event_type: recorded.event.name(),
            request_id: recorded.request_id.clone(),
            sentence: sentence(recorded),
        }
    }
}

/// Who did what. The time stands beside it.
fn sentence(recorded: &Recorded) -> String {
    let subject = &recorded.subject;
    let user = subject.user_id.as_ref().map_or("somebody", UserId::as_str);
    let machine = subject.hardware_id.as_ref().map_or("an unknown machine", events::HardwareId::as_str);
    let session = subject.session_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    match &recorded.event {
        Event::TenantCreated(terms) => {
            format!("The tenant {} ({}) was created on plan {}.", terms.name, terms.subdomain, terms.plan)
        }
        Event::TenantUpdated(change) => format!("The tenant was changed: {}.", changes(change)),
        Event::UserAdded { email, reason, .. } => {
            let email = email.as_deref().map(|email| format!(" ({email})")).unwrap_or_default();
            match reason {
                AddReason::Admin => format!("User {user}{email} was added by an admin."),
                AddReason::FirstAcquire => format!("User {user}{email} joined with its first acquire."),
            }
        }
        Event::UserUpdated(change) => format!("User {user} was changed: {}.", changes(change)),
        Event::UserRemoved {} => format!("User {user} was removed."),
        Event::LicenseIssued(terms) => issued(terms),
        Event::LicenseUpdated(change) => format!("The license was changed: {}.", changes(change)),
        Event::SeatAcquired { seats_used, seats_total, machine_name, .. } => {
            let name = machine_name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
            format!(
                "User {user} took a seat on machine {machine}{name}: session {session}, {seats_used} of {} seats in use.",
                seats_total.get()
            )
        }
        Event::SeatHeartbeat { deadline } => {
            format!("User {user} kept session {session} alive until {deadline}.")
        }
        Event::SeatReleased {} => format!("User {user} gave back the seat of session {session}."),
        Event::SeatExpired { deadline } => {
            format!("Session {session} of user {user} expired: no heartbeat came before {deadline}.")
        }
        Event::SeatDenied { reason, seats_used, seats_total } => format!(
            "User {user} was refused a seat on machine {machine}: {}, {seats_used} of {} seats in use.",
            reason.replace('_', " "),
            seats_total.get()
        ),
        Event::SeatRevoked { by, reason } => {
            format!("{} revoked session {session} of user {user}: {reason}.", by.0)
        }
        Event::SigningKeyCreated { kid, held_by, by } => {
            format!("{by} made the signing key {kid}, held by {held_by}.")
        }
        Event::SigningKeyPublished { kid, held_by, by } => {
            format!("{by} published the signing key {kid}, held by {held_by}.")
        }
        Event::SigningKeyActivated { kid, .. } => format!("A replica began to sign with the key {kid}."),
        Event::SigningKeyRetired { kid, emergency, reason, by } => {
            let why = if *emergency { ", believed compromised" } else { "" };
            format!("{by} retired the signing key {kid}{why}: {reason}.")
        }
    }
}

fn issued(terms: &LicenseTerms) -> String {
    format!(
        "A license of {} seats of {} was issued on plan {}.",
        terms.seats_total.get(),
        terms.product,
        terms.plan
    )
}

/// The fields that a change names, with their new values.
fn changes(change: &impl serde::Serialize) -> String {
    let fields = serde_json::to_value(change).unwrap_or_default();
    let fields = fields.as_object().into_iter().flatten();
    let words: Vec<_> = fields.map(|(name, value)| format!("{name} is now {value}")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
