//! `decide` and `apply` against a model that a child could check: a list of holders and a limit.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::time::Duration;

use actors::{Command, PoolState, Reason, Refusal, decide};
use events::{
    Event, HardwareId, LicenseChange, LicenseId, LicenseTerms, Product, Seats, SessionId, Standing, Subject,
    TenantId, Time, UserId,
};
use proptest::prelude::*;
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(10);

/// What somebody does to the pool.
#[derive(Debug, Clone)]
enum Act {
    Acquire { user: u8, machine: u8 },
    Release { user: u8, nth: usize },
    Heartbeat { nth: usize },
    Revoke { nth: usize },
    Limit(u8),
    Active(bool),
    Pass(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0..6u8, 0..2u8).prop_map(|(user, machine)| Act::Acquire { user, machine }),
        2 => (0..6u8, 0..8usize).prop_map(|(user, nth)| Act::Release { user, nth }),
        3 => (0..8usize).prop_map(|nth| Act::Heartbeat { nth }),
        1 => (0..8usize).prop_map(|nth| Act::Revoke { nth }),
        1 => (0..5u8).prop_map(Act::Limit),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Act::Active),
        2 => (0..8u8).prop_map(Act::Pass),
    ]
}

fn user(n: u8) -> UserId {
    UserId::new(format!("user-{n}")).unwrap()
}

fn machine(n: u8) -> HardwareId {
    HardwareId::new(format!("machine-{n}")).unwrap()
}

fn terms(seats: i64) -> LicenseTerms {
    LicenseTerms {
        product: Product::new("coditect").unwrap(),
        plan: "team".to_owned(),
        seats_total: Seats::new(seats).unwrap(),
        active: true,
        features: Vec::new(),
        valid_from: None,
        valid_until: None,
        offline_grace_seconds: None,
    }
}

fn at(millis: i64) -> Time {
    Time::from_millis(1_790_000_000_000 + millis).unwrap()
}

fn pool(seats: i64) -> PoolState {
    let mut state = PoolState::new(LicenseId::mint(), TenantId::mint());
    state.apply(&Subject::default(), &Event::LicenseIssued(terms(seats)), at(0));
    state
}

/// The model.
#[derive(Debug, Clone)]
struct Holder {
    session: SessionId,
    user: u8,
    machine: u8,
    deadline: Time,
}

