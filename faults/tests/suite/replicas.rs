//! Replicas that are killed at every edge, frozen, restarted, cut off, or whose clock is wrong.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::{Account, FakeClock, Line, Seen, Stand, StandOptions, Trial};
use loadtests::check::Invariant;
use serde_json::json;

use crate::SECOND;

const SIGABRT: i32 = 6;

/// The second replica ends at an edge, as `kill -9` would end it there, and is started again.
async fn killed_at(name: &'static str, fault: &'static str, point: &'static str) -> Result<Seen> {
    let trial = Trial::new(name, fault, 6 * SECOND).fail_points(1, &format!("{point}=kill@25"));
    trial.run(async |stand, _| wait_and_restart(stand, point).await).await
}

async fn wait_and_restart(stand: &mut Stand, point: &str) -> Result<String> {
    let replica = &mut stand.replicas[1];
    let status = replica.wait_end(5 * SECOND).await?;
    ensure!(status.signal() == Some(SIGABRT), "{} ended otherwise: {status}", replica.name);
    let said = replica.logged(&format!("fail point {point}: Kill"));
    ensure!(said == 1, "the fail point did not say so");
    replica.start(&[]).await?;
    Ok(format!("{status} at {point}, started again"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_killed_after_the_gate() -> Result<()> {
    killed_at("replica_killed_after_the_gate", "a replica dies after the gate", "after_gate")
        .await?
        .passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_killed_before_the_append() -> Result<()> {
    killed_at("replica_killed_before_the_append", "a replica dies before the append", "before_append")
        .await?
        .passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_killed_after_the_commit() -> Result<()> {
    let fault = "a replica dies after the commit, before the answer";
    killed_at("replica_killed_after_the_commit", fault, "after_commit").await?.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_killed_before_the_answer() -> Result<()> {
    let fault = "a replica dies with decisions applied, nobody answered";
    killed_at("replica_killed_before_the_answer", fault, "before_reply").await?.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_killed_before_the_mirror_follows() -> Result<()> {
    let fault = "a replica dies with everybody answered, Redis not told";
    killed_at("replica_killed_before_the_mirror_follows", fault, "before_mirror").await?.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_killed_in_the_middle_of_a_repair() -> Result<()> {
    let fault = "a replica dies in the middle of a repair of the mirror";
    // The first passages are the pools' first syncs; Redis is emptied so that there is more to repair.
    let trial = Trial::new("replica_killed_in_the_middle_of_a_repair", fault, 6 * SECOND)
        .fail_points(1, "in_repair=kill@8");
    let seen = trial
        .run(async |stand, _| {
            let redis = stand.redis_client();
            for _ in 0..40 {
                redis.run(&["FLUSHALL"]).await?;
                tokio::time::sleep(SECOND / 10).await;
                if stand.replicas[1].logged("fail point in_repair: Kill") > 0 {
                    break;
                }
            }
            wait_and_restart(stand, "in_repair").await
        })
        .await?;
    ensure!(seen.counted("repairs") > 0.0, "nothing was repaired");
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replicas_killed_again_and_again() -> Result<()> {
    let fault = "kill -9 of one replica after the other";
    let seen = Trial::new("replicas_killed_again_and_again", fault, 9 * SECOND)
        .run(async |stand, _| {
            let mut killed = 0;
            for round in 0..4 {
                let replica = &mut stand.replicas[round % 2];
                let status = replica.kill().await?;
                ensure!(status.signal() == Some(9), "{status}");
                killed += 1;
                tokio::time::sleep(SECOND / 2).await;
                replica.start(&[]).await?;
                tokio::time::sleep(SECOND / 2).await;
            }
            Ok(format!("{killed} processes were killed and started again"))
        })
        .await?;
    seen.passed("")
}

/// Whoever is asked next takes over within 5 s, and its first answer tells everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_folds_killed() -> Result<()> {
    let (name, fault) = ("replica_that_folds_killed", "the replica that folds the read models dies");
    Line::begin(name, fault)?;
    let mut stand = Stand::start(StandOptions::new()).await?;
    let account = Account::open(&stand, "folding", 10).await?;
    let analyst = account.token(&stand, "ann", &["analyst"])?;
    let mut slowest = Duration::ZERO;
    // Each round kills the replica that was left over by the one before, and folds since then.
    for round in 0..4 {
        let (killed, left) = (round % 2, (round + 1) % 2);
        stand.replicas[killed].kill().await?;
        let token = account.token(&stand, &format!("user-{round}"), &[])?;
        let granted = account.post(left, "acquire", &token, &json!({"hardware_id": "machine-1"})).await;
        ensure!(granted.status == 200, "{granted:?}");
        let usage = account.get(left, "usage?bucket=day", &analyst).await;
        ensure!(usage.status == 200, "{usage:?}");
        let days = usage.body["items"].as_array().context("no items")?;
        let acquired: u64 = days.iter().filter_map(|day| day["acquired"].as_u64()).sum();
        ensure!(acquired == round as u64 + 1, "{acquired} acquires are told after {}", round + 1);
        slowest = slowest.max(usage.took);
        stand.replicas[killed].start(&[]).await?;
    }
    Line::held(name, fault, &format!("the slowest answer about usage took {slowest:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn a_pools_actor_panics() -> Result<()> {
    let fault = "a pool's actor panics with seats reserved";
    let seen = Trial::new("a_pools_actor_panics", fault, 3 * SECOND)
        .fail_points(1, "after_gate=panic@15")
        .run(async |stand, _| {
            for _ in 0..100 {
                if stand.replicas[1].metric("license_actor_restarts_total").await? >= 1.0 {
                    return Ok("its supervisor started another".to_owned());
                }
                tokio::time::sleep(SECOND / 20).await;
            }
            anyhow::bail!("no actor was started again")
        })
        .await?;
    seen.passed("")
}

/// An edge at which the connection to the log is lost, again and again.
async fn lost_at(name: &'static str, fault: &'static str, point: &'static str) -> Result<()> {
    let seen = Trial::new(name, fault, 3 * SECOND)
        .fail_points(1, &format!("{point}=error@20"))
        .run(async |stand, _| {
            for _ in 0..60 {
                if stand.replicas[1].logged(&format!("fail point {point}: Error")) > 0 {
                    return Ok(format!("an error at {point}"));
                }
                tokio::time::sleep(SECOND / 20).await;
            }
            anyhow::bail!("{point} was not passed")
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn outcome_unknown_before_the_append() -> Result<()> {
    let fault = "the outcome of an append that was never sent is unknown";
    lost_at("outcome_unknown_before_the_append", fault, "before_append").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn outcome_unknown_after_the_commit() -> Result<()> {
    let fault = "the outcome of an append that was committed is unknown";
    lost_at("outcome_unknown_after_the_commit", fault, "after_commit").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn mirror_not_told_of_what_was_committed() -> Result<()> {
    let fault = "Redis is not told of a batch that was committed";
    lost_at("mirror_not_told_of_what_was_committed", fault, "before_mirror").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_paused_between_decision_and_append() -> Result<()> {
    let fault = "a replica sleeps 1.5 TTL between decision and append";
    let seen = Trial::new("replica_paused_between_decision_and_append", fault, 7 * SECOND)
        .fail_points(1, "before_append=pause:4500@20")
        .run(async |stand, _| {
            tokio::time::sleep(6 * SECOND).await;
            let passed = stand.replicas[1].logged("fail point before_append: Pause");
            ensure!(passed == 1, "the fail point was not passed");
            Ok("one append was sent 4.5 s late".to_owned())
        })
        .await?;
    seen.passed("")
}

async fn frozen_for(name: &'static str, fault: &'static str, time: Duration) -> Result<()> {
    let seen = Trial::new(name, fault, time + SECOND)
        .run(async |stand, _| {
            stand.replicas[1].freeze()?;
            tokio::time::sleep(time).await;
            let deaf = reqwest::Client::builder().timeout(SECOND / 5).no_proxy().build()?;
            let silent = deaf.get(format!("{}/health", stand.replicas[1].url)).send().await.is_err();
            ensure!(silent, "a frozen process answered");
            stand.replicas[1].thaw()?;
            stand.replicas[1].wait_ready().await?;
            Ok(format!("did not answer for {time:?}"))
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_frozen_for_a_moment() -> Result<()> {
    frozen_for("replica_frozen_for_a_moment", "SIGSTOP of a replica for 0.1 TTL", SECOND * 3 / 10).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_frozen_for_one_ttl() -> Result<()> {
    frozen_for("replica_frozen_for_one_ttl", "SIGSTOP of a replica for 1 TTL", 3 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn replica_frozen_for_three_ttl() -> Result<()> {
    frozen_for("replica_frozen_for_three_ttl", "SIGSTOP of a replica for 3 TTL", 9 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn clock_of_a_replica_steps() -> Result<()> {
    let (name, fault) =
        ("clock_of_a_replica_steps", "a replica's clock steps an hour ahead, then two hours back");
    let dir = engines::Scratch::new()?;
    let Some(clock) = FakeClock::new(dir.path())? else {
        return Line::skip(
            name,
            fault,
            "no C compiler for the library that shows another clock (apt-get install gcc)",
        );
    };
    let seen = Trial::new(name, fault, 5 * SECOND)
        .stand(|stand| {
            let mut variables = clock.environment();
            variables.push(("RUST_LOG".to_owned(), "info".to_owned()));
            stand.first_start.insert(1, variables);
        })
        .run(async |stand, _| {
            let before = date_of(stand, 1).await?;
            clock.step(3_600)?;
            tokio::time::sleep(2 * SECOND).await;
            let ahead = date_of(stand, 1).await?;
            clock.step(-3_600)?;
            tokio::time::sleep(2 * SECOND).await;
            let behind = date_of(stand, 1).await?;
            clock.step(0)?;
            ensure!(
                before != ahead && ahead != behind,
                "the clock did not step: {before}, {ahead}, {behind}"
            );
            Ok(format!("its log said {before}, then {ahead}, then {behind}"))
        })
        .await?;
    seen.passed("")
}

/// The time that the replica's process sees, as it writes it into its log with each request.
async fn date_of(stand: &Stand, replica: usize) -> Result<String> {
    let replica = &stand.replicas[replica];
    let before = replica.log()?.len();
    reqwest::get(format!("{}/health", replica.url)).await?;
    for _ in 0..50 {
        let log = replica.log()?;
        let line = log[before..].lines().find(|line| line.contains("answered"));
        // Day and hour, wherever the line has them: a terminal's colours may stand before.
        let hour = line.and_then(|line| {
            let t = line.find('T')?;
            line.get(t.checked_sub("2026-11-24".len())?..t + "T22".len())
        });
        if let Some(hour) = hour {
            return Ok(hour.to_owned());
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    anyhow::bail!("the request was not logged")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn nothing_is_broken() -> Result<()> {
    let fault =
        "nothing: duplicate, late and reordered requests, limits changed, licenses suspended, under load";
    let seen = Trial::new("nothing_is_broken", fault, 4 * SECOND)
        .run(async |_, _| {
            tokio::time::sleep(3 * SECOND).await;
            Ok("the workload itself".to_owned())
        })
        .await?;
    let unknown = seen.history.calls.iter().filter(|call| call.unknown()).count();
    ensure!(
        unknown * 10 <= seen.history.calls.len(),
        "{unknown} requests had no answer although nothing failed"
    );
    seen.passed("")
}

/// The checker must see what the protocol's rule 2 is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_compare_and_set_the_checker_turns_red() -> Result<()> {
    let fault = "rule 2 broken on purpose: appends follow whatever version the log has";
    let seen = Trial::new("without_compare_and_set_the_checker_turns_red", fault, 3 * SECOND)
        .stand(|stand| {
            for replica in 0..2 {
                let broken = ("FAIL_POINTS".to_owned(), "skip_compare_and_set".to_owned());
                stand.first_start.insert(replica, vec![broken]);
            }
        })
        .play(async |stand, _| {
            // With Redis away the gate cannot hide it.
            stand.redis_ways.iter().for_each(faults::Proxy::cut);
            tokio::time::sleep(2 * SECOND).await;
            stand.redis_ways.iter().for_each(faults::Proxy::heal);
            Ok("two replicas without compare-and-set, and no gate".to_owned())
        })
        .await?;
    let red: Vec<_> = [Invariant::I1, Invariant::I2, Invariant::I4]
        .into_iter()
        .filter(|one| seen.report.is_violated(*one))
        .collect();
    ensure!(!red.is_empty(), "the checker did not notice\n{}", seen.report);
    seen.passed(&format!("the checker says {red:?}"))
}
