//! An event as it is stored, untouched by the codec: whatever somebody put into a row must reach the hash.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use events::{CursorSeal, Position};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its id.
    pub event_id: Uuid,
    /// Its place in the order of the log. Not part of its hash: the order itself is what a tree seals.
    pub cursor: String,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// The license whose pool it concerns; `None`: the tenant itself.
    pub license_id: Option<Uuid>,
    /// In its stream; `None` for heartbeats and denials.
    pub version: Option<i64>,
    /// `decision`, `denial` or `heartbeat`.
    pub class: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Of `data`.
    pub format: i16,
    /// The session.
    pub session_id: Option<Uuid>,
    /// Its user. Personal.
    pub user_id: Option<String>,
    /// Its machine. Personal.
    pub hardware_id: Option<String>,
    /// RFC 3339, UTC: milliseconds, or microseconds where somebody stored them.
    pub occurred_at: String,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// The rest.
    pub data: Value,
    /// Its leaf's index in the tenant's tree: in exports and proofs, of sealed events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The salts of its personal fields by subject, base64url: in exports and proofs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub salts: BTreeMap<String, String>,
}

/// Stands for what somebody stored and no reader of ours takes, such as a time without end or a number without bound:
/// never what was sealed.
const UNREADABLE: &str = "unreadable";

/// The columns that [`StoredEvent::of_row`] reads, in its order.
pub(crate) const COLUMNS: &str = "event_id, xid::text::bigint, position, (select epoch from log_epoch), tenant_id, \
     stream_id, version, class, type, format, session_id, user_id, hardware_id, occurred_at, request_id, data, \
     (select cursor_key from log_epoch)";

impl StoredEvent {
    /// An event out of a row of [`COLUMNS`] for whoever is shown it: with its cursor.
    pub(crate) fn shown(row: &Row) -> (Self, Position) {
        let (event, position) = Self::of_row(row);
        (Self { cursor: cursor(row, position), ..event }, position)
    }

    /// An event out of a row of [`COLUMNS`], without the text of its cursor: to seal that costs more than all else here.
    pub(crate) fn of_row(row: &Row) -> (Self, Position) {
        let position = Position { xid: row.get(1), position: row.get(2) };
        let (tenant_id, stream_id): (Uuid, Uuid) = (row.get(4), row.get(5));
        let event = Self {
            event_id: row.get(0),
            cursor: String::new(),
            tenant_id,
            license_id: (stream_id != tenant_id).then_some(stream_id),
            version: row.get(6),
            class: row.get(7),
            event_type: row.get(8),
            format: row.get(9),
            session_id: row.get(10),
            user_id: row.get(11),
            hardware_id: row.get(12),
            occurred_at: row.try_get(13).map_or_else(|_| UNREADABLE.to_owned(), time),
            request_id: row.get(14),
            data: row.try_get(15).unwrap_or_else(|_| Value::String(UNREADABLE.to_owned())),
            index: None,
            salts: BTreeMap::new(),
        };
        (event, position)
    }

    /// The stream that it is in.
    #[must_use]
    pub fn stream_id(&self) -> Uuid {
        self.license_id.unwrap_or(self.tenant_id)
    }
}

/// Nothing where the row of `log_epoch` is no epoch and key.
fn cursor(row: &Row, place: Position) -> String {
    let key: Option<&[u8]> = row.get(16);
    let seal = CursorSeal::new(row.get::<_, Option<i32>>(3).unwrap_or(-1), key.unwrap_or_default());
    seal.map(|seal| seal.seal(place).to_string()).unwrap_or_default()
}

/// A stored time, exactly.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    let whole = at.timestamp_subsec_micros().is_multiple_of(1_000);
    at.to_rfc3339_opts(if whole { SecondsFormat::Millis } else { SecondsFormat::Micros }, true)
}
