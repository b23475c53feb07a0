//! Folds the log into the read models, exactly once, in one replica at a time.
//!
//! The lock is the cursor's own row: a replica that dies loses it with its connection, and another goes on.

use std::time::Duration;

use events::{EventLog, LogError, Position};

use crate::tenants;

/// Events folded in one transaction.
const PAGE: i64 = 5_000;

/// Pause when there is nothing new: from the first to the last, doubling.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Pause after a page: what is written meanwhile goes together.
const GATHER: Duration = Duration::from_millis(20);

/// Pause after a failure, or while another replica projects.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the process ends.
pub async fn run(log: EventLog) {
    let mut pause = PAUSE.0;
    loop {
        match step(&log).await {
            Ok(Step::Folded) => {
                pause = PAUSE.0;
                tokio::time::sleep(GATHER).await;
            }
            Ok(Step::Nothing) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Ok(Step::Elsewhere) => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::warn!(%error, "a projection stands still");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

enum Step {
    /// Some events were folded.
    Folded,
    /// There was nothing new.
    Nothing,
    /// Another replica holds the lock.
    Elsewhere,
}

/// One page: rows and cursor in one transaction. Looking whether there is anything new takes none, so that a runner
/// with nothing to do holds back no reader.
async fn step(log: &EventLog) -> Result<Step, LogError> {
    let name = tenants::NAME;
    let mut client = log.database().get().await?;
    let cursor = client
        .query_opt(
            "select xid::text::bigint, position from projection_cursors where projection = $1",
            &[&name],
        )
        .await?;
    let after =
        cursor.map_or_else(Position::default, |row| Position { xid: row.get(0), position: row.get(1) });
    let events = log.read_all(after, PAGE).await?;
    report_lag(log, name, after, events.len()).await?;
    let Some(last) = events.last() else { return Ok(Step::Nothing) };

    let transaction = client.transaction().await?;
    // Rows and cursor go together: a crash that loses both only has them folded again. Nobody waits for the disk.
    transaction.batch_execute("set local synchronous_commit = off").await?;
    transaction
        .execute("insert into projection_cursors (projection) values ($1) on conflict do nothing", &[&name])
        .await?;
    let held = transaction
        .query_opt(
            "select 1 from projection_cursors where projection = $1 and xid = $2::bigint::text::xid8 and position = $3
             for update skip locked",
            &[&name, &after.xid, &after.position],
        )
        .await?;
    // Another replica has the lock, or has folded this page meanwhile.
    if held.is_none() {
        return Ok(Step::Elsewhere);
    }
    for recorded in &events {
        tenants::fold(&transaction, recorded).await?;
    }
    transaction
        .execute(
            "update projection_cursors set xid = $2::bigint::text::xid8, position = $3, read_at = now() where projection = $1",
            &[&name, &last.cursor.position.xid, &last.cursor.position.position],
        )
        .await?;
    transaction.commit().await?;
    Ok(Step::Folded)
}

/// How far behind the log a projection is: also by events that a long transaction keeps readers from.
async fn report_lag(
    log: &EventLog,
    name: &'static str,
    after: Position,
    page: usize,
) -> Result<(), LogError> {
    let oldest = log.oldest_after(after).await?;
    let now = chrono::Utc::now();
    let seconds = oldest.map_or(0.0, |at| (now - at.as_datetime()).as_seconds_f64().max(0.0));
    metrics::gauge!("license_projection_lag_seconds", "projection" => name).set(seconds);
    let waiting = if page == 0 && oldest.is_some() { 1 } else { page };
    metrics::gauge!("license_projection_lag_events", "projection" => name).set(waiting as f64);
    Ok(())
}