/// Decides, applies what was decided, and answers it.
fn go(state: &mut PoolState, command: &Command, now: Time) -> Result<Vec<Event>, Refusal> {
    let proposed = decide(state, command, now, TTL)?;
    let mut events = Vec::new();
    for (subject, event) in proposed {
        state.apply(&subject, &event, now);
        events.push(event);
    }
    Ok(events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_pool_does_what_the_model_says(acts in prop::collection::vec(act(), 1..120), seats in 0..4i64) {
        let mut state = pool(seats);
        let (mut holders, mut limit, mut active, mut now) = (Vec::<Holder>::new(), seats as u32, true, at(1));
        let mut ended: Vec<SessionId> = Vec::new();
        for act in acts {
            // Whoever is overdue goes first, as in every batch.
            let expired = go(&mut state, &Command::Expire { overdue: false }, now).unwrap();
            let overdue: Vec<_> = holders.iter().filter(|one| one.deadline < now).map(|one| one.session).collect();
            prop_assert_eq!(expired.len(), overdue.len());
            holders.retain(|one| one.deadline >= now);
            ended.extend(overdue);
            let nth = |n: usize| holders.get(n).map_or_else(
                || ended.get(n).copied().unwrap_or(SessionId(Uuid::nil())), |one| one.session);
            match act {
                Act::Acquire { user: u, machine: m } => {
                    let session_id = SessionId::mint();
                    let command = Command::Acquire {
                        session_id, user_id: user(u), hardware_id: machine(m), machine_name: None, key: None,
                        renews: None,
                    };
                    let result = go(&mut state, &command, now);
                    let held = holders.iter_mut().find(|one| (one.user, one.machine) == (u, m));
                    if !active {
                        let inactive = Refusal::Denied(Reason::Standing(Standing::LicenseInactive));
                        prop_assert_eq!(result, Err(inactive));
                    } else if let Some(held) = held {
                        prop_assert_eq!(result.unwrap(), vec![Event::SeatHeartbeat { deadline: now.after(TTL) }]);
                        held.deadline = now.after(TTL);
                    } else if holders.len() as u32 >= limit {
                        prop_assert_eq!(result, Err(Refusal::Denied(Reason::NoSeatsAvailable)));
                    } else {
                        let events = result.unwrap();
                        let used = holders.len() as u32 + 1;
                        let granted = matches!(&events[..],
                            [Event::SeatAcquired { seats_used, seats_total, .. }]
                                if *seats_used == used && seats_total.get() == limit);
                        prop_assert!(granted, "{:?}", events);
                        holders.push(Holder { session: session_id, user: u, machine: m, deadline: now.after(TTL) });
                    }
                }
                Act::Release { user: u, nth: n } => {
                    let session_id = nth(n);
                    let command = Command::Release { session_id, user_id: user(u), give_back: false, forget: None };
                    let result = go(&mut state, &command, now);
                    if holders.iter().any(|one| one.session == session_id && one.user == u) {
                        prop_assert_eq!(result.unwrap(), vec![Event::SeatReleased {}]);
                        holders.retain(|one| one.session != session_id);
                        ended.push(session_id);
                    } else {
                        prop_assert_eq!(result, Err(Refusal::NotHeld));
                    }
                }
                Act::Heartbeat { nth: n } => {
                    let session_id = nth(n);
                    // No command: it goes past the pool, which is told once it is written.
                    state.extend(session_id, now.after(TTL));
                    // A heartbeat of a session that has ended brings nothing back.
                    if let Some(held) = holders.iter_mut().find(|one| one.session == session_id) {
                        held.deadline = now.after(TTL);
                    }
                }
                Act::Revoke { nth: n } => {
                    let session_id = nth(n);
                    let command = Command::Revoke { session_id, by: "admin".to_owned(), reason: "test".to_owned() };
                    let held = holders.iter().any(|one| one.session == session_id);
                    prop_assert_eq!(go(&mut state, &command, now).is_ok(), held);
                    if held {
                        holders.retain(|one| one.session != session_id);
                        ended.push(session_id);
                    }
                }
                Act::Limit(n) => {
                    let change = LicenseChange { seats_total: Some(Seats::new(n.into()).unwrap()), ..Default::default() };
                    go(&mut state, &Command::ChangeLicense { change, if_version: None }, now).unwrap();
                    limit = n.into();
                }
                Act::Active(on) => {
                    let change = LicenseChange { active: Some(on), ..Default::default() };
                    go(&mut state, &Command::ChangeLicense { change, if_version: None }, now).unwrap();
                    active = on;
                }
                Act::Pass(seconds) => now = now.after(Duration::from_secs(seconds.into())),
            }
            prop_assert_eq!(state.used() as usize, holders.len());
            prop_assert_eq!(state.next_deadline(), holders.iter().map(|one| one.deadline).min());
            for one in &holders {
                prop_assert_eq!(state.held_by(&user(one.user), &machine(one.machine)), Some(one.session));
            }
        }
    }

    #[test]
    fn a_snapshot_thaws_to_the_same_bytes(users in prop::collection::btree_set(0..50u8, 0..30)) {
        let mut state = pool(100);
        for u in users {
            let command = Command::Acquire {
                session_id: SessionId::mint(), user_id: user(u), hardware_id: machine(0), machine_name: None, key: None,
                renews: None,
            };
            go(&mut state, &command, at(i64::from(u))).unwrap();
        }
        let frozen = state.snapshot().unwrap();
        let thawed = PoolState::thaw(state.license_id, state.tenant_id, state.version, frozen.clone()).unwrap();
        prop_assert_eq!(serde_json::to_string(&frozen).unwrap(), serde_json::to_string(&thawed.snapshot().unwrap()).unwrap());
        prop_assert_eq!((state.used(), state.version), (thawed.used(), thawed.version));
        prop_assert_eq!(state.next_deadline(), thawed.next_deadline());
    }
}

#[test]
fn a_license_that_is_not_valid_now_refuses_with_its_own_word() {
    let command = Command::Acquire {
        session_id: SessionId::mint(),
        user_id: user(1),
        hardware_id: machine(1),
        machine_name: None,
        key: None,
        renews: None,
    };
    let refused = |state: &PoolState| decide(state, &command, at(1_000), TTL).unwrap_err();
    let mut state = pool(1);
    state.tenant_active = false;
    assert_eq!(refused(&state), Refusal::Denied(Reason::Standing(Standing::TenantInactive)));

    for (from, until, standing) in [
        (Some(at(1_001)), None, Standing::LicenseInactive),
        (None, Some(at(1_000)), Standing::LicenseExpired),
        (Some(at(0)), Some(at(999)), Standing::LicenseExpired),
    ] {
        let mut state = pool(1);
        let change = LicenseChange { valid_from: Some(from), valid_until: Some(until), ..Default::default() };
        state.apply(&Subject::default(), &Event::LicenseUpdated(change), at(1));
        assert_eq!(refused(&state), Refusal::Denied(Reason::Standing(standing)));
    }
}

#[test]
fn a_repeat_renews_its_session_and_never_takes_another() {
    let mut state = pool(5);
    let (first, other) = (SessionId::mint(), SessionId::mint());
    let acquire = |session_id, renews| Command::Acquire {
        session_id,
        user_id: user(1),
        hardware_id: machine(1),
        machine_name: None,
        key: None,
        renews,
    };
    let repeat = acquire(SessionId::mint(), Some(first));
    assert_eq!(decide(&state, &repeat, at(1), TTL), Err(Refusal::NotHeld), "it never was there");
    go(&mut state, &acquire(first, None), at(1)).unwrap();
    assert_eq!(
        go(&mut state, &repeat, at(2)).unwrap(),
        [Event::SeatHeartbeat { deadline: at(2).after(TTL) }]
    );
    go(
        &mut state,
        &Command::Revoke { session_id: first, by: "admin".to_owned(), reason: String::new() },
        at(3),
    )
    .unwrap();
    assert_eq!(decide(&state, &repeat, at(4), TTL), Err(Refusal::NotHeld), "it has ended");
    go(&mut state, &acquire(other, None), at(5)).unwrap();
    assert_eq!(decide(&state, &repeat, at(6), TTL), Err(Refusal::NotHeld), "the holder has another now");
}

#[test]
fn a_change_based_on_an_older_version_is_stale() {
    let mut state = pool(1);
    let change = LicenseChange { plan: Some("large".to_owned()), ..Default::default() };
    let command = |if_version| Command::ChangeLicense { change: change.clone(), if_version };
    go(&mut state, &command(Some(1)), at(1)).unwrap();
    assert_eq!(decide(&state, &command(Some(1)), at(2), TTL), Err(Refusal::Stale));
    assert!(decide(&state, &command(Some(2)), at(2), TTL).is_ok());
    assert!(decide(&state, &command(None), at(2), TTL).is_ok());
}
