//! Redis, Postgres or both gone for long: what clients are told meanwhile, and what is left when they are back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use faults::{Account, Seen, Stand, Trial};
use loadtests::check::{Act, Call, Moment};
use serde_json::json;

use crate::{MILLIS, SECOND};

/// The service gives up a decision after 0.9 s. Twice the second that is promised, because other tests run beside this one.
const PROMPT: Duration = Duration::from_secs(2);

/// Without Redis the slowest answers may take this many times as long as with it: the same order, on a busy machine.
const SAME_ORDER: u32 = 4;

/// More memory than that, in KiB, would be a pile of waiting requests.
const MOST_GROWTH_KIB: u64 = 96 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_gone_for_long() -> Result<()> {
    let fault = "Redis gone for 3 TTL";
    let seen = Trial::new("redis_gone_for_long", fault, 11 * SECOND)
        .run(async |stand, _| {
            stand.redis.stop_immediately().await?;
            tokio::time::sleep(9 * SECOND).await;
            let up = stand.metric("license_redis_up").await;
            ensure!(up == 0.0, "license_redis_up is {up} in sum");
            for replica in &stand.replicas {
                let ready = reqwest::get(format!("{}/ready", replica.url)).await?;
                let (status, body) = (ready.status().as_u16(), ready.text().await?);
                ensure!(status == 200 && body.contains("degraded"), "/ready: {status} {body}");
            }
            stand.redis.start_again().await?;
            tokio::time::sleep(SECOND).await;
            Ok("license_redis_up 0, /ready 200 degraded".to_owned())
        })
        .await?;
    let meanwhile: Vec<_> = seen.meanwhile().collect();
    for act in ["acquire", "heartbeat", "release"] {
        let good = meanwhile.iter().filter(|call| name_of(call) == act && call.ok().is_some()).count();
        ensure!(good > 0, "no {act} was answered while Redis was away");
    }
    let before = p99(seen.history.calls.iter().filter(|call| call.done < seen.fault.0));
    let during = p99(meanwhile.into_iter());
    let told = format!("p99 {before:?} with Redis, {during:?} without");
    ensure!(during < SAME_ORDER * before, "{told}");
    seen.passed(&told)
}

fn name_of(call: &Call) -> &'static str {
    match call.act {
        Act::Acquire { .. } => "acquire",
        Act::Heartbeat { .. } => "heartbeat",
        Act::Release { .. } => "release",
        _ => "",
    }
}

fn p99<'a>(calls: impl Iterator<Item = &'a Call>) -> Duration {
    let mut times: Vec<_> =
        calls.filter(|call| !name_of(call).is_empty()).map(|call| call.done.since(call.sent)).collect();
    times.sort();
    times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Users who hold a seat and never stop trying to keep it.
struct Keepers {
    account: Account,
    held: Vec<(String, String)>,
}

/// What they were told during an outage.
#[derive(Default)]
struct Told {
    unavailable: usize,
    slowest: Duration,
}

impl Keepers {
    async fn start(stand: &Stand, count: usize) -> Result<Self> {
        let account = Account::open(stand, "keepers", u32::try_from(count)?).await?;
        let mut held = Vec::new();
        for n in 0..count {
            let token = account.token(stand, &format!("keeper-{n}"), &[])?;
            let body = json!({"hardware_id": "machine-of-keeper"});
            let mut seat = account.post(n, "acquire", &token, &body).await;
            for attempt in 0..10 {
                if seat.status != 503 {
                    break;
                }
                seat = account.post(n + attempt, "acquire", &token, &body).await;
            }
            let session = seat.session_id().with_context(|| format!("no seat: {seat:?}"))?.to_owned();
            held.push((token, session));
        }
        Ok(Self { account, held })
    }

    /// Sends heartbeats for as long as the outage lasts, and now and then asks for another seat or gives one back that it
    /// does not hold; each is to be answered soon, with 503 and `Retry-After`.
    async fn insist(&self, time: Duration) -> Result<Told> {
        let (until, mut told) = (Instant::now() + time, Told::default());
        while Instant::now() < until {
            for (n, (token, session)) in self.held.iter().enumerate() {
                let (act, body) = match told.unavailable % 6 {
                    4 => ("acquire", json!({"hardware_id": "another-machine"})),
                    5 => ("release", json!({"session_id": "01900000-0000-7000-8000-0000000000ff"})),
                    _ => ("heartbeat", json!({ "session_id": session })),
                };
                let answer = self.account.post(n, act, token, &body).await;
                ensure!(answer.status == 503, "{act}: {answer:?}");
                ensure!(answer.retry_after.is_some(), "{act}: 503 without Retry-After");
                told.slowest = told.slowest.max(answer.took);
                told.unavailable += 1;
            }
            tokio::time::sleep(200 * MILLIS).await;
        }
        ensure!(told.slowest < PROMPT, "a 503 took {:?}", told.slowest);
        Ok(told)
    }

    /// After the outage: every one of them still has its session.
    async fn still_hold(&self) -> Result<()> {
        for (n, (token, session)) in self.held.iter().enumerate() {
            let mut last = None;
            for _ in 0..20 {
                let answer =
                    self.account.post(n, "heartbeat", token, &json!({ "session_id": session })).await;
                let again = answer.status == 503;
                last = Some(answer);
                if !again {
                    break;
                }
                tokio::time::sleep(200 * MILLIS).await;
            }
            let status = last.as_ref().map_or(0, |answer| answer.status);
            ensure!(status == 200, "a client that kept trying lost its session: {last:?}");
        }
        Ok(())
    }
}

async fn memory(stand: &Stand) -> Result<u64> {
    stand.replicas.iter().map(faults::Replica::memory_kib).sum()
}

/// Postgres, and perhaps Redis, gone for two TTL while the checker's clients and the keepers go on.
async fn gone(name: &'static str, fault: &'static str, redis_too: bool) -> Result<()> {
    let mut found = String::new();
    let seen: Seen = Trial::new(name, fault, 14 * SECOND)
        .without_postgres()
        .run(async |stand, play| {
            let keepers = Keepers::start(stand, 5).await?;
            let before = memory(stand).await?;
            if redis_too {
                stand.redis.stop_immediately().await?;
            }
            stand.postgres.stop_immediately().await?;
            let outage: Moment = play.now();
            let told = keepers.insist(2 * stand.ttl).await?;
            let after = memory(stand).await?;
            ensure!(after < before + MOST_GROWTH_KIB, "memory grew from {before} to {after} KiB");
            stand.postgres.start_again().await?;
            if redis_too {
                stand.redis.start_again().await?;
            }
            keepers.still_hold().await?;
            // Alive for as long as they keep trying, and no longer: they end here.
            tokio::time::sleep(SECOND).await;
            keepers.still_hold().await?;
            let Told { unavailable, slowest } = told;
            found = format!(
                "{unavailable} requests 503, the slowest {slowest:?}; memory {before} -> {after} KiB; sessions kept"
            );
            Ok(format!("gone since {outage}, for {:?}", 2 * stand.ttl))
        })
        .await?;
    seen.passed(&found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_gone_longer_than_the_ttl() -> Result<()> {
    gone("postgres_gone_longer_than_the_ttl", "Postgres gone for 2 TTL", false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn both_gone_and_back() -> Result<()> {
    gone("both_gone_and_back", "Postgres and Redis gone for 2 TTL", true).await
}
