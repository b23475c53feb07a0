//! Events where no page of a tenant's log ever comes. What decides reads a pool's events by their version, and would obey
//! them.

use events::EventLog;
use uuid::Uuid;

use super::{Finding, Wrong};
use crate::AuditError;

/// Each answers the first such event: of one tenant, or of all.
const NOWHERE: [(&str, &str); 2] = [
    (
        "select event_id, tenant_id from events
         where xid >= pg_snapshot_xmax(pg_current_snapshot()) and ($1::uuid is null or tenant_id = $1)
         order by xid, position limit 1",
        "the transaction that it names has not begun yet",
    ),
    (
        "select e.event_id, e.tenant_id from events e cross join notary n
         where not exists (select from trees t where t.tenant_id = e.tenant_id)
           and (e.xid, e.position) <= (n.xid, n.position) and ($1::uuid is null or e.tenant_id = $1)
         limit 1",
        "nothing of its tenant was ever sealed, and it stands before the place up to which the log was",
    ),
];

/// Looks for them.
pub(super) async fn check_places(log: &EventLog, tenant: Option<Uuid>) -> Result<Vec<Finding>, AuditError> {
    let client = log.database().get().await?;
    let mut findings = Vec::new();
    for (question, detail) in NOWHERE {
        if let Some(row) = client.query_opt(question, &[&tenant]).await? {
            findings.push(Finding {
                tenant_id: Some(row.get(1)),
                wrong: Wrong::Inserted,
                event_id: Some(row.get(0)),
                index: None,
                checkpoint: None,
                detail: detail.to_owned(),
            });
        }
    }
    Ok(findings)
}
