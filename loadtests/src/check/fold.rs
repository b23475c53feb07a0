//! The checker's own fold: what the log says is true.
//!
//! Decisions of a stream are taken in the order of their versions. A heartbeat moves its session's deadline
//! forward, never back, and one that sorts after its session's end is ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::log::Row;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct End {
    /// `seat_released`, `seat_expired` or `seat_revoked`.
    pub kind: String,
    pub at_ms: i64,
    pub cursor: String,
    pub request: Option<String>,
    /// Of an expiry: the deadline that passed.
    pub deadline_ms: Option<i64>,
}

/// A session from its grant on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Session {
    pub stream: String,
    pub tenant: String,
    pub user: String,
    pub machine: String,
    pub began_ms: i64,
    pub cursor: String,
    pub request: Option<String>,
    /// When it ends unless somebody says otherwise.
    pub deadline_ms: i64,
    pub end: Option<End>,
}

impl Session {
    pub fn is_live(&self) -> bool {
        self.end.is_none()
    }
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PoolFold {
    pub tenant: String,
    pub product: String,
    pub version: i64,
    pub seats: i64,
    pub active: bool,
    pub valid_from_ms: Option<i64>,
    pub valid_until_ms: Option<i64>,
    /// Live sessions.
    pub live: usize,
}

/// What the whole log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Fold {
    pub pools: BTreeMap<String, PoolFold>,
    pub sessions: BTreeMap<String, Session>,
    /// Users who were removed, as `tenant user`.
    pub removed: BTreeSet<String>,
    /// Whether a tenant is active.
    pub tenants: BTreeMap<String, bool>,
}

/// One decision and the pool just before and after it.
pub(crate) struct Step<'a> {
    pub row: &'a Row,
    /// The pool before the decision.
    pub before: &'a PoolFold,
    /// The pool after it.
    pub after: &'a PoolFold,
    pub tenant_active: bool,
    /// The user it concerns was removed.
    pub user_removed: bool,
    /// Another live session of the same user and machine in the pool.
    pub twin: Option<String>,
}

impl Fold {
    /// Folds all rows.
    pub fn of(rows: &[Row]) -> Self {
        Self::watched(rows, |_| ())
    }

    /// Folds all rows and shows every decision of a pool to `watch`.
    pub fn watched(rows: &[Row], mut watch: impl FnMut(&Step<'_>)) -> Self {
        let mut fold = Self::default();
        for row in in_order(rows) {
            fold.apply(row, &mut watch);
        }
        fold
    }

    /// The same bytes for the same log.
    pub fn bytes(&self) -> Vec<u8> {
        // Maps are ordered, and nothing in it is a float: there is one way to write it.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn apply(&mut self, row: &Row, watch: &mut impl FnMut(&Step<'_>)) {
        match row.kind.as_str() {
            "tenant_created" | "tenant_updated" => {
                if let Some(active) = row.data["active"].as_bool() {
                    self.tenants.insert(row.stream.clone(), active);
                }
            }
            "user_removed" => {
                self.removed.insert(member(row));
            }
            "user_added" => {
                self.removed.remove(&member(row));
            }
            "seat_heartbeat" => self.beat(row),
            "license_issued" | "license_updated" | "seat_acquired" | "seat_released" | "seat_expired"
            | "seat_revoked" => self.decide(row, watch),
            _ => {}
        }
    }

    fn beat(&mut self, row: &Row) {
        let session = row.session.as_ref().and_then(|session| self.sessions.get_mut(session));
        if let (Some(session), Some(deadline_ms)) = (session, time_ms(&row.data["deadline"]))
            && session.is_live()
        {
            session.deadline_ms = session.deadline_ms.max(deadline_ms);
        }
    }

    fn decide(&mut self, row: &Row, watch: &mut impl FnMut(&Step<'_>)) {
        let before = self.pools.get(&row.stream).cloned().unwrap_or_default();
        let tenant_active = self.tenants.get(&row.tenant).copied().unwrap_or(true);
        let user_removed = self.removed.contains(&member(row));
        let twin = if row.kind == "seat_acquired" { self.twin(row) } else { None };
        let mut after = before.clone();
        after.version = row.version.unwrap_or(before.version);
        match row.kind.as_str() {
            "license_issued" | "license_updated" => terms(&mut after, row),
            "seat_acquired" => self.begin(&mut after, row),
            _ => self.end(&mut after, row),
        }
        watch(&Step { row, before: &before, after: &after, tenant_active, user_removed, twin });
        self.pools.insert(row.stream.clone(), after);
    }

    fn twin(&self, row: &Row) -> Option<String> {
        let same = |session: &Session| {
            session.is_live()
                && session.stream == row.stream
                && Some(&session.user) == row.user.as_ref()
                && Some(&session.machine) == row.machine.as_ref()
        };
        self.sessions.iter().find(|(_, session)| same(session)).map(|(id, _)| id.clone())
    }

    fn begin(&mut self, pool: &mut PoolFold, row: &Row) {
        pool.live += 1;
        let session = Session {
            stream: row.stream.clone(),
            tenant: row.tenant.clone(),
            user: row.user.clone().unwrap_or_default(),
            machine: row.machine.clone().unwrap_or_default(),
            began_ms: row.at_ms,
            cursor: row.cursor(),
            request: row.request.clone(),
            deadline_ms: time_ms(&row.data["deadline"]).unwrap_or(row.at_ms),
            end: None,
        };
        self.sessions.insert(row.session.clone().unwrap_or_default(), session);
    }

    fn end(&mut self, pool: &mut PoolFold, row: &Row) {
        let session = row.session.as_ref().and_then(|session| self.sessions.get_mut(session));
        if let Some(session) = session
            && session.is_live()
        {
            pool.live = pool.live.saturating_sub(1);
            session.end = Some(End {
                kind: row.kind.clone(),
                at_ms: row.at_ms,
                cursor: row.cursor(),
                request: row.request.clone(),
                deadline_ms: time_ms(&row.data["deadline"]),
            });
        }
    }
}

/// Who a row concerns.
fn member(row: &Row) -> String {
    format!("{} {}", row.tenant, row.user.as_deref().unwrap_or_default())
}

fn terms(pool: &mut PoolFold, row: &Row) {
    pool.tenant.clone_from(&row.tenant);
    let data = &row.data;
    if let Some(product) = data["product"].as_str() {
        product.clone_into(&mut pool.product);
    }
    if let Some(seats) = data["seats_total"].as_i64() {
        pool.seats = seats;
    }
    if let Some(active) = data["active"].as_bool() {
        pool.active = active;
    }
    if let Some(from) = data.get("valid_from") {
        pool.valid_from_ms = time_ms(from);
    }
    if let Some(until) = data.get("valid_until") {
        pool.valid_until_ms = time_ms(until);
    }
}

/// The order of a fold. Positions are taken while the locks are held, so that of two transactions that met on a
/// row the later one has the higher position; a transaction's id may be older than its locks.
pub(crate) fn in_order(rows: &[Row]) -> Vec<&Row> {
    let mut ordered: Vec<_> = rows.iter().collect();
    ordered.sort_by_key(|row| row.position);
    ordered
}

/// An RFC 3339 time of the log as Unix milliseconds.
pub(crate) fn time_ms(value: &Value) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|time| time.timestamp_millis())
}
