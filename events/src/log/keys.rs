//! Public halves of the signing keys: every key that can still verify an unexpired license token.

use std::time::Duration;

use crate::log::EventLog;
use crate::{LogError, Time};

/// A published key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKey {
    /// Key id, as in a token's header.
    pub kid: String,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key: String,
    /// When it entered the set.
    pub published_at: Time,
    /// How long it has been there, by Postgres's clock.
    pub age: Duration,
    /// When it last signed.
    pub last_used_at: Option<Time>,
}

impl EventLog {
    /// Puts a public key into the set; one that is there stays as it is.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn publish_key(&self, kid: &str, public_key: &str) -> Result<(), LogError> {
        let client = self.database.get().await?;
        client
            .execute(
                "insert into signing_keys (kid, public_key) values ($1, $2) on conflict do nothing",
                &[&kid, &public_key],
            )
            .await?;
        Ok(())
    }

    /// Notes that a key signs now.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn touch_key(&self, kid: &str) -> Result<(), LogError> {
        let client = self.database.get().await?;
        client.execute("update signing_keys set last_used_at = now() where kid = $1", &[&kid]).await?;
        Ok(())
    }

    /// The keys that may still be needed: never used yet, or last used less than `grace` ago, oldest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn published_keys(&self, grace: Duration) -> Result<Vec<PublishedKey>, LogError> {
        let client = self.database.get().await?;
        let rows = client
            .query(
                "select kid, public_key, extract(epoch from now() - published_at)::float8, last_used_at, published_at from signing_keys
                 where coalesce(last_used_at, now()) > now() - make_interval(secs => $1) order by published_at, kid",
                &[&grace.as_secs_f64()],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| PublishedKey {
                kid: row.get(0),
                public_key: row.get(1),
                published_at: row.get::<_, chrono::DateTime<chrono::Utc>>(4).into(),
                age: Duration::try_from_secs_f64(row.get(2)).unwrap_or_default(),
                last_used_at: row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(3).map(Time::from),
            })
            .collect())
    }

    /// The longest offline grace, in seconds, that any license ever had of its own. Reads all decisions: for operators.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn longest_offline_grace(&self) -> Result<Option<u32>, LogError> {
        let client = self.database.get().await?;
        let row = client
            .query_one(
                "select max((data ->> 'offline_grace_seconds')::bigint) from events_decision
                 where type in ('license_issued', 'license_updated')",
                &[],
            )
            .await?;
        Ok(row.get::<_, Option<i64>>(0).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)))
    }
}
