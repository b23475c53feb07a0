//! Where a reader of the log stands.
//!
//! A position from a sequence becomes visible out of commit order, so readers page by (transaction, position) and
//! stop below the oldest running transaction. A transaction id means nothing in another cluster: a cursor begins with
//! an epoch, which a restore moves on.

use std::fmt;
use std::str::FromStr;

use crate::InvalidValue;

/// A place in the global order of the log. `xid` is Postgres's `xid8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The transaction that wrote the event.
    pub xid: i64,
    /// The event within all that were numbered.
    pub position: i64,
}

/// A [`Position`] for clients: opaque text, `<epoch>-<xid>-<position>` in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Moved on by a restore into another cluster.
    pub epoch: i32,
    /// The place.
    pub position: Position,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.epoch, self.position.xid, self.position.position)
    }
}

impl FromStr for Cursor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidValue("is not a cursor that this service handed out".to_owned());
        let number = |part: Option<&str>| -> Result<i64, InvalidValue> {
            let part = part.filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(bad)?;
            i64::from_str_radix(part, 16).map_err(|_| bad())
        };
        let mut parts = text.split('-');
        let epoch = i32::try_from(number(parts.next())?).map_err(|_| bad())?;
        let position = Position { xid: number(parts.next())?, position: number(parts.next())? };
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { epoch, position }) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Position};

    #[test]
    fn reads_what_it_wrote_and_refuses_the_rest() {
        let cursor = Cursor { epoch: 1, position: Position { xid: 745, position: 99 } };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "1", "1-2", "1-2-3-4", "x-y-z", "-1-2-3", "1-+2-3", "1-fffffffffffffffff-3"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
