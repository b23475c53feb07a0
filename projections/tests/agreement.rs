//! What usage and denials say equals a naive fold of the events, for any history, in pages of any size, and although
//! transactions become visible in another order than the one in which they were given their times.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::HashMap;

use events::{Event, EventFilter, Position, Recorded, SessionId};
use projections::{Bucket, DenialFilter, UsageItem, UsageRange};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use support::{Pool, Told, World, at};
use uuid::Uuid;

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
const USERS: [&str; 4] = ["ada", "bob", "eve", "kim"];

/// One step of a history: how far time goes on, whose pool, who, and what.
type Move = (u8, bool, usize, u8, u8);

fn moves() -> impl Strategy<Value = (Vec<Move>, i64)> {
    (prop::collection::vec((0..8u8, any::<bool>(), 0..USERS.len(), 0..10u8, 0..4u8), 1..60), 1..12i64)
}

/// Time after a step: within the millisecond, a little later, or exactly where buckets begin.
fn later(now: i64, step: u8) -> i64 {
    match step {
        0 | 1 => now,
        2 => now + 1,
        3 => now + 17_345,
        4 => (now / MINUTE + 1) * MINUTE,
        5 => now + 3_600_007,
        6 => (now / DAY + 1) * DAY,
        _ => now + 7 * MINUTE,
    }
}

/// The history's transactions, in the order in which they are written.
fn history(moves: &[Move], pools: [Pool; 2], start: i64) -> Vec<Vec<Told>> {
    let mut now = start;
    let mut live: [Vec<(SessionId, &str)>; 2] = [Vec::new(), Vec::new()];
    let mut transactions: Vec<Vec<Told>> = Vec::new();
    for &(step, second, user, what, together) in moves {
        now = later(now, step);
        let (pool, live) = (pools[usize::from(second)], &mut live[usize::from(second)]);
        let user = USERS[user];
        let told = match what {
            0..=3 => {
                let session = SessionId::mint();
                live.push((session, user));
                pool.acquired(session, user, at(now))
            }
            4 => pool.denied(user, at(now)),
            5 => pool.license_updated(json!({"seats_total": 1 + now % 9}), at(now)),
            6 if now % 2 == 0 => pool.license_updated(json!({"active": now % 3 == 0}), at(now)),
            _ if live.is_empty() => pool.denied(user, at(now)),
            _ => {
                let (session, user) = live.remove(usize::from(step) % live.len());
                match what {
                    7 => pool.expired(session, user, at(now)),
                    8 => pool.revoked(session, user, at(now)),
                    _ => pool.released(session, user, at(now)),
                }
            }
        };
        match transactions.last_mut() {
            Some(last) if together > 0 => last.push(told),
            _ => transactions.push(vec![told]),
        }
    }
    // Neighbours that share no stream may have been given their times in the other order.
    for n in (1..transactions.len()).step_by(2) {
        let streams = |n: usize| transactions[n].iter().map(|told| told.stream_id).collect::<Vec<_>>();
        if streams(n).iter().all(|stream| !streams(n - 1).contains(stream)) {
            transactions.swap(n - 1, n);
        }
    }
    transactions
}

#[derive(Default)]
struct Naive {
    live: HashMap<Uuid, String>,
    limits: HashMap<Uuid, (i64, bool)>,
}

impl Naive {
    fn users(&self) -> Vec<&str> {
        self.live.values().map(String::as_str).collect()
    }

    fn apply(&mut self, one: &Recorded) {
        let session = one.subject.session_id.map(|id| id.0);
        let user = || one.subject.user_id.as_ref().unwrap().as_str().to_owned();
        match &one.event {
            Event::SeatAcquired { .. } => {
                self.live.insert(session.unwrap(), user());
            }
            Event::SeatReleased {} | Event::SeatExpired { .. } | Event::SeatRevoked { .. } => {
                self.live.remove(&session.unwrap());
            }
            Event::LicenseIssued(terms) => {
                self.limits.insert(one.stream_id, (i64::from(terms.seats_total.get()), terms.active));
            }
            Event::LicenseUpdated(change) => {
                let limit = self.limits.get_mut(&one.stream_id).unwrap();
                limit.0 = change.seats_total.map_or(limit.0, |seats| i64::from(seats.get()));
                limit.1 = change.active.unwrap_or(limit.1);
            }
            _ => {}
        }
    }
}

