//! What a pool's decisions fold into. Cloning is cheap: a batch is decided on a draft.

use std::sync::Arc;

use events::{
    Event, HardwareId, LicenseId, LicenseTerms, PoolAt, Seats, SessionAt, SessionId, Standing, Subject,
    TenantId, Time, UserId,
};
use imbl::{HashMap, OrdSet};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format of [`PoolState::snapshot`]; another one is ignored and the pool folded from its first event.
pub(crate) const SNAPSHOT_FORMAT: i16 = 1;

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who.
    pub user_id: UserId,
    /// Where.
    pub hardware_id: HardwareId,
    /// When it ends if no heartbeat comes, as far as this process knows; the seats table has the last word.
    pub deadline: Time,
}

/// A pool at one of its versions.
#[derive(Debug, Clone)]
pub struct PoolState {
    /// The pool.
    pub license_id: LicenseId,
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Of the latest decision folded.
    pub version: i64,
    /// The terms in force; `None` before version 1.
    pub license: Option<Arc<LicenseTerms>>,
    /// The version at which the terms last changed.
    pub terms_version: i64,
    /// When the license was issued, and when its terms last changed.
    pub terms_times: Option<(Time, Time)>,
    /// As the pool's row said when last read: it is not the pool's own event.
    pub tenant_active: bool,
    sessions: HashMap<SessionId, Session>,
    holders: HashMap<(UserId, HardwareId), SessionId>,
    deadlines: OrdSet<(Time, SessionId)>,
}

/// What a snapshot keeps: sorted, so that folding twice gives the same bytes.
#[derive(Serialize, Deserialize)]
struct Frozen {
    license: Option<LicenseTerms>,
    terms_version: i64,
    terms_times: Option<(Time, Time)>,
    sessions: Vec<(SessionId, Session)>,
}

impl PoolState {
    /// A pool before its first event.
    #[must_use]
    pub fn new(license_id: LicenseId, tenant_id: TenantId) -> Self {
        Self {
            license_id,
            tenant_id,
            version: 0,
            license: None,
            terms_version: 0,
            terms_times: None,
            tenant_active: true,
            sessions: HashMap::new(),
            holders: HashMap::new(),
            deadlines: OrdSet::new(),
        }
    }

    /// Folds one event that occurred at `at`. Heartbeats and ends of sessions that do not live are ignored; deadlines only grow.
    pub fn apply(&mut self, subject: &Subject, event: &Event, at: Time) {
        match event {
            Event::LicenseIssued(terms) => self.license = Some(Arc::new(terms.clone())),
            Event::LicenseUpdated(change) => {
                if let Some(license) = &mut self.license {
                    Arc::make_mut(license).change(change);
                }
            }
            Event::SeatAcquired { deadline, .. } => self.insert(subject, *deadline),
            Event::SeatHeartbeat { deadline } => {
                if let Some(session_id) = subject.session_id {
                    self.extend(session_id, *deadline);
                }
            }
            Event::SeatReleased {} | Event::SeatExpired { .. } | Event::SeatRevoked { .. } => {
                if let Some(session_id) = subject.session_id {
                    self.remove(session_id);
                }
            }
            Event::SeatDenied { .. }
            | Event::TenantCreated(_)
            | Event::TenantUpdated(_)
            | Event::UserAdded { .. }
            | Event::UserUpdated(_)
            | Event::UserRemoved {}
            | Event::SigningKeyCreated { .. }
            | Event::SigningKeyPublished { .. }
            | Event::SigningKeyActivated { .. }
            | Event::SigningKeyRetired { .. } => {}
        }
        if event.is_decision() {
            self.version += 1;
        }
        if matches!(event, Event::LicenseIssued(_) | Event::LicenseUpdated(_)) {
            self.terms_version = self.version;
            self.terms_times = Some((self.terms_times.map_or(at, |(issued, _)| issued), at));
        }
    }

    fn insert(&mut self, subject: &Subject, deadline: Time) {
        let Subject { session_id: Some(session_id), user_id: Some(user_id), hardware_id: Some(hardware_id) } =
            subject.clone()
        else {
            return;
        };
        self.holders.insert((user_id.clone(), hardware_id.clone()), session_id);
        self.deadlines.insert((deadline, session_id));
        self.sessions.insert(session_id, Session { user_id, hardware_id, deadline });
    }

