//! Where in the log a time is: so that a page of a year ago does not read the year before it.
//!
//! The log is in the order of transactions, and a transaction's times are taken within it, so the two orders differ by
//! no more than a transaction lasts. A time is therefore found by halving, with [`SLACK`] to spare. That is only believed
//! of a log in which whatever was looked at on the way was in order: of another, imported perhaps, all is read.

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;

use crate::{LogError, Position, TenantId, Time};

/// How far the order of transactions and the order of times may differ, far more than a statement may last.
const SLACK: TimeDelta = TimeDelta::seconds(60);

/// The tables of the classes of events.
pub(super) const TABLES: [&str; 3] = ["events_decision", "events_denial", "events_heartbeat"];

/// A tenant's events of these tables from one time up to another are after the first place, and not after the second.
pub(super) async fn bounds(
    client: &Transaction<'_>,
    tables: &[&str],
    tenant_id: TenantId,
    from: Option<Time>,
    to: Option<Time>,
) -> Result<(Position, Option<Position>), LogError> {
    let (mut after, mut upto) = (None::<Position>, None::<Position>);
    for table in tables {
        let mut seek = Seek::new(client, table, tenant_id).await?;
        if seek.is_empty() {
            continue;
        }
        let low = match from {
            Some(from) => seek.latest_before(from.as_datetime() - SLACK).await?,
            None => None,
        };
        let high = match to {
            Some(to) => seek.latest_before(to.as_datetime() + SLACK).await?,
            None => None,
        };
        if !seek.in_order() {
            return Ok((Position::default(), None));
        }
        let low = low.unwrap_or_default();
        after = Some(after.map_or(low, |after| after.min(low)));
        // Nothing of this table is before the end: then it bounds nothing.
        let high = high.unwrap_or_default();
        upto = Some(upto.map_or(high, |upto| upto.max(high)));
    }
    Ok((after.unwrap_or_default(), upto.filter(|_| to.is_some())))
}

type Place = (Position, DateTime<Utc>);

/// Looks at one tenant's events of one table.
struct Seek<'a> {
    client: &'a Transaction<'a>,
    table: &'a str,
    tenant_id: TenantId,
    ends: Option<(Place, Place)>,
    looked_at: Vec<Place>,
}

impl<'a> Seek<'a> {
    async fn new(client: &'a Transaction<'a>, table: &'a str, tenant_id: TenantId) -> Result<Self, LogError> {
        let mut seek = Self { client, table, tenant_id, ends: None, looked_at: Vec::new() };
        let before_all = Position { xid: 0, position: -1 };
        if let Some(first) = seek.look(before_all, "asc", ">").await? {
            let after_all = Position { xid: i64::MAX, position: i64::MAX };
            let last = seek.look(after_all, "desc", "<").await?.unwrap_or(first);
            seek.ends = Some((first, last));
        }
        Ok(seek)
    }

    fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// The event next to a place.
    async fn look(&mut self, place: Position, order: &str, side: &str) -> Result<Option<Place>, LogError> {
        let sql = format!(
            "select xid::text::bigint, position, occurred_at from {0}
             where tenant_id = $1 and (xid, position) {side} ($2::bigint::text::xid8, $3)
             order by {0}.xid {order}, {0}.position {order} limit 1",
            self.table
        );
        let statement = self.client.prepare_cached(&sql).await?;
        let row =
            self.client.query_opt(&statement, &[&self.tenant_id.0, &place.xid, &place.position]).await?;
        let found = row.map(|row| (Position { xid: row.get(0), position: row.get(1) }, row.get(2)));
        self.looked_at.extend(found);
        Ok(found)
    }

    /// The latest event before a time, as far as halving finds it; `None`: there is none.
    async fn latest_before(&mut self, time: DateTime<Utc>) -> Result<Option<Position>, LogError> {
        let Some((first, last)) = self.ends else { return Ok(None) };
        if first.1 >= time {
            return Ok(None);
        }
        if last.1 < time {
            return Ok(Some(last.0));
        }
        // First among transactions, then within the one that was found.
        let mut low = first.0;
        let mut high = last.0.xid + 1;
        while low.xid + 1 < high {
            let middle = low.xid + (high - low.xid) / 2;
            match self.look(Position { xid: middle, position: -1 }, "asc", ">").await? {
                Some((place, at)) if at < time => low = place,
                _ => high = middle,
            }
        }
        let next = Position { xid: low.xid, position: i64::MAX };
        let mut high = match self.look(next, "desc", "<").await? {
            Some((place, at)) if at < time => return Ok(Some(place)),
            Some((place, _)) => place.position,
            None => return Ok(Some(low)),
        };
        while low.position + 1 < high {
            let middle = low.position + (high - low.position) / 2;
            match self.look(Position { xid: low.xid, position: middle - 1 }, "asc", ">").await? {
                Some((place, at)) if at < time && place.xid == low.xid && place.position > low.position => {
                    low = place;
                }
                _ => high = middle,
            }
        }
        Ok(Some(low))
    }

    /// Whether everything that was looked at is in order.
    fn in_order(&mut self) -> bool {
        self.looked_at.sort_unstable();
        self.looked_at.windows(2).all(|pair| pair[0].1 <= pair[1].1 + SLACK)
    }
}
