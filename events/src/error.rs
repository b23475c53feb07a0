//! What can go wrong at the database, told apart by what the caller may do next.

use tokio_postgres::error::SqlState;

use crate::CodecError;

/// A failure of the log; a refusal is not one (see [`crate::Refused`]).
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing was changed; it may work in a moment.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The connection ended before the answer: it may or may not have been written. Send the same again.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// Rolled back because of another transaction (deadlock, serialization, timeout): nothing was changed, send again.
    #[error("the database rolled the statement back: {0}")]
    RolledBack(String),
    /// The database refuses the statement itself; sending it again will not help.
    #[error("the database rejected the statement: {0}")]
    Rejected(String),
    /// The schema is not the one this version knows.
    #[error("the schema has version {found}, this program knows {known}: {advice}")]
    Schema {
        /// The version found.
        found: i64,
        /// The version known.
        known: i64,
        /// What to do.
        advice: &'static str,
    },
    /// A stored event or snapshot cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A setting of the connection cannot be used.
    #[error("{0}")]
    Setting(String),
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_) | Self::RolledBack(_))
    }
}

/// The cause chain in one line: tokio-postgres and refinery say little at the top.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<tokio_postgres::Error> for LogError {
    /// By SQLSTATE. No SQLSTATE means that the connection failed, perhaps after the statement took effect.
    fn from(error: tokio_postgres::Error) -> Self {
        let text = chain(&error);
        let Some(database) = error.as_db_error() else {
            return Self::Unknown(text);
        };
        let state = database.code();
        let rolled_back = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::QUERY_CANCELED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        // A name or a stream that another statement made at the same instant: the next attempt is told so. Any other
        // duplicate is one that will stay.
        let made_meanwhile = *state == SqlState::UNIQUE_VIOLATION
            && matches!(
                database.constraint(),
                Some("names_pkey" | "streams_pkey" | "events_decision_version")
            );
        if made_meanwhile || rolled_back.contains(state) {
            return Self::RolledBack(text);
        }
        match &state.code()[..2] {
            // The server is going down, or cut this backend: the commit may have happened.
            "57" | "08" => Self::Unknown(text),
            // Out of disk, memory or connections; starting up; read-only standby.
            "53" | "58" | "25" | "XX" => Self::Unavailable(text),
            _ => Self::Rejected(text),
        }
    }
}

impl From<deadpool_postgres::PoolError> for LogError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(source) => Self::Unavailable(chain(&source)),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
