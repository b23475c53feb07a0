//! Reading the log in its global order, or a tenant's part of it.
//!
//! A reader never skips: it stops below the oldest transaction that still runs, so whatever becomes visible later
//! sorts after what was read.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::log::EventLog;
use crate::log::seek::{TABLES, bounds};
use crate::{
    CursorSeal, HardwareId, InvalidValue, LogError, Position, Recorded, SessionId, Subject, TenantId, Time,
    UserId, decode,
};

/// Which of a tenant's events to show; every `None` lets all pass.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Type, e.g. `seat_acquired`.
    pub event_type: Option<String>,
    /// About this session.
    pub session_id: Option<SessionId>,
    /// About this user.
    pub user_id: Option<UserId>,
    /// From this time on.
    pub from: Option<Time>,
    /// Before this time.
    pub to: Option<Time>,
}

/// Longest time that a page waits for transactions under way.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(300);

// The number has a name of its own: `order by xid` would sort by an output column called so, past every index.
const COLUMNS: &str = "event_id, xid::text::bigint as xid_number, position, (select epoch from log_epoch) as epoch, \
     (select cursor_key from log_epoch) as cursor_key, tenant_id, \
     stream_id, version, type, format, session_id, user_id, hardware_id, occurred_at, request_id, data";

impl EventLog {
    /// The next events of all tenants after a place, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn read_all(&self, after: Position, limit: i64) -> Result<Vec<Recorded>, LogError> {
        let client = self.database.get().await?;
        let sql = format!(
            "select {COLUMNS} from events
             where (xid, position) > ($1::bigint::text::xid8, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())
             order by events.xid, events.position limit $3"
        );
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&after.xid, &after.position, &limit]).await?;
        rows.iter().map(recorded).collect()
    }

    /// The next events of one tenant after a place, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn read_tenant(
        &self,
        tenant_id: TenantId,
        after: Position,
        filter: &EventFilter,
        limit: i64,
    ) -> Result<Vec<Recorded>, LogError> {
        let mut client = self.database.get().await?;
        settle(&client).await?;
        let session = filter.session_id.map(|id| id.0);
        let user = filter.user_id.as_ref().map(UserId::as_str);
        let from = filter.from.map(Time::as_datetime);
        let to = filter.to.map(Time::as_datetime);
        let wanted: [(&str, Option<&(dyn ToSql + Sync)>); 5] = [
            ("type =", filter.event_type.as_ref().map(|one| one as _)),
            ("session_id =", session.as_ref().map(|one| one as _)),
            ("user_id =", user.as_ref().map(|one| one as _)),
            ("occurred_at >=", from.as_ref().map(|one| one as _)),
            ("occurred_at <", to.as_ref().map(|one| one as _)),
        ];
        // A type is of one class, and each class has tables of its own.
        let (class, tables) = match filter.event_type.as_deref() {
            None => ("", &TABLES[..]),
            Some("seat_heartbeat") => (" and class = 'heartbeat'", &TABLES[2..]),
            Some("seat_denied") => (" and class = 'denial'", &TABLES[1..2]),
            Some(_) => (" and class = 'decision'", &TABLES[..1]),
        };
        let mut conditions = class.to_owned();
        let mut span = match filter.session_id {
            Some(session_id) => span_of(&client, session_id).await?,
            None => Span::default(),
        };
        // A page is read off the index, never sorted out of all that follows: of a log that one transaction wrote, the
        // planner believes that little does.
        let reading = client.build_transaction().read_only(true).start().await?;
        reading.batch_execute("set local enable_sort = off").await?;
        if filter.from.is_some() || filter.to.is_some() {
            let (after, upto) = bounds(&reading, tables, tenant_id, filter.from, filter.to).await?;
            span.after = span.after.max(after);
            span.upto = upto.map_or(span.upto, |upto| span.upto.min(upto));
        }
        let after = after.max(span.after);
        let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&tenant_id.0, &after.xid, &after.position, &limit];
        if span.upto < Span::default().upto {
            arguments.extend([&span.upto.xid as &(dyn ToSql + Sync), &span.upto.position]);
            conditions.push_str(" and (xid, position) <= ($5::bigint::text::xid8, $6)");
        }
        for (condition, value) in wanted {
            if let Some(value) = value {
                arguments.push(value);
                conditions.push_str(&format!(" and {condition} ${}", arguments.len()));
            }
        }
        let sql = format!(
            "select {COLUMNS} from events
             where tenant_id = $1 and (xid, position) > ($2::bigint::text::xid8, $3)
               and xid < pg_snapshot_xmin(pg_current_snapshot()){conditions}
             order by events.xid, events.position limit $4"
        );
        let statement = reading.prepare_cached(&sql).await?;
        let rows = reading.query(&statement, &arguments).await?;
        reading.commit().await?;
        rows.iter().map(recorded).collect()
    }

    /// When the oldest event after a place occurred, whether readers may see it yet or not.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn oldest_after(&self, after: Position) -> Result<Option<Time>, LogError> {
        let client = self.database.get().await?;
        let statement = client
            .prepare_cached(
                "select occurred_at from events where (xid, position) > ($1::bigint::text::xid8, $2)
                 order by events.xid, events.position limit 1",
            )
            .await?;
        let row = client.query_opt(&statement, &[&after.xid, &after.position]).await?;
        Ok(row.map(|row| row.get::<_, chrono::DateTime<chrono::Utc>>(0).into()))
    }

    /// What seals the cursors of this database.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn cursors(&self) -> Result<CursorSeal, LogError> {
        let client = self.database.get().await?;
        let row = client.query_one("select epoch, cursor_key from log_epoch", &[]).await?;
        CursorSeal::new(row.get(0), row.get(1)).map_err(|error| LogError::Rejected(error.to_string()))
    }
}

