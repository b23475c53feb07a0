//! The terms of a license out of the decisions that set them, which are few and have an index of their own.

use deadpool_postgres::Object;

use crate::log::EventLog;
use crate::log::read::{columns, recorded};
use crate::{Event, LicenseId, LicenseTerms, LogError, TenantId, Time};

/// A license's terms at one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LicenseRecord {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The terms in force.
    pub terms: LicenseTerms,
    /// The version at which they last changed.
    pub terms_version: i64,
    /// When it was issued.
    pub created_at: Time,
    /// When the terms last changed.
    pub updated_at: Time,
}

impl EventLog {
    /// A license as it is now; `None` if there is no such license.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn license(&self, license_id: LicenseId) -> Result<Option<LicenseRecord>, LogError> {
        license_at(&self.database.get().await?, license_id, i64::MAX).await
    }

    /// Live sessions of a pool.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn count_seats_of(&self, license_id: LicenseId) -> Result<i64, LogError> {
        let client = self.database.get().await?;
        let statement = client.prepare_cached("select count(*) from seats where stream_id = $1").await?;
        Ok(client.query_one(&statement, &[&license_id.0]).await?.get(0))
    }
}

/// A license as it was at a version of its stream.
pub(crate) async fn license_at(
    client: &Object,
    license_id: LicenseId,
    version: i64,
) -> Result<Option<LicenseRecord>, LogError> {
    // In the words of the index `events_decision_terms_of`.
    let sql = format!(
        "select {} from events_decision where stream_id = $1 and version <= $2
           and type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated') order by version",
        columns()
    );
    let statement = client.prepare_cached(&sql).await?;
    let mut record: Option<LicenseRecord> = None;
    for row in client.query(&statement, &[&license_id.0, &version]).await? {
        let one = recorded(&row)?;
        match (one.event, &mut record) {
            (Event::LicenseIssued(terms), _) => {
                record = Some(LicenseRecord {
                    tenant_id: one.tenant_id,
                    terms,
                    terms_version: one.version.unwrap_or(1),
                    created_at: one.occurred_at,
                    updated_at: one.occurred_at,
                });
            }
            (Event::LicenseUpdated(change), Some(record)) => {
                record.terms.change(&change);
                record.terms_version = one.version.unwrap_or(record.terms_version);
                record.updated_at = one.occurred_at;
            }
            _ => {}
        }
    }
    Ok(record)
}
