//! Event <-> what the log stores: a type, a format number, and JSON data.
//!
//! Every format that was ever written can be read: [`decode`] lifts old data to today's shape, one format at a time.

use serde_json::{Value, json};

use crate::Event;

/// The format in which every type is written today.
const FORMAT: i16 = 1;

/// Stored data that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer version of the service.
    #[error("event type {event_type} has format {format}, newer than this version reads")]
    NewerFormat {
        /// The event's type.
        event_type: String,
        /// The format found.
        format: i16,
    },
    /// Not the shape of its type and format.
    #[error("event type {event_type}: {source}")]
    Malformed {
        /// The event's type.
        event_type: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Type, format and data as the log stores them.
///
/// # Errors
/// Never for the events of this crate: each serialises to an object with a type and data.
pub fn encode(event: &Event) -> Result<(String, i16, Value), CodecError> {
    let malformed = |source| CodecError::Malformed { event_type: "of a new event".to_owned(), source };
    let mut tagged = serde_json::to_value(event).map_err(malformed)?;
    let event_type = tagged["type"].as_str().unwrap_or_default().to_owned();
    Ok((event_type, FORMAT, tagged["data"].take()))
}

/// Lifts the data of one type from one format to the next.
struct Upcast {
    event_type: &'static str,
    from: i16,
    lift: fn(Value) -> Value,
}

/// Every change of shape since the first format, none so far. Types without an entry keep their shape.
const UPCASTS: &[Upcast] = &[];

/// Reads an event of any format ever written.
///
/// # Errors
/// A format from the future, or data that is not of its type.
pub fn decode(event_type: &str, format: i16, data: Value) -> Result<Event, CodecError> {
    if format > FORMAT {
        return Err(CodecError::NewerFormat { event_type: event_type.to_owned(), format });
    }
    let data = upcast(UPCASTS, event_type, format, data);
    serde_json::from_value(json!({ "type": event_type, "data": data }))
        .map_err(|source| CodecError::Malformed { event_type: event_type.to_owned(), source })
}

fn upcast(upcasts: &[Upcast], event_type: &str, format: i16, data: Value) -> Value {
    let newest = upcasts.iter().map(|upcast| upcast.from + 1).max().unwrap_or(FORMAT);
    (format..newest).fold(data, |data, from| {
        match upcasts.iter().find(|upcast| upcast.event_type == event_type && upcast.from == from) {
            Some(upcast) => (upcast.lift)(data),
            None => data,
        }
    })
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test stops where something is wrong")]
mod tests {
    use serde_json::{Value, json};

    use super::{CodecError, Upcast, decode, upcast};

    #[test]
    fn lifts_format_by_format() {
        let upcasts = [
            Upcast { event_type: "seat_acquired", from: 2, lift: |old| json!({ "third": old["second"] }) },
            Upcast { event_type: "seat_acquired", from: 1, lift: |old| json!({ "second": old["first"] }) },
        ];
        assert_eq!(upcast(&upcasts, "seat_acquired", 1, json!({ "first": 7 })), json!({ "third": 7 }));
        assert_eq!(upcast(&upcasts, "seat_acquired", 2, json!({ "second": 7 })), json!({ "third": 7 }));
        assert_eq!(upcast(&upcasts, "seat_denied", 1, json!({ "first": 7 })), json!({ "first": 7 }));
    }

    #[test]
    fn names_what_it_cannot_read() {
        let newer = decode("seat_released", 99, json!({})).expect_err("a format from the future");
        assert!(matches!(newer, CodecError::NewerFormat { format: 99, .. }));
        assert!(decode("seat_stolen", 1, json!({})).is_err());
        let malformed = decode("seat_acquired", 1, Value::Null).expect_err("no data");
        assert!(malformed.to_string().contains("seat_acquired"));
    }
}
