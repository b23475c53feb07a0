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

/// The decisions of each stream, in the order of the log, are its versions from 1 to where the stream stands: this covers
/// what is not sealed yet.
async fn check_streams(client: &Object, tenant_id: Uuid) -> Result<Option<Finding>, AuditError> {
    let finding = |wrong, event_id, detail| Finding {
        tenant_id: Some(tenant_id),
        wrong,
        event_id,
        index: None,
        checkpoint: None,
        detail,
    };
    if let Some(row) = client.query_opt(include_str!("stream_versions.sql"), &[&tenant_id]).await? {
        let (stream, version, found): (Uuid, Option<i64>, i64) = (row.get(0), row.get(1), row.get(2));
        let Some(version) = version else {
            let detail = format!("stream {stream} has {found} decisions and no row in table streams");
            return Ok(Some(finding(Wrong::StateChanged, None, detail)));
        };
        let wrong = if found < version { Wrong::Cut } else { Wrong::Inserted };
        let detail =
            format!("stream {stream} stands at version {version}, the log has {found} of its decisions");
        return Ok(Some(finding(wrong, None, detail)));
    }
    let out_of_turn = client.query_opt(include_str!("versions_out_of_turn.sql"), &[&tenant_id]).await?;
    Ok(out_of_turn.map(|row| {
        let (event, stream, version): (Uuid, Uuid, i64) = (row.get(0), row.get(1), row.get(2));
        let detail =
            format!("version {version} of stream {stream} does not come next after the one before it");
        finding(Wrong::Reordered, Some(event), detail)
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
