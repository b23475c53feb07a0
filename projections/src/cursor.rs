//! An instant of the log: a time and, within its millisecond, the place in the log. Lists ordered by time page by it.

use std::fmt;

use events::Time;

use crate::query::QueryError;

/// Orders what happened within one millisecond as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant {
    pub at: Time,
    pub position: i64,
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.at.millis(), self.position)
    }
}

/// Reads what [`Instant`] writes.
pub(crate) fn parse_instant(text: &str) -> Result<Instant, QueryError> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
        i64::from_str_radix(part, 16).ok().filter(|_| digits)
    };
    let instant = text.split_once('-').and_then(|(millis, position)| {
        let at = Time::from_millis(number(millis)?)?;
        // A calendar goes further than what can be stored.
        (at.millis() < 253_402_300_800_000).then_some(Instant { at, position: number(position)? })
    });
    instant.ok_or_else(QueryError::bad_cursor)
}
