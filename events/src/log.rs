//! The log: one act a file.

pub(crate) mod append;
pub(crate) mod keys;
pub(crate) mod lookup;
pub(crate) mod read;
pub(crate) mod refused;
pub(crate) mod replay;
pub(crate) mod seats;
mod seek;
pub(crate) mod stream;
pub(crate) mod terms;
pub(crate) mod users;

use crate::Database;

/// The event log in Postgres. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    pub(crate) database: Database,
}

impl EventLog {
    /// A log in this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The database, for whoever keeps tables of its own beside the log.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }
}