/// Where in the log the events of a question can be.
struct Span {
    after: Position,
    upto: Position,
}

impl Default for Span {
    fn default() -> Self {
        Self { after: Position::default(), upto: Position { xid: i64::MAX, position: i64::MAX } }
    }
}

/// Transactions that may have got their number after the one that ended a session, and written of it before: far more
/// than there are connections.
const LATE_XIDS: i64 = 100_000;

/// From the grant of a session to its end, if it has ended: its heartbeats are looked for nowhere else.
async fn span_of(client: &deadpool_postgres::Object, session_id: SessionId) -> Result<Span, LogError> {
    let statement = client
        .prepare_cached(
            "select type, xid::text::bigint, position from events_decision where session_id = $1 order by version",
        )
        .await?;
    let mut span = Span::default();
    for row in client.query(&statement, &[&session_id.0]).await? {
        let (xid, position): (i64, i64) = (row.get(1), row.get(2));
        if row.get::<_, &str>(0) == "seat_acquired" {
            // The acquire itself is one of them.
            span.after = Position { xid, position: position - 1 };
        } else {
            span.upto = Position { xid: xid + LATE_XIDS, position: i64::MAX };
        }
    }
    Ok(span)
}

/// Waits, for a moment at most, until every transaction that runs now has ended: so whoever was answered before it
/// asked finds its own events. A long transaction anywhere in the cluster only makes the page shorter.
pub(crate) async fn settle(client: &deadpool_postgres::Object) -> Result<(), LogError> {
    const SNAPSHOT: &str = "select pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
                            from pg_current_snapshot() s";
    let statement = client.prepare_cached(SNAPSHOT).await?;
    let row = client.query_one(&statement, &[]).await?;
    let (mut oldest, horizon): (i64, i64) = (row.get(0), row.get(1));
    let begun = std::time::Instant::now();
    while oldest < horizon && begun.elapsed() < SETTLE {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        oldest = client.query_one(&statement, &[]).await?.get(0);
    }
    Ok(())
}

/// An event out of a row of [`COLUMNS`].
pub(crate) fn recorded(row: &Row) -> Result<Recorded, LogError> {
    let unreadable = |error: InvalidValue| LogError::Rejected(format!("a stored event: {error}"));
    let user_id: Option<&str> = row.get("user_id");
    let hardware_id: Option<&str> = row.get("hardware_id");
    let occurred_at: chrono::DateTime<chrono::Utc> = row.get("occurred_at");
    Ok(Recorded {
        event_id: row.get("event_id"),
        cursor: CursorSeal::new(row.get("epoch"), row.get("cursor_key"))
            .map_err(unreadable)?
            .seal(Position { xid: row.get("xid_number"), position: row.get("position") }),
        tenant_id: TenantId(row.get("tenant_id")),
        stream_id: row.get("stream_id"),
        version: row.get("version"),
        subject: Subject {
            session_id: row.get::<_, Option<_>>("session_id").map(SessionId),
            user_id: user_id.map(UserId::new).transpose().map_err(unreadable)?,
            hardware_id: hardware_id.map(HardwareId::new).transpose().map_err(unreadable)?,
        },
        occurred_at: occurred_at.into(),
        request_id: row.get("request_id"),
        event: decode(row.get("type"), row.get("format"), row.get("data"))?,
    })
}

/// The columns that [`recorded`] reads.
pub(crate) fn columns() -> &'static str {
    COLUMNS
}
