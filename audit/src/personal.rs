//! What of an event is personal, and how it enters the hash: as a commitment with a salt that is kept apart.
//!
//! Personal are the user, the machine, its name, the e-mail address, whoever acted (`by`), and an admin's own words
//! (`reason` of a revocation or of a retired key). Ids of tenants, licenses, sessions, events and requests are not:
//! they are minted, name nobody, and a request's id is the caller's own choice for one request.
//!
//! Each (tenant, subject) has one random salt of 32 bytes. A commitment is HMAC-SHA-256 with the salt as its key over
//! the field's name, a zero byte, and the value. To erase somebody, each personal field is replaced by
//! `erased:<commitment>` and the salt deleted: the leaf's bytes stay the same, and nobody can test a guess any more.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::AuditError;
use crate::stored::StoredEvent;

/// What stands in front of the commitment of a value that was erased.
pub const ERASED: &str = "erased:";

/// Length of a salt in bytes.
pub const SALT: usize = 32;

/// The salts of one tenant's subjects.
#[derive(Debug, Clone, Default)]
pub struct Salts(HashMap<String, hmac::Key>);

impl Salts {
    /// Adds a subject's salt.
    pub fn insert(&mut self, subject: &str, salt: &[u8]) {
        self.0.insert(subject.to_owned(), hmac::Key::new(hmac::HMAC_SHA256, salt));
    }

    /// Adds those of another event of the same tenant.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The salts that an exported event carries.
    ///
    /// # Errors
    /// When one is not base64url.
    pub fn of(event: &StoredEvent) -> Result<Self, AuditError> {
        let mut salts = Self::default();
        for (subject, salt) in &event.salts {
            let salt = URL_SAFE_NO_PAD.decode(salt);
            salts.insert(subject, &salt.map_err(|_| AuditError::unreadable("a salt is not base64url"))?);
        }
        Ok(salts)
    }

    /// What stands for a value in the hashed bytes; the subject is named if it has no salt.
    pub(crate) fn commit<'a>(
        &self,
        subject: &str,
        field: &str,
        value: &'a str,
    ) -> Result<Cow<'a, str>, MissingSalt> {
        if let Some(commitment) = erased(value) {
            return Ok(Cow::Borrowed(commitment));
        }
        let key = self.0.get(subject).ok_or_else(|| MissingSalt(subject.to_owned()))?;
        let mut context = hmac::Context::with_key(key);
        context.update(field.as_bytes());
        context.update(&[0]);
        context.update(value.as_bytes());
        Ok(Cow::Owned(URL_SAFE_NO_PAD.encode(context.sign())))
    }
}

/// A subject without a salt: its events cannot be recomputed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the salt of subject {0:?} is missing")]
pub struct MissingSalt(pub String);

/// The commitment that an erased value left.
pub(crate) fn erased(value: &str) -> Option<&str> {
    value.strip_prefix(ERASED).filter(|rest| rest.len() == 43)
}

/// The fields of `data` that are personal.
pub(crate) fn personal_data(event: &StoredEvent) -> impl Iterator<Item = (&'static str, &str)> {
    let words = matches!(event.event_type.as_str(), "seat_revoked" | "signing_key_retired");
    let fields = ["email", "machine_name", "by"].into_iter().chain(words.then_some("reason"));
    fields.filter_map(|field| Some((field, event.data.get(field)?.as_str()?)))
}

/// Whose salt covers a field: `by` is the actor's own; the rest the event's user's, or else the actor's.
pub(crate) fn subject_of<'a>(event: &'a StoredEvent, field: &str) -> &'a str {
    let by = event.data.get("by").and_then(Value::as_str);
    match (field, event.user_id.as_deref()) {
        ("by", _) | (_, None) => by.unwrap_or_default(),
        (_, Some(user)) => user,
    }
}

/// The subjects whose salts an event's hash needs.
pub(crate) fn subjects(event: &StoredEvent) -> impl Iterator<Item = &str> {
    let own = [("user_id", event.user_id.as_deref()), ("hardware_id", event.hardware_id.as_deref())];
    let own = own.into_iter().filter_map(|(field, value)| Some((field, value?)));
    own.chain(personal_data(event))
        .filter(|(_, value)| erased(value).is_none())
        .map(|(field, _)| subject_of(event, field))
}

/// A salt in JSON.
pub(crate) fn salt_text(salt: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(salt)
}
