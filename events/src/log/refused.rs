//! What `append` did not write, and why.

use serde::Deserialize;
use uuid::Uuid;

use crate::{SessionId, Standing, Time};

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Refused {
    /// Somebody was faster, or the standing is another: catch up, decide again.
    Conflict {
        /// The stream.
        stream: Uuid,
        /// Its version now.
        version: i64,
        /// Its standing now.
        standing: Standing,
    },
    /// A resend: written before.
    Already {
        /// The stream.
        stream: Uuid,
        /// When it was written.
        #[serde(deserialize_with = "time_of_postgres")]
        at: Time,
    },
    /// An expiry came too early.
    NotLapsed {
        /// The stream.
        stream: Uuid,
        /// The session that lives.
        session: SessionId,
        /// Not before this.
        #[serde(deserialize_with = "time_of_postgres")]
        until: Time,
    },
    /// The user was never added to the tenant.
    UserUnknown {
        /// The stream.
        stream: Uuid,
        /// The session that would have been.
        session: SessionId,
    },
    /// The user was removed from the tenant.
    UserRemoved {
        /// The stream.
        stream: Uuid,
        /// The session that would have been.
        session: SessionId,
    },
    /// Not given back: somebody was answered with the session since.
    Renewed {
        /// The stream.
        stream: Uuid,
        /// The session.
        session: SessionId,
    },
    /// The Idempotency-Key belongs to another session.
    KeyTaken {
        /// The stream.
        stream: Uuid,
        /// The session that would have been.
        session: SessionId,
    },
    /// Another stream holds the name.
    NameTaken {
        /// The stream.
        stream: Uuid,
        /// What kind of name.
        scope: String,
        /// The name.
        name: String,
    },
    /// A resend: the heartbeat was written before.
    Written {
        /// The session.
        session: SessionId,
        /// When it was written.
        #[serde(deserialize_with = "time_of_postgres")]
        at: Time,
    },
    /// A heartbeat without a seat of that user.
    Missing {
        /// The session.
        session: SessionId,
    },
    /// A heartbeat whose pool does not accept.
    LicenseInactive {
        /// The session.
        session: SessionId,
    },
    /// A heartbeat whose pool does not accept.
    LicenseExpired {
        /// The session.
        session: SessionId,
    },
    /// A heartbeat whose pool does not accept.
    TenantInactive {
        /// The session.
        session: SessionId,
    },
}

/// Postgres writes times in JSON with its own offset notation.
fn time_of_postgres<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    Time::parse(&text).map_err(serde::de::Error::custom)
}

impl Refused {
    /// The stream that was refused; `None` for a heartbeat.
    #[must_use]
    pub fn stream(&self) -> Option<Uuid> {
        match self {
            Self::Conflict { stream, .. }
            | Self::Already { stream, .. }
            | Self::NotLapsed { stream, .. }
            | Self::UserUnknown { stream, .. }
            | Self::UserRemoved { stream, .. }
            | Self::Renewed { stream, .. }
            | Self::KeyTaken { stream, .. }
            | Self::NameTaken { stream, .. } => Some(*stream),
            _ => None,
        }
    }

    /// The session whose heartbeat is meant: when it was written before, or why it is not (see
    /// [`Appended::heartbeat`](crate::Appended::heartbeat)).
    #[must_use]
    pub fn heartbeat(&self) -> Option<(SessionId, Result<Time, Option<Standing>>)> {
        match self {
            Self::Written { session, at } => Some((*session, Ok(*at))),
            Self::Missing { session } => Some((*session, Err(None))),
            Self::LicenseInactive { session } => Some((*session, Err(Some(Standing::LicenseInactive)))),
            Self::LicenseExpired { session } => Some((*session, Err(Some(Standing::LicenseExpired)))),
            Self::TenantInactive { session } => Some((*session, Err(Some(Standing::TenantInactive)))),
            _ => None,
        }
    }
}
