//! The fold's states and rows in Postgres: one statement a table, whatever the page.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::LogError;
use uuid::Uuid;

use super::facts;
use super::tally::{Fact, Holder, Late, Scope, Tally, floor};
use crate::page::Fold;

const DAY: i32 = 86_400;

/// The states of all scopes and holders that a page touches.
pub(super) async fn load(fold: &Fold<'_>, facts: &[Fact]) -> Result<Tally, LogError> {
    let mut tally = Tally::default();
    let scopes: Vec<Uuid> = facts
        .iter()
        .flat_map(|fact| [fact.license_id, fact.tenant_id])
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    for row in fold.read(include_str!("../sql/usage_scopes.sql"), &[&scopes]).await? {
        let scope = Scope {
            tenant_id: row.get("tenant_id"),
            used: row.get("used"),
            users: row.get("users"),
            last: (millis(row.get("last_at")), row.get("last_position")),
        };
        tally.scopes.insert(row.get("scope_id"), scope);
    }
    let keys: HashSet<(Uuid, Arc<str>)> = facts
        .iter()
        .filter(|fact| fact.act.change() != 0)
        .flat_map(|fact| [(fact.license_id, fact.user_id.clone()), (fact.tenant_id, fact.user_id.clone())])
        .collect();
    let (scopes, users): (Vec<Uuid>, Vec<&str>) = keys.iter().map(|(scope, user)| (*scope, &**user)).unzip();
    for row in fold.read(include_str!("../sql/usage_users.sql"), &[&scopes, &users]).await? {
        let holder = Holder {
            live: row.get("live"),
            since: row.get::<_, Option<_>>("since").map(millis),
            left_at: row.get::<_, Option<_>>("left_at").map(millis),
        };
        tally.holders.insert((row.get("scope_id"), Arc::from(row.get::<_, &str>("user_id"))), holder);
    }
    Ok(tally)
}

/// Writes states and rows.
pub(super) async fn save(fold: &Fold<'_>, tally: &Tally) -> Result<(), LogError> {
    save_scopes(fold, tally).await?;
    save_holders(fold, tally).await?;
    save_rows(fold, tally).await
}

async fn save_scopes(fold: &Fold<'_>, tally: &Tally) -> Result<(), LogError> {
    let scopes: Vec<_> = tally.scopes.iter().collect();
    let column = |pick: fn(&Scope) -> i32| scopes.iter().map(|(_, scope)| pick(scope)).collect::<Vec<_>>();
    fold.write(
        include_str!("../sql/save_usage_scopes.sql"),
        &[
            &scopes.iter().map(|(id, _)| **id).collect::<Vec<_>>(),
            &scopes.iter().map(|(_, scope)| scope.tenant_id).collect::<Vec<_>>(),
            &column(|scope| scope.used),
            &column(|scope| scope.users),
            &scopes.iter().map(|(_, scope)| time(scope.last.0)).collect::<Vec<_>>(),
            &scopes.iter().map(|(_, scope)| scope.last.1).collect::<Vec<_>>(),
        ],
    )
    .await
}

async fn save_holders(fold: &Fold<'_>, tally: &Tally) -> Result<(), LogError> {
    let holders: Vec<_> = tally.holders.iter().collect();
    fold.write(
        include_str!("../sql/save_usage_users.sql"),
        &[
            &holders.iter().map(|((scope, _), _)| *scope).collect::<Vec<_>>(),
            &holders.iter().map(|((_, user), _)| &**user).collect::<Vec<_>>(),
            &holders.iter().map(|(_, holder)| holder.live).collect::<Vec<_>>(),
            &holders.iter().map(|(_, holder)| holder.since.map(time)).collect::<Vec<_>>(),
            &holders.iter().map(|(_, holder)| holder.left_at.map(time)).collect::<Vec<_>>(),
        ],
    )
    .await
}

async fn save_rows(fold: &Fold<'_>, tally: &Tally) -> Result<(), LogError> {
    let rows: Vec<_> = tally.rows.iter().collect();
    let column =
        |pick: fn(&super::tally::Row) -> i32| rows.iter().map(|(_, row)| pick(row)).collect::<Vec<_>>();
    let tenants: Vec<Uuid> = rows
        .iter()
        .map(|((scope, ..), _)| tally.scopes.get(scope).map_or(*scope, |scope| scope.tenant_id))
        .collect();
    fold.write(
        include_str!("../sql/save_usage_buckets.sql"),
        &[
            &rows.iter().map(|((scope, ..), _)| *scope).collect::<Vec<_>>(),
            &rows.iter().map(|((_, seconds, _), _)| *seconds).collect::<Vec<_>>(),
            &rows.iter().map(|((.., bucket), _)| time(*bucket)).collect::<Vec<_>>(),
            &tenants,
            &column(|row| row.used_before),
            &column(|row| row.used_after),
            &column(|row| row.peak),
            &rows.iter().map(|(_, row)| row.more_ms).collect::<Vec<_>>(),
            &column(|row| row.acquired),
            &column(|row| row.denied),
            &column(|row| row.released),
            &column(|row| row.expired),
            &column(|row| row.revoked),
            &column(|row| row.users_before),
            &column(|row| row.users_after),
            &column(|row| row.more_users),
        ],
    )
    .await
}

/// Folds a scope again from the beginning of the day of its earliest late event, out of sessions and denials.
pub(super) async fn retell(fold: &Fold<'_>, late: Late) -> Result<(), LogError> {
    let from_ms = floor(late.from_ms, DAY);
    let from = time(from_ms);
    let mut tally = Tally::default();
    let mut scope = Scope { tenant_id: late.tenant_id, used: 0, users: 0, last: (i64::MIN, i64::MIN) };
    for row in
        fold.read(include_str!("../sql/usage_before.sql"), &[&late.tenant_id, &late.scope_id, &from]).await?
    {
        let live: i32 = row.get("live");
        scope.used += live;
        scope.users += 1;
        // Any time before the day: no bucket of it began earlier.
        let holder = Holder { live, since: Some(from_ms - 1), left_at: None };
        tally.holders.insert((late.scope_id, Arc::from(row.get::<_, &str>("user_id"))), holder);
    }
    tally.scopes.insert(late.scope_id, scope);
    for fact in facts::again(fold, late, from).await? {
        tally.add_to(late.scope_id, &fact);
    }
    fold.write("delete from usage_buckets where scope_id = $1 and bucket >= $2", &[&late.scope_id, &from])
        .await?;
    save(fold, &tally).await
}

fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH)
}
