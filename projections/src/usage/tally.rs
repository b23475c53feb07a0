//! The fold itself: pure, no clock, no I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

/// The lengths of buckets, in seconds.
pub(crate) const LENGTHS: [i32; 3] = [60, 3_600, 86_400];

/// What happened to a seat, or to the wish for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Acquired,
    Denied,
    Released,
    Expired,
    Revoked,
}

impl Act {
    /// By how many seats its user holds more.
    pub fn change(self) -> i32 {
        match self {
            Self::Acquired => 1,
            Self::Denied => 0,
            Self::Released | Self::Expired | Self::Revoked => -1,
        }
    }
}

/// An event as far as usage is concerned. Times are Unix milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub license_id: Uuid,
    pub tenant_id: Uuid,
    pub user_id: Arc<str>,
    pub act: Act,
    pub at_ms: i64,
    pub position: i64,
}

/// Where the fold of a scope stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub tenant_id: Uuid,
    pub used: i32,
    pub users: i32,
    /// Time and position of the latest event.
    pub last: (i64, i64),
}

/// Somebody's seats in a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub live: i32,
    /// When the latest time of holding any began.
    pub since: Option<i64>,
    /// When it ended.
    pub left_at: Option<i64>,
}

/// What a page adds to a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub used_before: i32,
    pub used_after: i32,
    pub peak: i32,
    /// Beyond `used_before` held to the end.
    pub more_ms: i64,
    pub acquired: i32,
    pub denied: i32,
    pub released: i32,
    pub expired: i32,
    pub revoked: i32,
    pub users_before: i32,
    pub users_after: i32,
    /// Beyond `users_before`.
    pub more_users: i32,
}

/// A bucket of a scope: scope, length in seconds, beginning in Unix milliseconds.
pub(crate) type Key = (Uuid, i32, i64);

/// A scope whose events came out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub scope_id: Uuid,
    pub tenant_id: Uuid,
    /// The earliest of what is to be told again.
    pub from_ms: i64,
}

/// States before, and the rows that come of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub scopes: HashMap<Uuid, Scope>,
    pub holders: HashMap<(Uuid, Arc<str>), Holder>,
    pub rows: BTreeMap<Key, Row>,
    late: HashMap<Uuid, Late>,
}

/// The beginning of the bucket of a time.
pub(crate) fn floor(at_ms: i64, seconds: i32) -> i64 {
    at_ms - at_ms.rem_euclid(i64::from(seconds) * 1_000)
}

impl Tally {
    /// Adds an event to its license and its tenant. Facts come in the order of (time, position).
    pub fn add(&mut self, fact: &Fact) {
        self.add_to(fact.license_id, fact);
        self.add_to(fact.tenant_id, fact);
    }

    /// Adds an event to one of its scopes.
    pub fn add_to(&mut self, scope_id: Uuid, fact: &Fact) {
        let start = Scope { tenant_id: fact.tenant_id, used: 0, users: 0, last: (i64::MIN, i64::MIN) };
        let scope = self.scopes.entry(scope_id).or_insert(start);
        let here = (fact.at_ms, fact.position);
        if here < scope.last {
            let late = Late { scope_id, tenant_id: scope.tenant_id, from_ms: fact.at_ms };
            let late = self.late.entry(scope_id).or_insert(late);
            late.from_ms = late.from_ms.min(fact.at_ms);
            return;
        }
        scope.last = here;
        let before = *scope;
        let change = fact.act.change();
        let mut held = Holder::default();
        if change != 0 {
            let holder = self.holders.entry((scope_id, fact.user_id.clone())).or_default();
            held = *holder;
            scope.used += change;
            scope.users += holder.change(change, fact.at_ms);
        }
        let after = *scope;
        for seconds in LENGTHS {
            let bucket = floor(fact.at_ms, seconds);
            let row = self
                .rows
                .entry((scope_id, seconds, bucket))
                .or_insert_with(|| Row::begin(&before, fact.at_ms > bucket));
            row.add(fact, &after, change, bucket + i64::from(seconds) * 1_000);
            row.more_users += held.newcomers(change, fact.at_ms, bucket);
        }
    }

    /// The scopes whose events came out of order; nothing of them is left here.
    pub fn take_late(&mut self) -> Vec<Late> {
        let late = std::mem::take(&mut self.late);
        if !late.is_empty() {
            self.scopes.retain(|id, _| !late.contains_key(id));
            self.holders.retain(|(id, _), _| !late.contains_key(id));
            self.rows.retain(|(id, ..), _| !late.contains_key(id));
        }
        late.into_values().collect()
    }
}

impl Holder {
    /// One seat more or less; answers by how many the users who hold any have changed.
    fn change(&mut self, change: i32, at_ms: i64) -> i32 {
        let (before, after) = (self.live > 0, self.live + change > 0);
        self.live += change;
        match (before, after) {
            (false, true) => {
                self.since = Some(at_ms);
                1
            }
            (true, false) => {
                self.left_at = Some(at_ms);
                -1
            }
            _ => 0,
        }
    }

    /// By how many a change, made at a time, changes the number of users of a bucket; `self` is before the change.
    fn newcomers(self, change: i32, at_ms: i64, bucket: i64) -> i32 {
        let (before, after) = (self.live > 0, self.live + change > 0);
        // Held in this bucket already, before a pause.
        let counted =
            self.left_at.is_some_and(|left| left > bucket) || self.since.is_some_and(|since| since >= bucket);
        match (before, after) {
            (false, true) if !counted => 1,
            // Left as the bucket began: held at no time of it.
            (true, false) if at_ms == bucket && self.since.is_none_or(|since| since < bucket) => -1,
            _ => 0,
        }
    }
}

impl Row {
    /// `held_over`: the state before the first event is a state of the bucket.
    fn begin(scope: &Scope, held_over: bool) -> Self {
        Self {
            used_before: scope.used,
            used_after: scope.used,
            peak: if held_over { scope.used } else { i32::MIN },
            users_before: scope.users,
            users_after: scope.users,
            ..Self::default()
        }
    }

    fn add(&mut self, fact: &Fact, after: &Scope, change: i32, end_ms: i64) {
        self.used_after = after.used;
        self.users_after = after.users;
        self.peak = self.peak.max(after.used);
        self.more_ms += i64::from(change) * (end_ms - fact.at_ms);
        *match fact.act {
            Act::Acquired => &mut self.acquired,
            Act::Denied => &mut self.denied,
            Act::Released => &mut self.released,
            Act::Expired => &mut self.expired,
            Act::Revoked => &mut self.revoked,
        } += 1;
    }
}
