//! How far behind the log the projections are. Every replica reports, whichever folds.

use std::time::Duration;

use events::{EventLog, LogError};

use crate::projection::Projection;

const EVERY: Duration = Duration::from_secs(1);

/// Events that are counted; a lag of more is reported as this many.
const COUNTED: i64 = 100_000;

/// Reports until the process ends.
pub(super) async fn report(log: EventLog) {
    loop {
        for projection in Projection::ALL {
            match lag(&log, projection).await {
                Ok((events, seconds)) => {
                    let name = projection.name();
                    metrics::gauge!("license_projection_lag_events", "projection" => name).set(events as f64);
                    metrics::gauge!("license_projection_lag_seconds", "projection" => name).set(seconds);
                }
                Err(error) => tracing::warn!(%error, "the lag of the projections is unknown"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Events that are committed and not folded, also those that a long transaction keeps readers from; and the age of the
/// oldest of them.
async fn lag(log: &EventLog, projection: Projection) -> Result<(i64, f64), LogError> {
    let client = log.database().get().await?;
    let sql = format!(
        "select count(*), coalesce(extract(epoch from clock_timestamp() - min(occurred_at)), 0)::float8
         from (select occurred_at from {} and (xid, position) > (
                 coalesce((select xid from projection_cursors where projection = $1), '0'),
                 coalesce((select position from projection_cursors where projection = $1), 0))
               order by xid, position limit $2) behind",
        projection.source()
    );
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_one(&statement, &[&projection.name(), &COUNTED]).await?;
    Ok((row.get(0), row.get::<_, f64>(1).max(0.0)))
}
