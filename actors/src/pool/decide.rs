//! Yes, or why not. Pure: no clock, no I/O.

use std::time::Duration;

use events::{Event, LicenseChange, Subject, Time};

use super::command::{Command, Reason};
use super::state::PoolState;

/// Most sessions that one batch ends for their deadline; the rest follow in the next.
const MAX_EXPIRIES: usize = 500;

/// A fact that a command would bring about.
pub type Proposed = (Subject, Event);

/// Why a command brings nothing about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An acquire is turned down, and that is a fact of its own.
    Denied(Reason),
    /// No live session of that id and user, as far as this state knows.
    NotHeld,
    /// The license has changed since the version that the admin saw.
    Stale,
}

/// What a command does to a pool at `now`. Deadlines proposed here are replaced by Postgres's own.
///
/// # Errors
/// A [`Refusal`]; the state stays as it is.
pub fn decide(
    state: &PoolState,
    command: &Command,
    now: Time,
    ttl: Duration,
) -> Result<Vec<Proposed>, Refusal> {
    match command {
        Command::Acquire { session_id, user_id, hardware_id, machine_name, renews, .. } => {
            let standing = state.standing(now);
            if standing != events::Standing::Ok {
                return Err(Refusal::Denied(Reason::Standing(standing)));
            }
            let held = state.held_by(user_id, hardware_id);
            // A late repeat would take a seat for nobody, should the session that it was granted have ended.
            if renews.is_some() && *renews != held {
                return Err(Refusal::NotHeld);
            }
            if let Some(held) = held {
                let subject = Subject::holder(held, user_id.clone(), hardware_id.clone());
                return Ok(vec![(subject, Event::SeatHeartbeat { deadline: now.after(ttl) })]);
            }
            if state.used() >= state.limit().get() {
                return Err(Refusal::Denied(Reason::NoSeatsAvailable));
            }
            let subject = Subject::holder(*session_id, user_id.clone(), hardware_id.clone());
            let acquired = Event::SeatAcquired {
                seats_used: state.used() + 1,
                seats_total: state.limit(),
                deadline: now.after(ttl),
                machine_name: machine_name.clone(),
            };
            Ok(vec![(subject, acquired)])
        }
        Command::Release { session_id, user_id, .. } => match state.session(*session_id) {
            Some(session) if session.user_id == *user_id => {
                let subject = Subject::holder(*session_id, user_id.clone(), session.hardware_id.clone());
                Ok(vec![(subject, Event::SeatReleased {})])
            }
            _ => Err(Refusal::NotHeld),
        },
        Command::Revoke { session_id, by, reason } => match state.session(*session_id) {
            Some(session) => {
                let subject =
                    Subject::holder(*session_id, session.user_id.clone(), session.hardware_id.clone());
                let by = events::RevokedBy(by.clone());
                Ok(vec![(subject, Event::SeatRevoked { by, reason: reason.clone() })])
            }
            None => Err(Refusal::NotHeld),
        },
        Command::Expire { .. } => Ok(state
            .lapsed(now)
            .take(MAX_EXPIRIES)
            .map(|(session_id, session)| {
                let subject =
                    Subject::holder(session_id, session.user_id.clone(), session.hardware_id.clone());
                (subject, Event::SeatExpired { deadline: session.deadline })
            })
            .collect()),
        Command::ChangeLicense { change, if_version } => {
            if if_version.is_some_and(|seen| seen != state.terms_version) {
                return Err(Refusal::Stale);
            }
            // What is in force already is no change, and no event.
            let change = match &state.license {
                Some(license) => license.difference(change.clone()),
                None => change.clone(),
            };
            if change == LicenseChange::default() {
                return Ok(Vec::new());
            }
            Ok(vec![(Subject::default(), Event::LicenseUpdated(change))])
        }
    }
}

impl Reason {
    /// The fact that an acquire was turned down.
    #[must_use]
    pub fn denial(self, state: &PoolState) -> Event {
        Event::SeatDenied {
            reason: self.as_str().to_owned(),
            seats_used: state.used(),
            seats_total: state.limit(),
        }
    }
}
