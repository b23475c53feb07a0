//! The promises, judged from what clients were told and from the log, folded here a second time.

use std::collections::{BTreeMap, HashMap};

use events::{Event, LicenseId, SessionId, TenantId};

use super::client::Client;
use super::referee::{Entry, Referee};
use super::world::at;
use crate::pool::state::PoolState;

/// I1: whoever believes to hold a seat holds one in the log (unless somebody meant it to end).
pub fn believers_hold(
    clients: &[Client],
    log: &Referee,
    given_up: &[SessionId],
    now: i64,
) -> Result<(), String> {
    for client in clients {
        let Some(held) = client.held.filter(|held| held.until > now) else { continue };
        if !log.seats.contains_key(&held.session) && !given_up.contains(&held.session) {
            return Err(format!("I1: {} believes to hold {}, which ended", client.user_id, held.session));
        }
    }
    Ok(())
}

/// A pool that does not accept grants nothing, from the moment of the switch.
pub fn closed_is_closed(log: &Referee) -> Result<(), String> {
    match log.granted_while_closed {
        Some(session) => Err(format!("rule 5: {session} was granted while the pool did not accept")),
        None => Ok(()),
    }
}

/// I2, I4, I10: no grant above the limit in force, versions without gap or repeat, one session a holder.
pub fn log_is_sound(decisions: &[Entry]) -> Result<BTreeMap<SessionId, String>, String> {
    let mut live = BTreeMap::new();
    let mut limit = 0;
    for (index, entry) in decisions.iter().enumerate() {
        let version = index as i64 + 1;
        if entry.version != version {
            return Err(format!("I4: version {} stands where {version} should", entry.version));
        }
        let session = entry.subject.session_id;
        match (&entry.event, session) {
            (Event::LicenseIssued(terms), _) => limit = terms.seats_total.get() as usize,
            (Event::LicenseUpdated(change), _) => {
                limit = change.seats_total.map_or(limit, |seats| seats.get() as usize);
            }
            (Event::SeatAcquired { .. }, Some(session)) => {
                let holder = format!("{:?} {:?}", entry.subject.user_id, entry.subject.hardware_id);
                if live.len() >= limit {
                    return Err(format!("I2: version {version} grants a seat beyond {limit}"));
                }
                if live.values().any(|other| *other == holder) {
                    return Err(format!("I10: version {version} grants {holder} a second seat"));
                }
                live.insert(session, holder);
            }
            (
                Event::SeatReleased {} | Event::SeatExpired { .. } | Event::SeatRevoked { .. },
                Some(session),
            ) if live.remove(&session).is_none() => {
                return Err(format!("I9: version {version} ends {session}, which is not live"));
            }
            _ => {}
        }
    }
    Ok(live)
}

/// I9: an acquire that is repeated with its key, however late, takes no second seat.
pub fn a_key_has_one_session(log: &Referee, keys: &HashMap<SessionId, String>) -> Result<(), String> {
    let mut granted = HashMap::new();
    for session in &log.granted {
        let Some(key) = keys.get(session) else { continue };
        if let Some(other) = granted.insert(key, session) {
            return Err(format!("I9: {key} was granted {session} and {other}"));
        }
    }
    Ok(())
}

/// I5, I6: the fold of the log, the real one and the one here, is what the seats table says; twice the same bytes.
pub fn folds_agree(log: &Referee) -> Result<(), String> {
    let live = log_is_sound(&log.decisions)?;
    let fold = || {
        let mut state = PoolState::new(LicenseId(log.stream_id), TenantId(log.stream_id));
        for entry in &log.decisions {
            state.apply(&entry.subject, &entry.event, at(entry.at));
        }
        state
    };
    let (once, twice) = (fold(), fold());
    if once.snapshot().ok() != twice.snapshot().ok() {
        return Err("I6: folding twice differs".to_owned());
    }
    let mut folded: Vec<_> = once.sessions().map(|(session, _)| session).collect();
    folded.sort();
    if !folded.iter().eq(live.keys()) || !log.seats.keys().eq(live.keys()) {
        return Err(format!("I5: folded {folded:?}, live {:?}, seats {:?}", live.keys(), log.seats.keys()));
    }
    Ok(())
}
