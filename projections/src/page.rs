//! One page of the log on its way into the tables of a projection.

use deadpool_postgres::Transaction;
use events::{LogError, Position};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

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
        self.write(sql, &[&after.xid, &after.position, &upto.xid, &upto.position]).await
    }

    /// A statement with parameters of its own.
    pub async fn write(&self, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> Result<(), LogError> {
        let statement = self.transaction.prepare_cached(&self.tables.name(sql)).await?;
        self.transaction.execute(&statement, arguments).await?;
        Ok(())
    }

    /// A question about what is folded so far.
    pub async fn read(&self, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LogError> {
        let statement = self.transaction.prepare_cached(&self.tables.name(sql)).await?;
        Ok(self.transaction.query(&statement, arguments).await?)
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
