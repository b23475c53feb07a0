//! What `append` keeps beside the log to decide by. It must be what the log says.

use deadpool_postgres::Object;
use uuid::Uuid;

use super::{Finding, Report, Wrong};
use crate::AuditError;

/// Streams against their decisions; users, seats, switches and names against their events. Each question is one statement,
/// so that it sees both as of one instant.
pub(super) async fn check_state(
    client: &Object,
    tenant_id: Uuid,
    report: &mut Report,
) -> Result<Option<Finding>, AuditError> {
    if let Some(finding) = check_streams(client, tenant_id).await? {
        return Ok(Some(finding));
    }
    for (question, what) in KEPT {
        if let Some(row) = client.query_opt(question, &[&tenant_id]).await? {
            return Ok(Some(Finding {
                tenant_id: Some(tenant_id),
                wrong: Wrong::StateChanged,
                event_id: None,
                index: None,
                checkpoint: None,
                detail: format!("{what} {:?} is not what its events say", row.get::<_, &str>(0)),
            }));
        }
    }
    without_seats(client, tenant_id, report).await?;
    Ok(None)
}

/// Each answers one that differs, of tenant $1.
const KEPT: [(&str, &str); 4] = [
    ("select u from users_unlike_log($1) u limit 1", "table users: user"),
    (include_str!("seats_unlike_log.sql"), "table seats: session"),
    (include_str!("switches_unlike_log.sql"), "table streams: what is switched off or out of its time in"),
    (include_str!("names_unlike_log.sql"), "table names: the holder of"),
];

/// The log must reach the version at which each stream stands, without a gap: this covers what is not sealed yet.
async fn check_streams(client: &Object, tenant_id: Uuid) -> Result<Option<Finding>, AuditError> {
    let row = client
        .query_opt(
            "select s.stream_id, s.version, e.n from streams s
             cross join lateral (select count(*) as n from events_decision e where e.stream_id = s.stream_id) e
             where s.tenant_id = $1 and s.version <> e.n order by s.stream_id limit 1",
            &[&tenant_id],
        )
        .await?;
    Ok(row.map(|row| {
        let (stream, version, found): (Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
        Finding {
            tenant_id: Some(tenant_id),
            wrong: if found < version { Wrong::Cut } else { Wrong::Inserted },
            event_id: None,
            index: None,
            checkpoint: None,
            detail: format!(
                "stream {stream} stands at version {version}, the log has {found} of its decisions"
            ),
        }
    }))
}

/// A session without a seat is nobody's gain: it is noted.
async fn without_seats(client: &Object, tenant_id: Uuid, report: &mut Report) -> Result<(), AuditError> {
    let without: i64 = client
        .query_one(
            "select count(*)
             from (select session_id from events_decision where tenant_id = $1 and session_id is not null
                   group by session_id having bool_and(type = 'seat_acquired')) live
             where not exists (select from seats s where s.session_id = live.session_id)",
            &[&tenant_id],
        )
        .await?
        .get(0);
    if without > 0 {
        report.notes.push(format!(
            "tenant {tenant_id}: {without} sessions live by their events and have no row in table seats: \
             their heartbeats are refused, and they end when somebody next asks for a seat"
        ));
    }
    Ok(())
}
