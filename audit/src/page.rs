//! A page of the log, in its order.

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::AuditError;

/// The rows of a query that is ordered by place and limited. They are read off the index, never sorted out of all that
/// follows: of a log that few transactions wrote, the planner believes that little does, and each page would read the rest.
///
/// # Errors
/// When the database cannot be asked.
pub(crate) async fn page(
    client: &mut Object,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, AuditError> {
    let reading = client.build_transaction().read_only(true).start().await?;
    reading.batch_execute("set local enable_sort = off").await?;
    let statement = reading.prepare_cached(sql).await?;
    let rows = reading.query(&statement, arguments).await?;
    reading.commit().await?;
    Ok(rows)
}
