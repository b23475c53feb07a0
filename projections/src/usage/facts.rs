//! What a page, or a day that is told again, says about seats.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::LogError;
use tokio_postgres::Row;

use super::tally::{Act, Fact, Late};
use crate::page::Fold;

/// The page's facts, in order.
pub(super) async fn of_page(fold: &Fold<'_>) -> Result<Vec<Fact>, LogError> {
    let (after, upto) = (fold.after, fold.upto);
    let place: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&after.xid, &after.position, &upto.xid, &upto.position];
    let rows = fold.read(include_str!("../sql/usage_facts.sql"), &place).await?;
    Ok(in_order(&rows))
}

/// A scope's facts from a time on, out of the sessions and denials that were folded so far.
pub(super) async fn again(fold: &Fold<'_>, late: Late, from: DateTime<Utc>) -> Result<Vec<Fact>, LogError> {
    let rows =
        fold.read(include_str!("../sql/usage_again.sql"), &[&late.tenant_id, &late.scope_id, &from]).await?;
    Ok(in_order(&rows))
}

fn in_order(rows: &[Row]) -> Vec<Fact> {
    let mut facts: Vec<_> = rows.iter().filter_map(fact).collect();
    facts.sort_by_key(|fact| (fact.at_ms, fact.position));
    facts
}

fn fact(row: &Row) -> Option<Fact> {
    let act = match row.get::<_, &str>("type") {
        "seat_acquired" => Act::Acquired,
        "seat_denied" => Act::Denied,
        "seat_released" => Act::Released,
        "seat_expired" => Act::Expired,
        "seat_revoked" => Act::Revoked,
        _ => return None,
    };
    Some(Fact {
        license_id: row.get("license_id"),
        tenant_id: row.get("tenant_id"),
        user_id: Arc::from(row.get::<_, &str>("user_id")),
        act,
        at_ms: row.get::<_, DateTime<Utc>>("at").timestamp_millis(),
        position: row.get("position"),
    })
}