/// One bucket, told the long way.
fn naive(events: &[&Recorded], begin: i64, end: i64, of_one: bool) -> (i64, i64, f64, [i64; 5], i64) {
    let mut state = Naive::default();
    let before = events.iter().take_while(|one| one.occurred_at.millis() < begin).count();
    events[..before].iter().for_each(|one| state.apply(one));
    let inside: Vec<_> = events[before..].iter().take_while(|one| one.occurred_at.millis() < end).collect();
    let is_seat = |one: &&&&Recorded| one.event.name().starts_with("seat_");
    let mut peak = i64::MIN;
    // Whoever leaves as the bucket begins held nothing in it.
    let mut seen: Vec<String> = Vec::new();
    let (mut clock, mut area) = (begin, 0);
    if inside.iter().find(is_seat).is_none_or(|one| one.occurred_at.millis() > begin) {
        peak = i64::try_from(state.live.len()).unwrap();
    }
    let mut counts = [0; 5];
    let names = ["seat_acquired", "seat_denied", "seat_released", "seat_expired", "seat_revoked"];
    for one in &inside {
        let now = one.occurred_at.millis();
        let held = i64::try_from(state.live.len()).unwrap();
        if now > clock {
            seen.extend(state.users().into_iter().map(str::to_owned));
        }
        area += held * (now - clock);
        clock = now;
        let was = state.users().into_iter().map(str::to_owned).collect::<Vec<_>>();
        state.apply(one);
        if one.event.name() == "seat_acquired" {
            let user = one.subject.user_id.as_ref().unwrap().as_str().to_owned();
            if !was.contains(&user) {
                seen.push(user);
            }
        }
        if one.event.name().starts_with("seat_") {
            peak = peak.max(i64::try_from(state.live.len()).unwrap());
        }
        if let Some(n) = names.iter().position(|name| *name == one.event.name()) {
            counts[n] += 1;
        }
    }
    area += i64::try_from(state.live.len()).unwrap() * (end - clock);
    seen.extend(state.users().into_iter().map(str::to_owned));
    seen.sort();
    seen.dedup();
    let total = state.limits.values().filter(|(_, active)| *active || of_one).map(|(seats, _)| seats).sum();
    let unique = i64::try_from(seen.len()).unwrap();
    (total, peak, area as f64 / (end - begin) as f64, counts, unique)
}

fn shown(item: &UsageItem) -> (i64, i64, f64, [i64; 5], i64) {
    let counts = [item.acquired, item.denied, item.released, item.expired, item.revoked];
    (item.seats_total, item.peak, item.average, counts, item.unique_users)
}

async fn check(world: &World, moves: &[Move], page: i64) {
    let start = at(1_767_225_600_000 + 12_345); // 2026-01-01, a little after midnight.
    let pool = world.pool(5, start).await;
    let pools = [pool, world.another(pool, "render", 4, start).await];
    for transaction in history(moves, pools, start.millis()) {
        world.tell(&transaction).await;
        if page % 3 == 0 {
            // A runner that follows closely.
            world.fold(page).await;
        }
    }
    world.fold(page).await;
    let mut events = world
        .log
        .read_tenant(pool.tenant_id, Position::default(), &EventFilter::default(), 10_000)
        .await
        .unwrap();
    events.sort_by_key(|one| (one.occurred_at, one.cursor.position.position));
    check_usage(world, pools, &events).await;
    check_denials(world, pool, &events).await;
}

async fn check_usage(world: &World, pools: [Pool; 2], events: &[Recorded]) {
    let first = events.first().unwrap().occurred_at;
    let last = events.last().unwrap().occurred_at.millis();
    for license in [None, Some(pools[0].license_id), Some(pools[1].license_id)] {
        let of_scope: Vec<_> =
            events.iter().filter(|one| license.is_none_or(|id| one.stream_id == id.0)).collect();
        for (bucket, length) in [(Bucket::Minute, MINUTE), (Bucket::Hour, 60 * MINUTE), (Bucket::Day, DAY)] {
            let to = at((last + 2 * length).min(first.millis() + 4_000 * length));
            let range = UsageRange { bucket, from: first, to, license_id: license };
            let usage = world.models.usage(pools[0].tenant_id, &range).await.unwrap();
            for item in usage.items() {
                let told = naive(&of_scope, item.from.millis(), item.to.millis(), license.is_some());
                let shown = shown(&item);
                assert!((told.2 - shown.2).abs() < 1e-6, "{bucket:?} {license:?} {item:?} {told:?}");
                assert_eq!(
                    (told.0, told.1, told.3, told.4),
                    (shown.0, shown.1, shown.3, shown.4),
                    "{bucket:?} {license:?} {item:?}"
                );
            }
        }
    }
}

async fn check_denials(world: &World, pool: Pool, events: &[Recorded]) {
    let shown = world.models.denials(pool.tenant_id, &DenialFilter::default(), None, 1_000).await.unwrap();
    let denied: Vec<_> =
        events.iter().enumerate().filter(|(_, one)| one.event.name() == "seat_denied").collect();
    assert_eq!(shown.items.len(), denied.len());
    for ((n, denied), shown) in denied.into_iter().zip(&shown.items) {
        let next = events[n + 1..].iter().find(|one| {
            one.event.name() == "seat_acquired"
                && one.subject.user_id == denied.subject.user_id
                && one.stream_id == denied.stream_id
        });
        let after = next.map(|one| (one.occurred_at.millis() - denied.occurred_at.millis()) as f64 / 1_000.0);
        assert_eq!((shown.event_id, shown.granted_after_seconds), (denied.event_id, after));
    }
}

#[test]
fn any_history_is_told_as_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 30, ..Config::default() });
    runner
        .run(&moves(), |(moves, page)| {
            runtime.block_on(check(&world, &moves, page));
            Ok(())
        })
        .unwrap();
}
