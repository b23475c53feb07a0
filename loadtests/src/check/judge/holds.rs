//! I1 and I10: who holds a seat, as the clients know it.
//!
//! An answer "granted", "renewed" or "ok" holds from its arrival until its time to live has passed since the request was **sent**
//! (the protocol's rule 6), and no longer than until the session's release was sent, its revocation was asked for, or its
//! holder was told that it has ended. At every instant of such a time the server must still count the seat as taken, so
//! whatever the clients hold together the server has granted together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::history::{Act, Call, History, Moment};
use super::super::report::{Verdict, Violation};
use super::Folded;
use super::limits::Limits;

/// A session's hold begins, or is over.
type Turn<'a> = (Moment, bool, &'a String);

/// What the clients know of one session.
pub(super) struct Held {
    pub pool: (String, String),
    pub user: String,
    pub machine: String,
    /// The grant was decided between these.
    pub decided: (Moment, Moment),
    /// When an answer held: from its arrival, until its time had passed.
    pub spans: Vec<(Moment, Moment)>,
    /// From here on nobody counts on it.
    pub cut: Moment,
    pub ttl: Duration,
}

impl Held {
    /// Spans that do not overlap, none of them beyond the cut.
    pub fn spans(&self) -> Vec<(Moment, Moment)> {
        let mut spans: Vec<_> = self.spans.iter().map(|(from, to)| (*from, (*to).min(self.cut))).collect();
        spans.retain(|(from, to)| from < to);
        spans.sort();
        let mut joined: Vec<(Moment, Moment)> = Vec::new();
        for (from, to) in spans {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        joined
    }
}

/// All sessions that any client was told of.
pub(super) fn all_held(history: &History) -> BTreeMap<String, Held> {
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    for call in &history.calls {
        if let (Act::Acquire { product, machine, .. }, Some(body)) = (&call.act, call.ok())
            && let Some(session) = body["session_id"].as_str()
        {
            let ttl = body["session_ttl_seconds"].as_u64().map_or(history.ttl, Duration::from_secs);
            let granted = body["status"] == "granted";
            let entry = held.entry(session.to_owned()).or_insert_with(|| Held {
                pool: (call.tenant.clone(), product.clone()),
                user: call.user.clone(),
                machine: machine.clone(),
                decided: (if granted { call.sent } else { first_wish(history, call) }, call.done),
                spans: Vec::new(),
                cut: Moment(u64::MAX),
                ttl,
            });
            if granted {
                // This very call was the one that was decided.
                entry.decided = (call.sent, call.done);
            }
            entry.spans.push((call.done, call.sent.after(ttl)));
        }
    }
    for call in &history.calls {
        let Some((session, cut)) = cut_by(call) else {
            if let (Act::Heartbeat { session }, Some(_)) = (&call.act, call.ok())
                && let Some(entry) = held.get_mut(session)
            {
                entry.spans.push((call.done, call.sent.after(entry.ttl)));
            }
            continue;
        };
        if let Some(entry) = held.get_mut(session) {
            entry.cut = entry.cut.min(cut);
        }
    }
    cut_by_removals(history, &mut held);
    held
}

/// Removing a user ends what it held, from the request on. An attempt whose outcome is unknown may take effect at any
/// time, also after the user was added again.
fn cut_by_removals(history: &History, held: &mut BTreeMap<String, Held>) {
    for call in &history.calls {
        let Act::RemoveUser { removed } = &call.act else { continue };
        if call.refused().is_some() {
            continue;
        }
        let until = if call.unknown() { Moment(u64::MAX) } else { call.done };
        for entry in held.values_mut() {
            if &entry.user == removed && entry.pool.0 == call.tenant && entry.decided.0 <= until {
                entry.cut = entry.cut.min(call.sent);
            }
        }
    }
}

/// The session whose hold this call ends, and from when on.
fn cut_by(call: &Call) -> Option<(&String, Moment)> {
    match &call.act {
        Act::Release { session } => Some((session, call.sent)),
        Act::Revoke { session } if call.refused().is_none() => Some((session, call.sent)),
        Act::Heartbeat { session }
            if matches!(call.refused(), Some("session_ended" | "session_not_found")) =>
        {
            Some((session, call.done))
        }
        _ => None,
    }
}

/// The first acquire of this holder that may have been the one that was granted.
fn first_wish(history: &History, told: &Call) -> Moment {
    let same = |call: &&Call| match (&call.act, &told.act) {
        (Act::Acquire { product, machine, .. }, Act::Acquire { product: p, machine: m, .. }) => {
            product == p && machine == m && call.user == told.user && call.tenant == told.tenant
        }
        _ => false,
    };
    let wishes = history.calls.iter().filter(same).filter(|call| call.refused().is_none());
    wishes.map(|call| call.sent).min().unwrap_or(told.sent).min(told.sent)
}

/// I1.
///
/// The latest of the grants that are held at an instant was decided while all the others were live, so together they
/// were no more than the limit of that moment allowed. It was decided no earlier than the latest of them was asked
/// for, and no later than the latest answer came.
pub(super) fn within_the_limit(history: &History) -> Verdict {
    let limits = Limits::of(history);
    let held = all_held(history);
    let mut pools: BTreeMap<&(String, String), Vec<Turn<'_>>> = BTreeMap::new();
    for (session, entry) in &held {
        for (from, to) in entry.spans() {
            let events = pools.entry(&entry.pool).or_default();
            events.push((from, true, session));
            events.push((to, false, session));
        }
    }
    let (mut checked, mut most_held, mut violations, mut unknown) = (0, 0, Vec::new(), BTreeSet::new());
    for (pool, mut events) in pools {
        // What ends at an instant is gone when the next begins.
        events.sort_by_key(|(at, begins, _)| (*at, *begins));
        let mut now: BTreeSet<&String> = BTreeSet::new();
        for (at, begins, session) in events {
            if !begins {
                now.remove(session);
                continue;
            }
            now.insert(session);
            checked += 1;
            most_held = most_held.max(now.len());
            let from = now.iter().map(|s| held[*s].decided.0).max().unwrap_or(at);
            let to = now.iter().map(|s| held[*s].decided.1).max().unwrap_or(at);
            let Some(most) = limits.most(pool, from, to) else {
                unknown.insert(format!("the limit of {} of tenant {} is not known", pool.1, pool.0));
                continue;
            };
            if now.len() > most as usize {
                violations.push(
                    Violation::new(format!("{} clients hold a seat, {most} may", now.len()))
                        .with("at", at)
                        .with("tenant", &pool.0)
                        .with("product", &pool.1)
                        .with("sessions", now.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")),
                );
            }
        }
    }
    let mut notes = vec![format!("most held at once in a pool: {most_held}")];
    notes.extend(unknown);
    Verdict::of(checked, violations, notes)
}

/// I10: by what clients hold, and by the log.
pub(super) fn one_session_a_holder(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let held = all_held(history);
    let mut holders: BTreeMap<_, Vec<(Moment, Moment, &String)>> = BTreeMap::new();
    for (session, entry) in &held {
        let spans = holders.entry((&entry.pool, &entry.user, &entry.machine)).or_default();
        spans.extend(entry.spans().into_iter().map(|(from, to)| (from, to, session)));
    }
    let (mut checked, mut violations) = (0, Vec::new());
    for ((pool, user, machine), mut spans) in holders {
        spans.sort();
        checked += spans.len() as u64;
        for pair in spans.windows(2) {
            let [(_, until, one), (from, _, other)] = pair else { continue };
            if one != other && from < until {
                violations.push(
                    Violation::new("one user holds two sessions on one machine")
                        .with("sessions", format!("{one} {other}"))
                        .with("holder", format!("{user} {machine}"))
                        .with("product", &pool.1)
                        .with("at", from),
                );
            }
        }
    }
    let mut notes = Vec::new();
    match folded {
        Some(folded) => {
            violations.extend(super::log_order::twins(folded));
            checked += folded.fold.sessions.len() as u64;
        }
        None => notes.push(format!("not in the log: {}", super::NO_LOG)),
    }
    Verdict::of(checked, violations, notes)
}
