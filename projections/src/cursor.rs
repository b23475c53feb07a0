//! An instant of the log: a time and, within its millisecond, the place in the log. Lists ordered by time page by it.

use events::{Cursor, CursorSeal, Position, Time};

use crate::query::QueryError;

/// Orders what happened within one millisecond as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant {
    pub at: Time,
    pub position: i64,
}

impl Instant {
    /// For clients: sealed as places are.
    pub(crate) fn cursor(self, seal: CursorSeal) -> Cursor {
        seal.seal(Position { xid: self.at.millis(), position: self.position })
    }

    /// Reads what [`Self::cursor`] wrote.
    pub(crate) fn open(seal: CursorSeal, text: &str) -> Result<Self, QueryError> {
        let place = seal.open(text).map_err(|_| QueryError::bad_cursor())?;
        // A calendar goes further than what can be stored.
        let at = Time::from_millis(place.xid).filter(|at| at.millis() < 253_402_300_800_000);
        Ok(Self { at: at.ok_or_else(QueryError::bad_cursor)?, position: place.position })
    }
}
