//! More than the service can carry: it sheds what is too much, and does the rest as well as ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use faults::{Account, Line, Stand, StandOptions};
use loadtests::{Call, Connection, Endpoint};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::SECOND;

/// Connections that reach the best there is.
const FEW: usize = 24;

/// Ten times what it carries: each of them waits for its answer, or does as it was told and comes again.
const MANY: usize = 10 * FEW;

const MOST_GROWTH_KIB: u64 = 256 * 1024;

/// What came back, by status; and good answers a second.
#[derive(Debug, Default, Clone)]
struct Tally {
    by_status: BTreeMap<u16, u64>,
    slowest: Duration,
    /// Sent away without being told when to come again.
    without_retry_after: u64,
    begun: Option<Instant>,
    by_second: BTreeMap<u64, u64>,
}

/// Acquires by always new users, each on a connection of its own, for a time.
async fn load(stand: &Stand, account: &Account, connections: usize, time: Duration) -> Result<Tally> {
    let endpoint = Endpoint::parse(&stand.replicas[0].url)?;
    let tally = Arc::<Mutex<Tally>>::default();
    let (until, mut workers) = (Instant::now() + time, JoinSet::new());
    for n in 0..connections {
        let token = account.token(stand, &format!("crowd-{}", n % MANY), &[])?;
        let (endpoint, tally) = (endpoint.clone(), tally.clone());
        workers.spawn(async move { one(&endpoint, &token, until, &tally).await });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    let tally = tally.lock().await.clone();
    Ok(tally)
}

async fn one(endpoint: &Endpoint, token: &str, until: Instant, tally: &Mutex<Tally>) -> Result<()> {
    let mut connection = Connection::new(endpoint);
    let mut authorization: reqwest::header::HeaderValue =
        format!("Bearer {token}").parse().context("a token")?;
    let mut number = 0;
    while Instant::now() < until {
        // A machine never seen before: a new session and a signature each time.
        number += 1;
        let body = format!(r#"{{"hardware_id":"machine-number-{number}"}}"#);
        let call = Call::post("/api/v1/licenses/acquire", Some(authorization), body);
        let begun = Instant::now();
        let answer = connection.call(&call).await;
        let took = begun.elapsed();
        authorization = call.authorization.context("a token")?;
        let mut tally = tally.lock().await;
        tally.slowest = tally.slowest.max(took);
        let (status, retry_after) = answer.map_or((0, None), |answer| (answer.status, answer.retry_after));
        if status == 503 && retry_after.is_none() {
            tally.without_retry_after += 1;
        }
        *tally.by_status.entry(status).or_default() += 1;
        if status == 200 {
            let second = tally.begun.get_or_insert(begun).elapsed().as_secs();
            *tally.by_second.entry(second).or_default() += 1;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn ten_times_what_it_can_carry() -> Result<()> {
    let (name, fault) = ("ten_times_what_it_can_carry", "ten times the load that the service can carry");
    Line::begin(name, fault)?;
    let mut options = StandOptions::new();
    options.replicas = 1;
    options.ttl = 120 * SECOND;
    let stand = Stand::start(options).await?;
    let account = Account::open(&stand, "crowd", 1_000_000).await?;
    let time = 8 * SECOND;
    // Everybody has been here before: a user's first acquire adds it to the tenant, which is another matter.
    for n in 0..MANY {
        let token = account.token(&stand, &format!("crowd-{n}"), &[])?;
        let seat = account.post(0, "acquire", &token, &json!({"hardware_id": "machine-of-old"})).await;
        ensure!(seat.session_id().is_some(), "{seat:?}");
    }
    let before = stand.replicas[0].memory_kib()?;
    let best = load(&stand, &account, FEW, time).await?;
    let over = load(&stand, &account, MANY, time).await?;
    let flood = load(&stand, &account, 40 * FEW, time).await?;
    let after = stand.replicas[0].memory_kib()?;
    let good = |tally: &Tally| tally.by_status.get(&200).copied().unwrap_or(0);
    let sent_away = |tally: &Tally| tally.by_status.get(&503).copied().unwrap_or(0);
    let share = good(&over) as f64 / good(&best).max(1) as f64;
    let measured = format!(
        "best {} grants in {time:?}; ten times the clients: {} grants ({:.0} %), {} sent away, the slowest answer {:?}; forty times: {} grants, {} sent away; memory {before} -> {after} KiB",
        good(&best),
        good(&over),
        100.0 * share,
        sent_away(&over),
        over.slowest,
        good(&flood),
        sent_away(&flood)
    );
    eprintln!("{best:?}\n{over:?}\n{flood:?}");
    ensure!(sent_away(&over) > 0, "nobody was sent away: {measured}");
    ensure!(share >= 0.8, "{measured}");
    ensure!(after < before + MOST_GROWTH_KIB, "{measured}");
    for tally in [&best, &over, &flood] {
        ensure!(tally.without_retry_after == 0, "no Retry-After: {tally:?}");
        let other: u64 =
            tally.by_status.iter().filter(|(status, _)| !matches!(status, 200 | 503)).map(|it| *it.1).sum();
        ensure!(other == 0, "neither granted nor sent away: {tally:?}");
    }
    Line::held(name, fault, &measured)
}