    fn remove(&mut self, session_id: SessionId) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.deadlines.remove(&(session.deadline, session_id));
            self.holders.remove(&(session.user_id, session.hardware_id));
        }
    }

    /// Moves a session's deadline to `deadline`, if that is later.
    pub fn extend(&mut self, session_id: SessionId, deadline: Time) {
        if self.sessions.get(&session_id).is_some_and(|session| session.deadline < deadline) {
            self.stamp(session_id, deadline);
        }
    }

    /// Replaces the deadline that was proposed for a new session by the one that Postgres stamped.
    pub fn stamp(&mut self, session_id: SessionId, deadline: Time) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            self.deadlines.remove(&(session.deadline, session_id));
            self.deadlines.insert((deadline, session_id));
            session.deadline = deadline;
        }
    }

    /// Seats in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        u32::try_from(self.sessions.len()).unwrap_or(u32::MAX)
    }

    /// Whether every seat is taken by a session whose deadline has not passed.
    #[must_use]
    pub fn is_full(&self, now: Time) -> bool {
        let lapsed = u32::try_from(self.lapsed(now).count()).unwrap_or(u32::MAX);
        self.used().saturating_sub(lapsed) >= self.limit().get()
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> Seats {
        self.license.as_ref().map_or_else(Seats::default, |license| license.seats_total)
    }

    /// Whether it accepts at `now`: the rule of `standing` in `schema/`.
    #[must_use]
    pub fn standing(&self, now: Time) -> Standing {
        let Some(license) = &self.license else { return Standing::LicenseInactive };
        if !self.tenant_active {
            Standing::TenantInactive
        } else if !license.active || license.valid_from.is_some_and(|from| from > now) {
            Standing::LicenseInactive
        } else if license.valid_until.is_some_and(|until| until <= now) {
            Standing::LicenseExpired
        } else {
            Standing::Ok
        }
    }

    /// A live session.
    #[must_use]
    pub fn session(&self, session_id: SessionId) -> Option<&Session> {
        self.sessions.get(&session_id)
    }

    /// The live session of a user on a machine.
    #[must_use]
    pub fn held_by(&self, user_id: &UserId, hardware_id: &HardwareId) -> Option<SessionId> {
        self.holders.get(&(user_id.clone(), hardware_id.clone())).copied()
    }

    /// Sessions whose deadline is before `now`, the longest overdue first.
    pub fn lapsed(&self, now: Time) -> impl Iterator<Item = (SessionId, &Session)> {
        self.deadlines
            .iter()
            .take_while(move |(deadline, _)| *deadline < now)
            .filter_map(|(_, session_id)| Some((*session_id, self.sessions.get(session_id)?)))
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.get_min().map(|(deadline, _)| *deadline)
    }

    /// All live sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(session_id, session)| (*session_id, session))
    }

    /// The state as JSON; the same state gives the same bytes.
    ///
    /// # Errors
    /// Never for the types of this state.
    pub fn snapshot(&self) -> Result<Value, serde_json::Error> {
        let mut sessions: Vec<_> = self.sessions().map(|(id, session)| (id, session.clone())).collect();
        sessions.sort_by_key(|(id, _)| *id);
        serde_json::to_value(Frozen {
            license: self.license.as_deref().cloned(),
            terms_version: self.terms_version,
            terms_times: self.terms_times,
            sessions,
        })
    }

    /// A state as a replay found it. Deadlines are unknown to it: the seats table has them.
    #[must_use]
    pub fn found(pool: PoolAt, tenant_id: TenantId) -> Self {
        let mut state = Self::new(pool.license_id, tenant_id);
        state.version = pool.version;
        state.terms_version = pool.license.terms_version;
        state.terms_times = Some((pool.license.created_at, pool.license.updated_at));
        state.license = Some(Arc::new(pool.license.terms));
        for SessionAt { session_id, user_id, hardware_id, started_at } in pool.sessions {
            state.insert(&Subject::holder(session_id, user_id, hardware_id), started_at);
        }
        state
    }

    /// A state out of [`PoolState::snapshot`].
    ///
    /// # Errors
    /// When the JSON is not of this shape.
    pub fn thaw(
        license_id: LicenseId,
        tenant_id: TenantId,
        version: i64,
        state: Value,
    ) -> Result<Self, serde_json::Error> {
        let frozen: Frozen = serde_json::from_value(state)?;
        let mut thawed = Self::new(license_id, tenant_id);
        thawed.license = frozen.license.map(Arc::new);
        thawed.terms_version = frozen.terms_version;
        thawed.terms_times = frozen.terms_times;
        for (session_id, session) in frozen.sessions {
            let subject = Subject::holder(session_id, session.user_id, session.hardware_id);
            thawed.insert(&subject, session.deadline);
        }
        thawed.version = version;
        Ok(thawed)
    }
}
