//! The bytes of an event that a leaf hashes: JSON by RFC 8785, personal fields as commitments.
//!
//! ```text
//! {"class":…,"data":{…},"event_id":…,"format":1,"hardware_id":…,"leaf":1,"license_id":…,"occurred_at":…,
//!  "request_id":…,"session_id":…,"tenant_id":…,"type":…,"user_id":…,"version":…}
//! ```
//!
//! Every member is always there, `null` where the event has none. The order of the log is not in the bytes: it is the
//! order of the leaves.

use std::borrow::Cow;

use merkle::{Digest, leaf_hash};
use serde_json::Value;

use crate::AuditError;
use crate::personal::{MissingSalt, Salts, personal_data, subject_of};
use crate::stored::StoredEvent;

/// The hash of an event's leaf.
///
/// # Errors
/// When a personal field has no salt.
pub fn leaf_of(event: &StoredEvent, salts: &Salts) -> Result<Digest, MissingSalt> {
    Ok(leaf_hash(&canonical_bytes(event, salts)?))
}

/// The bytes that the leaf of an event hashes.
///
/// # Errors
/// When a personal field has no salt.
pub fn canonical_bytes(event: &StoredEvent, salts: &Salts) -> Result<Vec<u8>, MissingSalt> {
    let mut bytes = Vec::with_capacity(768);
    member(&mut bytes, "{\"class\":", &event.class);
    bytes.extend_from_slice(b",\"data\":");
    canonical_data(&mut bytes, event, salts)?;
    member(&mut bytes, ",\"event_id\":", &event.event_id);
    member(&mut bytes, ",\"format\":", &event.format);
    member(
        &mut bytes,
        ",\"hardware_id\":",
        &commit(event, salts, "hardware_id", event.hardware_id.as_deref())?,
    );
    member(&mut bytes, ",\"leaf\":1,\"license_id\":", &event.license_id);
    member(&mut bytes, ",\"occurred_at\":", &event.occurred_at);
    member(&mut bytes, ",\"request_id\":", &event.request_id);
    member(&mut bytes, ",\"session_id\":", &event.session_id);
    member(&mut bytes, ",\"tenant_id\":", &event.tenant_id);
    member(&mut bytes, ",\"type\":", &event.event_type);
    member(&mut bytes, ",\"user_id\":", &commit(event, salts, "user_id", event.user_id.as_deref())?);
    member(&mut bytes, ",\"version\":", &event.version);
    bytes.push(b'}');
    Ok(bytes)
}

fn commit<'a>(
    event: &StoredEvent,
    salts: &Salts,
    field: &str,
    value: Option<&'a str>,
) -> Result<Option<Cow<'a, str>>, MissingSalt> {
    value.map(|value| salts.commit(subject_of(event, field), field, value)).transpose()
}

/// Strings, integers, ids and null: serde_json writes them as RFC 8785 does. Writing to memory does not fail.
fn member(bytes: &mut Vec<u8>, before: &str, value: &impl serde::Serialize) {
    bytes.extend_from_slice(before.as_bytes());
    let _ = serde_json::to_writer(bytes, value);
}

fn canonical_data(bytes: &mut Vec<u8>, event: &StoredEvent, salts: &Salts) -> Result<(), MissingSalt> {
    let mut personal = personal_data(event).peekable();
    if personal.peek().is_none() {
        write(bytes, &event.data);
        return Ok(());
    }
    let mut data = event.data.clone();
    for (field, value) in personal {
        let commitment = salts.commit(subject_of(event, field), field, value)?.into_owned();
        if let Some(member) = data.get_mut(field) {
            *member = Value::String(commitment);
        }
    }
    write(bytes, &data);
    Ok(())
}

/// Any value as RFC 8785 writes it: no white space, members sorted, one way to write each string. Numbers must be
/// integers, as all of ours are; what has a fraction stays as serde_json writes it.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn canonical(value: &impl serde::Serialize) -> Result<Vec<u8>, AuditError> {
    let value = serde_json::to_value(value).map_err(AuditError::unreadable)?;
    let mut bytes = Vec::new();
    write(&mut bytes, &value);
    Ok(bytes)
}

fn write(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            // RFC 8785 sorts by UTF-16 code units, which differs from the order of bytes beyond U+FFFF.
            sorted.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            bytes.push(b'{');
            for (n, (name, value)) in sorted.into_iter().enumerate() {
                member(bytes, if n > 0 { "," } else { "" }, name);
                bytes.push(b':');
                write(bytes, value);
            }
            bytes.push(b'}');
        }
        Value::Array(items) => {
            bytes.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    bytes.push(b',');
                }
                write(bytes, item);
            }
            bytes.push(b']');
        }
        // Strings are escaped as RFC 8785 wants: only quote, backslash and control characters, in their short forms.
        plain => member(bytes, "", plain),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]
mod tests {
    use serde_json::{Value, json};

    use super::{canonical, canonical_bytes};
    use crate::personal::{ERASED, Salts};
    use crate::stored::StoredEvent;

    /// The strings and the sorting example of RFC 8785 (3.2.2 and 3.2.3), without its fractions.
    #[test]
    fn writes_json_as_the_rfc_does() {
        let text = r#"{"numbers":[333, 4, 1],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let written = String::from_utf8(canonical(&value).unwrap()).unwrap();
        assert_eq!(
            written,
            "{\"literals\":[null,true,false],\"numbers\":[333,4,1],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let value =
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let written = String::from_utf8(canonical(&value).unwrap()).unwrap();
        let order: Vec<char> = written.chars().filter(|one| ('1'..='7').contains(one)).collect();
        // The name "1" comes with its value 4.
        assert_eq!(order.into_iter().collect::<String>(), "2146715 3".replace(' ', ""));
    }

    fn event(user: &str, data: Value) -> StoredEvent {
        serde_json::from_value(json!({
            "event_id": "01930000-0000-7000-8000-000000000001", "cursor": "1-2-3",
            "tenant_id": "01930000-0000-7000-8000-000000000002", "license_id": null, "version": 3,
            "class": "decision", "type": "user_added", "format": 1, "session_id": null, "user_id": user,
            "hardware_id": null, "occurred_at": "2026-01-02T03:04:05.678Z", "request_id": null, "data": data,
        }))
        .unwrap()
    }

    #[test]
    fn an_erased_field_leaves_the_bytes_as_they_were() {
        let mut salts = Salts::default();
        salts.insert("ada", &[7; 32]);
        let full = event("ada", json!({"email": "ada@acme.example", "roles": [], "reason": "admin"}));
        let bytes = canonical_bytes(&full, &salts).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(!text.contains("ada") && text.contains("\"reason\":\"admin\""), "{text}");
        let shown: Value = serde_json::from_str(&text).unwrap();
        let erase = |value: &Value| format!("{ERASED}{}", value.as_str().unwrap());
        let data = json!({"email": erase(&shown["data"]["email"]), "roles": [], "reason": "admin"});
        let erased = event(&erase(&shown["user_id"]), data);
        assert_eq!(canonical_bytes(&erased, &Salts::default()).unwrap(), bytes);
        assert!(canonical_bytes(&full, &Salts::default()).is_err());
        let another = event("ada", json!({"email": "bob@acme.example", "roles": [], "reason": "admin"}));
        assert_ne!(canonical_bytes(&another, &salts).unwrap(), bytes);
    }
}
