//! The log in memory: the rules of `schema/V18__append.sql` as far as seats are concerned, for one pool.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{
    Appended, Event, HardwareId, LicenseChange, LicenseTerms, NewEvent, Refused, SessionId, Standing,
    StreamWrite, Subject, Time, UserId,
};
use uuid::Uuid;

use super::rules::Rules;
use super::world::{GAP, TTL, at};
use crate::writer::Job;

/// A row of `seats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub user_id: UserId,
    pub hardware_id: HardwareId,
    /// Milliseconds of the log's clock.
    pub deadline: i64,
}

/// A decision as the log holds it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub version: i64,
    pub subject: Subject,
    pub event: Event,
    pub at: i64,
}

/// The log of one pool, and what `append` keeps beside it.
pub struct Referee {
    rules: Rules,
    pub stream_id: Uuid,
    pub decisions: Vec<Entry>,
    pub seats: BTreeMap<SessionId, Seat>,
    pub keys: HashMap<(UserId, String), SessionId>,
    pub tenant_active: bool,
    pub terms: LicenseTerms,
    written: HashMap<Uuid, i64>,
    last_seen: i64,
    recovered_at: i64,
    /// Every session that ever was granted.
    pub granted: HashSet<SessionId>,
    /// A grant was written while the pool did not accept.
    pub granted_while_closed: Option<SessionId>,
    pub conflicts: u64,
    pub repeats: u64,
}

impl Referee {
    pub fn new(rules: Rules, stream_id: Uuid, terms: LicenseTerms, now: i64) -> Self {
        let mut log = Self {
            rules,
            stream_id,
            decisions: Vec::new(),
            seats: BTreeMap::new(),
            keys: HashMap::new(),
            tenant_active: true,
            terms: terms.clone(),
            written: HashMap::new(),
            last_seen: now,
            recovered_at: now - TTL,
            granted: HashSet::new(),
            granted_while_closed: None,
            conflicts: 0,
            repeats: 0,
        };
        log.push(Subject::default(), Event::LicenseIssued(terms), now);
        log
    }

    pub fn version(&self) -> i64 {
        self.decisions.len() as i64
    }

    fn push(&mut self, subject: Subject, event: Event, at: i64) {
        let version = self.version() + 1;
        self.decisions.push(Entry { version, subject, event, at });
    }

    /// Whether the pool accepts.
    pub fn standing(&self) -> Standing {
        if !self.tenant_active {
            Standing::TenantInactive
        } else if !self.terms.active {
            Standing::LicenseInactive
        } else {
            Standing::Ok
        }
    }

    /// An admin's change, which is always decided on the latest version.
    pub fn change(&mut self, change: LicenseChange, now: i64) {
        self.terms.change(&change);
        self.push(Subject::default(), Event::LicenseUpdated(change), now);
    }

    /// A heartbeat of every live session.
    pub fn keep_all(&mut self, now: i64) {
        for seat in self.seats.values_mut() {
            seat.deadline = seat.deadline.max(now + TTL);
        }
    }

    /// A sign of life: after a silence longer than the gap, an outage has ended now.
    pub fn tick(&mut self, now: i64) {
        if now - self.last_seen > GAP {
            self.recovered_at = now;
        }
        self.last_seen = self.last_seen.max(now);
    }

    /// One call of `append`.
    pub fn append(&mut self, job: &Job, now: i64) -> Appended {
        let mut refused = Vec::new();
        for stream in &job.streams {
            if let Some(why) = self.judge(stream, now) {
                refused.extend(why);
            } else {
                for new in &stream.events {
                    self.write(new, now);
                }
            }
        }
        for beat in &job.heartbeats {
            if let Some(before) = self.written.get(&beat.event_id) {
                refused.push(Refused::Written { session: beat.session_id, at: at(*before) });
                continue;
            }
            let standing = self.standing();
            match self.seats.get_mut(&beat.session_id).filter(|seat| seat.user_id == beat.user_id) {
                None => refused.push(Refused::Missing { session: beat.session_id }),
                Some(_) if standing == Standing::TenantInactive => {
                    refused.push(Refused::TenantInactive { session: beat.session_id });
                }
                Some(_) if standing != Standing::Ok => {
                    refused.push(Refused::LicenseInactive { session: beat.session_id });
                }
                Some(seat) => {
                    seat.deadline = seat.deadline.max(now + TTL);
                    self.written.insert(beat.event_id, now);
                    if let Some(key) = &beat.key {
                        self.keys.entry((beat.user_id.clone(), key.key.clone())).or_insert(beat.session_id);
                    }
                }
            }
        }
        Appended { at: at(now), refused }
    }

