//! Analysts whose transactions hold back the readers of the log. Every replica looks, whichever folds.

use std::time::Duration;

use events::{EventLog, LogError};

const EVERY: Duration = Duration::from_secs(1);

/// Looks until the process ends.
pub(super) async fn end(log: EventLog) {
    loop {
        tokio::time::sleep(EVERY).await;
        match end_now(&log).await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(ended, "connections of analysts were ended: they held back the log"),
            Err(error) => tracing::warn!(%error, "analysts may hold back the log"),
        }
    }
}

/// A second is longer than a view needs, which never takes an id of a transaction.
async fn end_now(log: &EventLog) -> Result<i32, LogError> {
    let client = log.database().get().await?;
    let statement = client.prepare_cached("select end_analysts_in_the_way('1 second')").await?;
    Ok(client.query_one(&statement, &[]).await?.get(0))
}
