//! One stream: its head, its decisions after a version, its snapshot.

use serde_json::Value;
use uuid::Uuid;

use crate::log::EventLog;
use crate::log::read::{columns, recorded};
use crate::{LogError, Recorded, Standing, TenantId, Time};

/// How many decisions are read in one go while a stream is loaded.
const PAGE: i64 = 5_000;

/// What stands on a stream's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Of its latest decision.
    pub version: i64,
    /// Whether its tenant is active.
    pub tenant_active: bool,
    /// Whether it accepts, by Postgres's clock when it was read; a tenant's own stream knows of its tenant alone.
    pub standing: Standing,
    /// Postgres's clock when it was read.
    pub now: Time,
}

/// A folded stream at one of its versions.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version folded up to.
    pub version: i64,
    /// Of `state`; a reader ignores a format that it does not know.
    pub format: i16,
    /// As whoever folds the stream wrote it.
    pub state: Value,
}

impl EventLog {
    /// The head of a stream, or `None` if there is no such stream.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn stream_head(&self, stream_id: Uuid) -> Result<Option<StreamHead>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select tenant_id, version, tenant_active, to_jsonb(standing(s, t.now)) as standing, t.now
                 from streams s cross join (select clock_timestamp() as now) t where stream_id = $1",
            )
            .await?;
        let Some(row) = client.query_opt(&statement, &[&stream_id]).await? else { return Ok(None) };
        let standing = serde_json::from_value(row.get("standing"))
            .map_err(|error| LogError::Rejected(format!("the standing of stream {stream_id}: {error}")))?;
        Ok(Some(StreamHead {
            tenant_id: TenantId(row.get("tenant_id")),
            version: row.get("version"),
            tenant_active: row.get("tenant_active"),
            standing,
            now: row.get::<_, chrono::DateTime<chrono::Utc>>("now").into(),
        }))
    }

    /// The decisions of a stream after a version, in order, at most a page of them: ask again until none comes.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn decisions_after(&self, stream_id: Uuid, version: i64) -> Result<Vec<Recorded>, LogError> {
        let client = self.database.get().await?;
        let sql = format!(
            "select {} from events_decision where stream_id = $1 and version > $2 order by version limit $3",
            columns()
        );
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&stream_id, &version, &PAGE]).await?;
        rows.iter().map(recorded).collect()
    }

    /// All decisions of a stream.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn decisions(&self, stream_id: Uuid) -> Result<Vec<Recorded>, LogError> {
        let mut all = Vec::new();
        loop {
            let version = all.last().and_then(|last: &Recorded| last.version).unwrap_or(0);
            let page = self.decisions_after(stream_id, version).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The latest snapshot of a stream.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn snapshot(&self, stream_id: Uuid) -> Result<Option<Snapshot>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached("select version, format, state from snapshots where stream_id = $1")
            .await?;
        let row = client.query_opt(&statement, &[&stream_id]).await?;
        Ok(row.map(|row| Snapshot { version: row.get(0), format: row.get(1), state: row.get(2) }))
    }

    /// Keeps a snapshot, unless a later one is there.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn save_snapshot(&self, stream_id: Uuid, snapshot: &Snapshot) -> Result<(), LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "insert into snapshots (stream_id, version, format, state) values ($1, $2, $3, $4)
                 on conflict (stream_id) do update
                 set version = excluded.version, format = excluded.format, state = excluded.state, taken_at = now()
                 where snapshots.version < excluded.version",
            )
            .await?;
        client
            .execute(&statement, &[&stream_id, &snapshot.version, &snapshot.format, &snapshot.state])
            .await?;
        Ok(())
    }
}
