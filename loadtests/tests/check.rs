//! The checker against the real service: two replicas on real engines, a short seeded run in which everything holds.
//! (That it notices when something does not: `src/check/judge/mutations.rs`, and the service's fail points.)
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use loadtests::check::{FaultKind, Invariant, Patience, Play, Verdict, Workload, examine};
use loadtests::{Stand, StandOptions};

/// The service's binary, built beside the tests. A run of the whole workspace has built it already.
fn server() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let server = deps.ancestors().nth(2).unwrap().join("coditect-license");
    if !server.exists() {
        let cargo = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "api"]).status().unwrap();
        assert!(cargo.success() && server.exists(), "{} was not built", server.display());
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_twice_and_nothing_answered_is_lost() {
    let mut workload = Workload::seeded(20_261_124);
    // A machine that runs other tests beside this one may be slow; what is asserted here is safety.
    workload.patience = Patience { expiry: Duration::from_secs(10), recovery: Duration::from_secs(20) };
    workload.expect.faults = 1;
    let options = StandOptions { replicas: 2, ttl_seconds: Some(3), ..StandOptions::default() };
    let mut stand = Stand::start(&server(), options).await.unwrap();
    let site = stand.site(&workload).await.unwrap();

    let play = Play::start(&site, &workload).await.unwrap();
    tokio::time::sleep(workload.duration / 3).await;
    let fault = play.begin_fault("replica 1 is killed", FaultKind::default());
    let how = stand.kill_replica(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stand.start_replica(1).await.unwrap();
    fault.healed(how);
    let history = play.finish().await;
    let report = examine(&history, &site).await.unwrap();
    println!("{report}");

    report.assert_ok();
    for invariant in Invariant::ALL {
        let Verdict::Ok { checked, .. } = &report.verdicts[&invariant] else {
            panic!("{invariant}\n{report}")
        };
        assert!(*checked > 0, "{invariant}\n{report}");
    }
    for what in ["duplicates", "late", "acquires renewed", "limit changes", "retries"] {
        assert!(report.counts[what] > 0, "no {what}\n{report}");
    }
    stand.stop().await.unwrap();
}
