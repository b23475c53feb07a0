//! The seats table: who lives, until when.

use uuid::Uuid;

use crate::log::EventLog;
use crate::{LicenseId, LogError, SessionId, TenantId, Time};

/// A live session as the referee knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The session.
    pub session_id: SessionId,
    /// When it ends if no heartbeat comes.
    pub deadline: Time,
}

impl EventLog {
    /// The deadlines of all live sessions of a pool.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn seats(&self, license_id: LicenseId) -> Result<Vec<Seat>, LogError> {
        let client = self.database.get().await?;
        let statement =
            client.prepare_cached("select session_id, deadline from seats where stream_id = $1").await?;
        let rows = client.query(&statement, &[&license_id.0]).await?;
        Ok(rows
            .iter()
            .map(|row| Seat { session_id: SessionId(row.get(0)), deadline: time(row.get(1)) })
            .collect())
    }

    /// Pools with a session that could have ended `slack_ms` ago or longer, at most `limit` of them: the deadline has
    /// passed, and after an outage a whole TTL.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lapsed_pools(&self, slack_ms: i64, limit: i64) -> Result<Vec<LicenseId>, LogError> {
        let client = self.database.get().await?;
        let statement = client.prepare_cached("select lapsed_pools($1, $2)").await?;
        let rows = client.query(&statement, &[&slack_ms, &limit]).await?;
        Ok(rows.iter().map(|row| LicenseId(row.get(0))).collect())
    }

    /// Live sessions of the whole system.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn count_seats(&self) -> Result<i64, LogError> {
        let client = self.database.get().await?;
        Ok(client.query_one("select count(*) from seats", &[]).await?.get(0))
    }

    /// Live sessions of each of a tenant's pools.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn count_seats_by_license(
        &self,
        tenant_id: TenantId,
    ) -> Result<Vec<(LicenseId, i64)>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select s.stream_id, (select count(*) from seats t where t.stream_id = s.stream_id)
                 from streams s where s.tenant_id = $1 and s.product is not null order by s.stream_id",
            )
            .await?;
        let rows = client.query(&statement, &[&tenant_id.0]).await?;
        Ok(rows.iter().map(|row| (LicenseId(row.get::<_, Uuid>(0)), row.get(1))).collect())
    }
}

fn time(at: chrono::DateTime<chrono::Utc>) -> Time {
    at.into()
}
