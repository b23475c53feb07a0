//! Redis is the gate, never the referee: whatever it forgets, repeats or refuses may make the service slow, never wrong.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use engines::{Redis, RedisOptions, Signal};
use faults::{FakeClock, Line, Proxy, RedisClient, Seen, Stand, Trial, Upstream};

use crate::{MILLIS, SECOND};

const REPAIRS: &str = "license_mirror_repairs_total";

/// The mirror was repaired while the fault lasted, or soon after.
fn repaired(seen: &Seen) -> Result<()> {
    ensure!(seen.counted("repairs") > 0.0, "no mirror was repaired");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_killed_without_persistence() -> Result<()> {
    let fault = "kill -9 of Redis without persistence, three times";
    let seen = Trial::new("redis_killed_without_persistence", fault, 6 * SECOND)
        .run(async |stand, _| {
            let before = stand.metric(REPAIRS).await;
            for _ in 0..3 {
                stand.redis.stop_immediately().await?;
                ensure!(!stand.redis.is_running(), "Redis still runs");
                tokio::time::sleep(SECOND / 2).await;
                stand.redis.start_again().await?;
                tokio::time::sleep(SECOND).await;
            }
            let after = stand.metric(REPAIRS).await;
            ensure!(after > before, "no mirror was repaired");
            Ok(format!("three empty starts, {} repairs", after - before))
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_flushed() -> Result<()> {
    let seen = Trial::new("redis_flushed", "FLUSHALL, ten times", 4 * SECOND)
        .run(async |stand, _| {
            let (redis, before) = (stand.redis_client(), stand.metric(REPAIRS).await);
            let mut forgotten = 0;
            for _ in 0..10 {
                forgotten += redis.keys().await?.len();
                redis.run(&["FLUSHALL"]).await?;
                tokio::time::sleep(SECOND / 4).await;
            }
            let repairs = stand.metric(REPAIRS).await - before;
            ensure!(forgotten > 0 && repairs > 0.0, "{forgotten} keys forgotten, {repairs} repairs");
            Ok(format!("{forgotten} keys forgotten, {repairs} repairs"))
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_loses_one_key() -> Result<()> {
    let fault = "one key of a pool deleted: its seats, its holders, or its limit";
    let seen = Trial::new("redis_loses_one_key", fault, 6 * SECOND)
        .run(async |stand, _| {
            let (redis, mut deleted) = (stand.redis_client(), 0);
            for part in ["seats", "holders", "meta", "seats", "holders", "meta"] {
                for key in redis.keys().await?.iter().filter(|key| key.ends_with(part)) {
                    redis.run(&["DEL", key]).await?;
                    deleted += 1;
                }
                tokio::time::sleep(SECOND / 2).await;
            }
            ensure!(deleted > 0, "there was no key");
            Ok(format!("{deleted} keys deleted"))
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_restarted_from_an_old_snapshot() -> Result<()> {
    let fault = "Redis restarts from a snapshot that is two seconds old";
    let seen = Trial::new("redis_restarted_from_an_old_snapshot", fault, 5 * SECOND)
        .run(async |stand, _| {
            let redis = stand.redis_client();
            redis.run(&["SAVE"]).await?;
            tokio::time::sleep(2 * SECOND).await;
            stand.redis.stop_immediately().await?;
            stand.redis.start_again().await?;
            let keys = redis.keys().await?.len();
            ensure!(keys > 0, "the snapshot was not read");
            tokio::time::sleep(SECOND).await;
            Ok(format!("{keys} keys of two seconds ago"))
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_forgets_its_scripts() -> Result<()> {
    let fault = "SCRIPT FLUSH in a loop";
    let seen = Trial::new("redis_forgets_its_scripts", fault, 4 * SECOND)
        .run(async |stand, _| {
            let redis = stand.redis_client();
            for _ in 0..60 {
                redis.run(&["SCRIPT", "FLUSH", "SYNC"]).await?;
                tokio::time::sleep(SECOND / 30).await;
            }
            let stats = redis.run(&["INFO", "errorstats"]).await?;
            let met = stats.lines().find(|line| line.starts_with("errorstat_NOSCRIPT")).unwrap_or_default();
            ensure!(!met.is_empty(), "no script was missed: {stats}");
            Ok(met.to_owned())
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_out_of_memory() -> Result<()> {
    let fault = "Redis has no memory left (noeviction)";
    let seen = Trial::new("redis_out_of_memory", fault, 4 * SECOND)
        .run(async |stand, _| {
            let redis = stand.redis_client();
            redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await?;
            tokio::time::sleep(3 * SECOND).await;
            let stats = redis.run(&["INFO", "errorstats"]).await?;
            redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await?;
            let met = stats.lines().find(|line| line.starts_with("errorstat_OOM")).unwrap_or_default();
            ensure!(!met.is_empty(), "no script was refused: {stats}");
            Ok(met.to_owned())
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

async fn frozen_for(name: &'static str, fault: &'static str, time: Duration) -> Result<()> {
    let seen = Trial::new(name, fault, time + SECOND)
        .run(async |stand, _| {
            stand.redis.signal(Signal::Stop)?;
            tokio::time::sleep(time).await;
            let noticed = stand.metric("license_redis_up").await;
            stand.redis.signal(Signal::Continue)?;
            ensure!(noticed < 2.0, "nobody noticed");
            Ok(format!("{noticed} of 2 replicas still counted on it after {time:?}"))
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_frozen_for_a_moment() -> Result<()> {
    frozen_for("redis_frozen_for_a_moment", "SIGSTOP of Redis for 0.3 TTL", 900 * MILLIS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_frozen_for_one_ttl() -> Result<()> {
    frozen_for("redis_frozen_for_one_ttl", "SIGSTOP of Redis for 1 TTL", 3 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_frozen_for_three_ttl() -> Result<()> {
    frozen_for("redis_frozen_for_three_ttl", "SIGSTOP of Redis for 3 TTL", 9 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_seen_by_one_replica_only() -> Result<()> {
    let fault = "one replica sees Redis, the other does not";
    let seen = Trial::new("redis_seen_by_one_replica_only", fault, 5 * SECOND)
        .run(async |stand, _| {
            stand.redis_ways[1].cut();
            tokio::time::sleep(4 * SECOND).await;
            let up = (
                stand.replicas[0].metric("license_redis_up").await?,
                stand.replicas[1].metric("license_redis_up").await?,
            );
            stand.redis_ways[1].heal();
            ensure!(up == (1.0, 0.0), "license_redis_up is {up:?}");
            Ok(format!("license_redis_up {up:?}, {} connections refused", stand.redis_ways[1].accepted()))
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_answers_lost() -> Result<()> {
    let fault = "Redis does what it is told, and the answer is lost";
    let seen = Trial::new("redis_answers_lost", fault, 5 * SECOND)
        .run(async |stand, _| {
            for _ in 0..8 {
                stand.redis_ways.iter().for_each(|way| way.lose_answers(b"EVALSHA", 1));
                tokio::time::sleep(SECOND / 2).await;
            }
            stand.redis_ways.iter().for_each(Proxy::heal);
            lost(&stand.redis_ways)
        })
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_half_open() -> Result<()> {
    let fault = "connections to Redis half-open: they stand, and nothing comes";
    let seen = Trial::new("redis_half_open", fault, 4 * SECOND)
        .run(async |stand, _| {
            stand.redis_ways.iter().for_each(Proxy::silence);
            tokio::time::sleep(3 * SECOND).await;
            stand.redis_ways.iter().for_each(Proxy::heal);
            held(&stand.redis_ways)
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_slow() -> Result<()> {
    let fault = "every piece to and from Redis is 200 ms late";
    let seen = Trial::new("redis_slow", fault, 4 * SECOND)
        .run(async |stand, _| {
            stand.redis_ways.iter().for_each(|way| way.delay(200 * MILLIS));
            tokio::time::sleep(3 * SECOND).await;
            stand.redis_ways.iter().for_each(Proxy::heal);
            held(&stand.redis_ways)
        })
        .await?;
    seen.passed("")
}

/// What shows that answers were lost.
pub(crate) fn lost(ways: &[Proxy]) -> Result<String> {
    let lost: u64 = ways.iter().map(Proxy::lost).sum();
    ensure!(lost > 0, "no answer was lost");
    Ok(format!("{lost} answers lost"))
}

/// What shows that pieces were held back.
pub(crate) fn held(ways: &[Proxy]) -> Result<String> {
    let held: u64 = ways.iter().map(Proxy::held).sum();
    ensure!(held > 0, "nothing was held back");
    Ok(format!("{held} pieces held back"))
}

/// What shows that connections were cut.
pub(crate) fn cut(ways: &[Proxy]) -> Result<String> {
    let cut: u64 = ways.iter().map(Proxy::cuts).sum();
    ensure!(cut > 0, "no connection was cut");
    Ok(format!("{cut} connections cut"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_clock_steps() -> Result<()> {
    let (name, fault) = ("redis_clock_steps", "the clock of Redis steps an hour ahead, then two hours back");
    let dir = engines::Scratch::new()?;
    let Some(clock) = FakeClock::new(dir.path())? else {
        return Line::skip(
            name,
            fault,
            "no C compiler for the library that shows another clock (apt-get install gcc)",
        );
    };
    let seen = Trial::new(name, fault, 6 * SECOND)
        .stand(|stand| stand.redis_environment = clock.environment())
        .run(async |stand, _| {
            let redis = stand.redis_client();
            let mut shown = vec![time_of(&redis).await?];
            for step in [3_600, -3_600, 0] {
                clock.step(step)?;
                tokio::time::sleep(3 * SECOND / 2).await;
                shown.push(time_of(&redis).await?);
            }
            let steps: Vec<_> = shown.windows(2).map(|pair| pair[1] - pair[0]).collect();
            ensure!(steps[0] > 3_000 && steps[1] < -6_000, "the clock did not step: {steps:?}");
            Ok(format!("TIME stepped by {steps:?} s"))
        })
        .await?;
    seen.passed("")
}

async fn time_of(redis: &RedisClient) -> Result<i64> {
    let text = redis.run(&["TIME"]).await?;
    Ok(text.lines().next().unwrap_or_default().parse()?)
}

/// A second Redis follows the first until the way between them is cut; then it is promoted. One replica goes on with the
/// old primary, as if it had not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn redis_fails_over_to_a_lagging_replica() -> Result<()> {
    let fault = "failover to a lagging Redis, the old primary still reachable by one replica";
    let port = faults::port()?;
    let seen = Trial::new("redis_fails_over_to_a_lagging_replica", fault, 14 * SECOND)
        .stand(|stand| stand.redis.push(("port", port.to_string())))
        .run(async |stand, _| fail_over(stand, port).await)
        .await?;
    repaired(&seen)?;
    seen.passed("")
}

async fn fail_over(stand: &mut Stand, primary: u16) -> Result<String> {
    let replication = Proxy::start(Upstream::Tcp(([127, 0, 0, 1], primary).into())).await?;
    let dir = stand.dir().join("second");
    fs::create_dir_all(&dir)?;
    let second = Redis::start(RedisOptions::new(dir)).await?;
    let client = RedisClient::unix(second.socket());
    let port = replication.address().port().to_string();
    client.run(&["REPLICAOF", "127.0.0.1", &port]).await?;
    for _ in 0..100 {
        if client.run(&["INFO", "replication"]).await?.contains("master_link_status:up") {
            break;
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    ensure!(!client.keys().await?.is_empty(), "the second Redis has nothing");
    // From here on it lags.
    replication.cut();
    tokio::time::sleep(SECOND).await;
    client.run(&["REPLICAOF", "NO", "ONE"]).await?;
    let new = Upstream::Unix(second.socket().to_owned());
    let before = (scripts(&stand.redis_client()).await?, scripts(&client).await?);
    stand.redis_ways[1].lead_to(new.clone());
    tokio::time::sleep(5 * SECOND / 2).await;
    let asked = (scripts(&stand.redis_client()).await? - before.0, scripts(&client).await? - before.1);
    ensure!(asked.0 > 0 && asked.1 > 0, "both were to be asked: {asked:?}");
    // Now everybody is on the new one.
    stand.redis_ways[0].lead_to(new.clone());
    stand.redis_way_of_the_checker.lead_to(new);
    stand.more_redis.push(second);
    tokio::time::sleep(SECOND).await;
    Ok(format!("the old primary ran {} scripts meanwhile, the new one {}", asked.0, asked.1))
}

/// Script calls that a Redis has answered.
async fn scripts(redis: &RedisClient) -> Result<i64> {
    let stats = redis.run(&["INFO", "commandstats"]).await?;
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    let calls = line.split_once("calls=").and_then(|(_, rest)| rest.split(',').next());
    Ok(calls.unwrap_or("0").parse()?)
}
