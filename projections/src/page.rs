//! One page of the log on its way into the tables of a projection.

use events::{LogError, Position};
use tokio_postgres::Transaction;

/// Which set of tables is written: the ones that are read, or those that a rebuild makes beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    Live,
    Next,
}

/// The events after one place up to another, and the transaction that they are folded in.
pub(crate) struct Fold<'a> {
    pub transaction: &'a Transaction<'a>,
    /// What was folded before.
    pub after: Position,
    /// The last event of the page.
    pub upto: Position,
    pub tables: Tables,
}

impl Fold<'_> {
    /// A statement over the page: its parameters are the page's two places.
    pub async fn execute(&self, sql: &str) -> Result<(), LogError> {
        let (after, upto) = (self.after, self.upto);
        self.transaction
            .execute(&self.tables.name(sql), &[&after.xid, &after.position, &upto.xid, &upto.position])
            .await?;
        Ok(())
    }
}

/// Every table that a projection writes.
const TABLES: [&str; 8] = [
    "tenants_view",
    "licenses_view",
    "license_limits",
    "sessions_view",
    "denials_view",
    "usage_buckets",
    "usage_scopes",
    "usage_users",
];

impl Tables {
    /// The text of a statement over this set of tables.
    pub fn name(self, sql: &str) -> String {
        match self {
            Self::Live => sql.to_owned(),
            Self::Next => {
                TABLES.iter().fold(sql.to_owned(), |sql, table| sql.replace(table, &format!("{table}_next")))
            }
        }
    }
}
