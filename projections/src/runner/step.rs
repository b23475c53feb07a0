//! One page of one projection: rows and cursor in one transaction.

use events::{EventLog, LogError, Position};

use super::FROZEN;
use crate::page::{Fold, Tables};
use crate::projection::Projection;

/// How a page went; what is later in this list matters more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// There was nothing new.
    Nothing,
    /// Somebody else folded it.
    Elsewhere,
    /// Some events were folded.
    Folded,
    /// A whole page was folded: there may be more.
    Full,
}

/// The row of a set of tables in `projection_cursors`.
pub(crate) fn cursor_name(projection: Projection, tables: Tables) -> String {
    match tables {
        Tables::Live => projection.name().to_owned(),
        Tables::Next => format!("{}.next", projection.name()),
    }
}

/// Folds the next page. Until there is anything new, the transaction has no id, so that a runner with nothing to do holds
/// back no reader.
pub(crate) async fn step(
    log: &EventLog,
    projection: Projection,
    tables: Tables,
    limit: i64,
) -> Result<Step, LogError> {
    let name = cursor_name(projection, tables);
    let mut client = log.database().get().await?;
    let after = cursor(&client, &name).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&settings()).await?;
    let Some((upto, count)) = page(&transaction, projection, after, limit).await? else {
        return Ok(Step::Nothing);
    };
    let held = transaction
        .query_opt(
            "select 1 from projection_cursors where projection = $1 and xid = $2::bigint::text::xid8 and position = $3
             for update skip locked",
            &[&name, &after.xid, &after.position],
        )
        .await?;
    // Another has the row, or has folded this page meanwhile.
    if held.is_none() {
        return Ok(Step::Elsewhere);
    }
    projection.fold(&Fold { transaction: &transaction, after, upto, tables }).await?;
    transaction
        .execute(
            "update projection_cursors set xid = $2::bigint::text::xid8, position = $3, read_at = now()
             where projection = $1",
            &[&name, &upto.xid, &upto.position],
        )
        .await?;
    transaction.commit().await?;
    Ok(if count < limit { Step::Folded } else { Step::Full })
}

/// Of a page's transaction. Rows and cursor go together, so a crash that loses both only has them folded again, and
/// nobody waits for the disk. Plans are made for the page at hand: what holds for an average page is wrong at the log's
/// end, where the statistics know nothing. Every table has the index that its fold needs; a table that was empty a moment ago
/// must not tempt the planner to read it whole for every row.
fn settings() -> String {
    format!(
        "set local synchronous_commit = off; set local plan_cache_mode = force_custom_plan;
         set local jit = off; set local enable_seqscan = off;
         set local idle_in_transaction_session_timeout = {}",
        FROZEN.as_millis()
    )
}

/// Where a set of tables stands; a new one at the beginning.
async fn cursor(client: &deadpool_postgres::Object, name: &str) -> Result<Position, LogError> {
    let statement = client
        .prepare_cached("select xid::text::bigint, position from projection_cursors where projection = $1")
        .await?;
    if let Some(row) = client.query_opt(&statement, &[&name]).await? {
        return Ok(Position { xid: row.get(0), position: row.get(1) });
    }
    client
        .execute("insert into projection_cursors (projection) values ($1) on conflict do nothing", &[&name])
        .await?;
    Ok(Position::default())
}

/// The last event of the next page, and how many it has.
async fn page(
    transaction: &deadpool_postgres::Transaction<'_>,
    projection: Projection,
    after: Position,
    limit: i64,
) -> Result<Option<(Position, i64)>, LogError> {
    let sql = format!(
        "select xid::text::bigint, position, count(*) over ()
         from (select xid, position from {}
                 and (xid, position) > ($1::bigint::text::xid8, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())
               order by xid, position limit $3) page
         order by page.xid desc, page.position desc limit 1",
        projection.source()
    );
    let statement = transaction.prepare_cached(&sql).await?;
    // Read off the index, never sorted out of all that follows: of a log that one transaction wrote, the planner believes
    // that little does.
    transaction.batch_execute("set local enable_sort = off").await?;
    let row = transaction.query_opt(&statement, &[&after.xid, &after.position, &limit]).await?;
    transaction.batch_execute("set local enable_sort = on").await?;
    Ok(row.map(|row| (Position { xid: row.get(0), position: row.get(1) }, row.get(2))))
}

/// Whether a projection has not yet folded an event below the transaction $1: the last of these is after its cursor. Only
/// the end of an index is read: asked whether any event is after the cursor, the planner may read the whole log.
pub(super) fn unfolded(projection: Projection) -> String {
    format!(
        "exists (select from (select xid, position from {} and xid < $1::bigint::text::xid8
                              order by xid desc, position desc limit 1) last
                 left join projection_cursors c on c.projection = '{}'
                 where c.xid is null or (last.xid, last.position) > (c.xid, c.position))",
        projection.source(),
        projection.name()
    )
}
