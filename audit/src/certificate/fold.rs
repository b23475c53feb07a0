//! A tenant's events, in the order of the log, become what a certificate states.

use std::collections::{BTreeMap, HashSet};

use events::{PoolAt, Time};
use uuid::Uuid;

use super::{LicenseUse, Limit};
use crate::stored::StoredEvent;

/// The pools so far, and the range that is asked about.
pub(super) struct Fold {
    from: Time,
    to: Time,
    pools: BTreeMap<Uuid, Pool>,
}

struct Pool {
    product: String,
    seats_total: u64,
    active: bool,
    held: HashSet<Uuid>,
    shown: LicenseUse,
}

impl Fold {
    pub(super) fn new(from: Time, to: Time) -> Self {
        Self { from, to, pools: BTreeMap::new() }
    }

    /// A pool as it was when the range began.
    pub(super) fn begin(&mut self, was: &PoolAt) {
        let terms = &was.license.terms;
        let mut pool = Pool::new(
            was.license_id.0,
            terms.product.as_str(),
            u64::from(terms.seats_total.get()),
            terms.active,
        );
        pool.held.extend(was.sessions.iter().map(|session| session.session_id.0));
        pool.limit(self.from, true);
        pool.shown.peak = pool.held.len() as u64;
        pool.shown.peak_at = self.from.to_string();
        self.pools.insert(was.license_id.0, pool);
    }

    pub(super) fn apply(&mut self, event: &StoredEvent) {
        let Some(license_id) = event.license_id else { return };
        let Ok(at) = Time::parse(&event.occurred_at) else { return };
        if at >= self.to {
            return;
        }
        let before = at <= self.from;
        let text = |name: &str| event.data.get(name).and_then(|value| value.as_str());
        let seats = event.data.get("seats_total").and_then(serde_json::Value::as_u64);
        let active = event.data.get("active").and_then(serde_json::Value::as_bool);
        if event.event_type == "license_issued" {
            let (seats_total, active) = (seats.unwrap_or_default(), active.unwrap_or_default());
            let mut pool = Pool::new(license_id, text("product").unwrap_or_default(), seats_total, active);
            pool.limit(self.from.max(at), before);
            pool.shown.peak_at = self.from.max(at).to_string();
            self.pools.insert(license_id, pool);
            return;
        }
        let Some(pool) = self.pools.get_mut(&license_id) else { return };
        match (event.event_type.as_str(), event.session_id) {
            ("license_updated", _) if seats.is_some() || active.is_some() => {
                pool.seats_total = seats.unwrap_or(pool.seats_total);
                pool.active = active.unwrap_or(pool.active);
                pool.limit(self.from.max(at), before);
            }
            ("seat_acquired", Some(session)) => {
                pool.held.insert(session);
                if at >= self.from {
                    pool.shown.acquired += 1;
                    pool.shown.over_limit += u64::from(pool.held.len() as u64 > pool.seats_total);
                }
            }
            ("seat_released" | "seat_expired" | "seat_revoked", Some(session)) => {
                pool.held.remove(&session);
            }
            ("seat_denied", _) if at >= self.from && text("reason") == Some("no_seats_available") => {
                pool.shown.denied += 1;
            }
            _ => {}
        }
        let held = pool.held.len() as u64;
        if before || held > pool.shown.peak {
            pool.shown.peak = held;
            pool.shown.peak_at = self.from.max(at).to_string();
        }
    }

    pub(super) fn finish(self) -> Vec<LicenseUse> {
        self.pools.into_values().map(|pool| pool.shown).collect()
    }
}

impl Pool {
    fn new(license_id: Uuid, product: &str, seats_total: u64, active: bool) -> Self {
        let shown = LicenseUse {
            license_id,
            product: product.to_owned(),
            limits: Vec::new(),
            peak: 0,
            peak_at: String::new(),
            acquired: 0,
            denied: 0,
            over_limit: 0,
        };
        Self { product: product.to_owned(), seats_total, active, held: HashSet::new(), shown }
    }

    /// The limit as it is from now on; up to the range's beginning only the last one counts.
    fn limit(&mut self, since: Time, replaces: bool) {
        if replaces {
            self.shown.limits.clear();
        }
        self.shown.product.clone_from(&self.product);
        let since = since.to_string();
        self.shown.limits.push(Limit { since, seats_total: self.seats_total, active: self.active });
    }
}