    /// Why a stream's part is refused, or `None`.
    fn judge(&mut self, stream: &StreamWrite, now: i64) -> Option<Vec<Refused>> {
        let only_denials = stream.events.iter().all(|new| matches!(new.event, Event::SeatDenied { .. }));
        let checked = self.rules.compare_and_set && (self.rules.check_denials || !only_denials);
        let stale = checked && stream.expected != self.version();
        let standing = self.standing();
        let other = self.rules.check_standing && stream.standing.is_some_and(|decided| decided != standing);
        if stale || other {
            let before = stream.events.iter().find_map(|new| self.written.get(&new.event_id));
            return Some(vec![match before {
                Some(before) => {
                    self.repeats += 1;
                    Refused::Already { stream: self.stream_id, at: at(*before) }
                }
                None => {
                    self.conflicts += 1;
                    Refused::Conflict { stream: self.stream_id, version: self.version(), standing }
                }
            }]);
        }
        let too_early: Vec<_> = stream.events.iter().filter_map(|new| self.not_lapsed(new, now)).collect();
        if !too_early.is_empty() {
            return Some(too_early);
        }
        let taken: Vec<_> = stream.events.iter().filter_map(|new| self.key_taken(new)).collect();
        (!taken.is_empty()).then_some(taken)
    }

    fn not_lapsed(&self, new: &NewEvent, now: i64) -> Option<Refused> {
        let Event::SeatExpired { .. } = new.event else { return None };
        let session = new.subject.session_id?;
        let seat = self.seats.get(&session)?;
        let mut until = if self.rules.check_lapsed { seat.deadline } else { i64::MIN };
        if self.rules.wait_after_outage {
            until = until.max(self.recovered_at + TTL);
        }
        let alive = !self.rules.check_beacon || now - self.last_seen <= GAP;
        if alive && now > until {
            return None;
        }
        let until = if alive { until } else { until.max(now + TTL) };
        Some(Refused::NotLapsed { stream: self.stream_id, session, until: at(until) })
    }

    fn key_taken(&self, new: &NewEvent) -> Option<Refused> {
        let (Event::SeatAcquired { .. }, Some(key)) = (&new.event, &new.key) else { return None };
        let owner = self.keys.get(&(new.subject.user_id.clone()?, key.key.clone()))?;
        let session = new.subject.session_id?;
        (*owner != session).then_some(Refused::KeyTaken { stream: self.stream_id, session })
    }

    fn write(&mut self, new: &NewEvent, now: i64) {
        self.written.insert(new.event_id, now);
        let mut event = new.event.clone();
        match (&mut event, new.subject.session_id) {
            (Event::SeatDenied { .. }, _) => return,
            (Event::SeatAcquired { deadline, .. }, Some(session)) => {
                *deadline = at(now + TTL);
                let (Some(user_id), Some(hardware_id)) =
                    (new.subject.user_id.clone(), new.subject.hardware_id.clone())
                else {
                    return;
                };
                if let (Some(key), true) = (&new.key, self.rules.record_keys) {
                    self.keys.insert((user_id.clone(), key.key.clone()), session);
                }
                if self.standing() != Standing::Ok {
                    self.granted_while_closed = Some(session);
                }
                self.granted.insert(session);
                self.seats.insert(session, Seat { user_id, hardware_id, deadline: now + TTL });
            }
            (
                Event::SeatReleased {} | Event::SeatExpired { .. } | Event::SeatRevoked { .. },
                Some(session),
            ) => {
                self.seats.remove(&session);
            }
            _ => {}
        }
        self.push(new.subject.clone(), event, now);
    }

    /// When a session ends if no heartbeat comes.
    pub fn deadline(&self, session: SessionId) -> Option<Time> {
        self.seats.get(&session).map(|seat| at(seat.deadline))
    }
}
