//! Postgres is the referee: what it has committed holds, and an answer that did not arrive is asked for again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engines::Signal;
use faults::{Line, Proxy, Stand, Trial};

use crate::redis::{cut, held, lost};
use crate::{MILLIS, SECOND};

/// Ends Postgres, and starts it again at once: shorter than the gap that counts as an outage.
async fn restarted(name: &'static str, fault: &'static str, kill: bool) -> Result<()> {
    let seen = Trial::new(name, fault, 6 * SECOND)
        .without_postgres()
        .run(async |stand, _| {
            let mut pids = vec![stand.postgres.pid()];
            for _ in 0..2 {
                if kill {
                    stand.postgres.signal(Signal::Kill)?;
                } else {
                    stand.postgres.stop_immediately().await?;
                }
                ensure!(!stand.postgres.is_running(), "Postgres still runs");
                stand.postgres.start_again().await?;
                pids.push(stand.postgres.pid());
                tokio::time::sleep(2 * SECOND).await;
            }
            Ok(format!("postmasters {pids:?}"))
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_stopped_immediately() -> Result<()> {
    restarted("postgres_stopped_immediately", "immediate stop of Postgres, twice", false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_killed() -> Result<()> {
    restarted("postgres_killed", "kill -9 of Postgres and all its processes, twice", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_backends_terminated() -> Result<()> {
    let fault = "pg_terminate_backend of the service's connections, again and again";
    let seen = Trial::new("postgres_backends_terminated", fault, 9 * SECOND)
        .run(async |stand, _| {
            let admin = stand.superuser().await?;
            let mut ended = 0;
            for _ in 0..20 {
                ended += terminate(&admin, "true").await?;
                tokio::time::sleep(200 * MILLIS).await;
            }
            ensure!(ended > 20, "only {ended} backends were ended");
            Ok(format!("{ended} backends ended"))
        })
        .await?;
    seen.passed("")
}

async fn terminate(admin: &tokio_postgres::Client, which: &str) -> Result<i64> {
    let sql = format!(
        "select count(*) from (select pg_terminate_backend(pid) as ended from pg_stat_activity
         where application_name = 'coditect-license' and {which}) t where ended"
    );
    Ok(admin.query_one(&sql, &[]).await?.get(0))
}

/// Commits are slowed down, so that a backend is met in the middle of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_backend_killed_during_a_commit() -> Result<()> {
    let fault = "a backend is terminated while it commits";
    let seen = Trial::new("postgres_backend_killed_during_a_commit", fault, 6 * SECOND)
        .stand(|stand| {
            let slow = [("fsync", "on"), ("commit_delay", "20000"), ("commit_siblings", "0")];
            stand.postgres.extend(slow);
        })
        .run(async |stand, _| {
            let admin = stand.superuser().await?;
            let mut ended = 0;
            // Whoever has an xid and is active has written, and has not committed yet.
            for _ in 0..400 {
                ended += terminate(&admin, "state = 'active' and backend_xid is not null").await?;
                if ended >= 10 {
                    break;
                }
                tokio::time::sleep(10 * MILLIS).await;
            }
            ensure!(ended > 0, "no backend was met during a commit");
            Ok(format!("{ended} backends ended with a transaction under way"))
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_answers_lost_after_the_commit() -> Result<()> {
    let fault = "the answer of an append is lost after its commit";
    let seen = Trial::new("postgres_answers_lost_after_the_commit", fault, 4 * SECOND)
        .run(async |stand, _| {
            for _ in 0..8 {
                stand.postgres_ways.iter().for_each(|way| way.lose_answers(b"seat_acquired", 1));
                tokio::time::sleep(400 * MILLIS).await;
            }
            stand.postgres_ways.iter().for_each(Proxy::heal);
            let resent: usize =
                stand.replicas.iter().map(|one| one.logged("the outcome of an append is unknown")).sum();
            ensure!(resent > 0, "no append was sent again");
            Ok(format!("{}, {resent} appends sent again", lost(&stand.postgres_ways)?))
        })
        .await?;
    seen.passed("")
}

async fn frozen_for(name: &'static str, fault: &'static str, time: Duration) -> Result<()> {
    let seen = Trial::new(name, fault, time + 3 * SECOND)
        .without_postgres()
        .run(async |stand, _| {
            stand.postgres.signal(Signal::Stop)?;
            tokio::time::sleep(time).await;
            stand.postgres.signal(Signal::Continue)?;
            tokio::time::sleep(SECOND).await;
            Ok(format!("every process of Postgres stood still for {time:?}"))
        })
        .await?;
    // A decision is given up after 0.9 s: whoever met the freeze waited that long, or as long as it lasted.
    let noticed = (time / 3).min(600 * MILLIS);
    let slow = seen.meanwhile().filter(|call| call.done.since(call.sent) > noticed).count();
    ensure!(slow > 0, "nobody noticed");
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_frozen_for_a_moment() -> Result<()> {
    frozen_for("postgres_frozen_for_a_moment", "SIGSTOP of Postgres for 0.3 TTL", 900 * MILLIS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_frozen_for_two_ttl() -> Result<()> {
    frozen_for("postgres_frozen_for_two_ttl", "SIGSTOP of Postgres for 2 TTL", 6 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_frozen_for_three_ttl() -> Result<()> {
    frozen_for("postgres_frozen_for_three_ttl", "SIGSTOP of Postgres for 3 TTL", 9 * SECOND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_slow_to_flush() -> Result<()> {
    let fault = "every flush of the log takes 100 ms longer (fsync on)";
    let seen = Trial::new("postgres_slow_to_flush", fault, 6 * SECOND)
        .stand(|stand| stand.postgres.push(("fsync", "on")))
        .run(async |stand, _| {
            let admin = stand.superuser().await?;
            let set = async |sql: &str| admin.batch_execute(sql).await;
            set("alter system set commit_siblings = 0").await?;
            set("alter system set commit_delay = 100000").await?;
            set("select pg_reload_conf()").await?;
            tokio::time::sleep(5 * SECOND).await;
            set("alter system reset all").await?;
            set("select pg_reload_conf()").await?;
            Ok("commit_delay was 100 ms".to_owned())
        })
        .await?;
    let slow = seen.meanwhile().filter(|call| call.done.since(call.sent) > 100 * MILLIS).count();
    ensure!(slow > 10, "only {slow} calls took longer than a flush");
    seen.passed(&format!("{slow} calls took over 100 ms"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_unreachable_for_one_replica() -> Result<()> {
    let fault = "one replica does not reach Postgres";
    let seen = Trial::new("postgres_unreachable_for_one_replica", fault, 5 * SECOND)
        .run(async |stand, _| {
            stand.postgres_ways[1].cut();
            tokio::time::sleep(4 * SECOND).await;
            let ready = reqwest::get(format!("{}/ready", stand.replicas[1].url)).await?.status().as_u16();
            stand.postgres_ways[1].heal();
            ensure!(ready == 503, "/ready answered {ready}");
            Ok(format!("/ready answered {ready}, {}", cut(&stand.postgres_ways)?))
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_half_open() -> Result<()> {
    let fault = "one replica's connections to Postgres half-open for 7 s";
    let seen = Trial::new("postgres_half_open", fault, 9 * SECOND)
        .run(async |stand, _| {
            stand.postgres_ways[1].silence();
            tokio::time::sleep(7 * SECOND).await;
            stand.postgres_ways[1].heal();
            tokio::time::sleep(SECOND).await;
            held(&stand.postgres_ways)
        })
        .await?;
    seen.passed("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_far_away() -> Result<()> {
    let fault = "every piece to and from Postgres is 30 ms late, and connections are reset meanwhile";
    let seen = Trial::new("postgres_far_away", fault, 5 * SECOND)
        .run(async |stand, _| {
            stand.postgres_ways.iter().for_each(|way| way.delay(30 * MILLIS));
            for _ in 0..4 {
                tokio::time::sleep(SECOND).await;
                stand.postgres_ways.iter().for_each(Proxy::reset);
            }
            stand.postgres_ways.iter().for_each(Proxy::heal);
            Ok(format!("{}, {}", held(&stand.postgres_ways)?, cut(&stand.postgres_ways)?))
        })
        .await?;
    seen.passed("")
}

/// A small file system for Postgres alone, which is filled to the brim and emptied again.
struct SmallDisk {
    dir: std::path::PathBuf,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("faults-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).ok()?;
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "faults"])
            .arg(&dir)
            .stderr(std::process::Stdio::null())
            .status();
        done.is_ok_and(|status| status.success()).then_some(Self { dir })
    }

    /// Takes all the room that is left; answers the bytes.
    fn fill(&self) -> u64 {
        use std::io::Write;
        let Ok(mut file) = std::fs::File::create(self.dir.join("ballast")) else { return 0 };
        let (block, mut bytes) = (vec![0; 4096], 0);
        while file.write_all(&block).is_ok() {
            bytes += 4096;
        }
        bytes
    }

    fn empty(&self) -> Result<()> {
        std::fs::remove_file(self.dir.join("ballast")).context("the ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = std::fs::remove_dir(&self.dir);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn postgres_disk_full() -> Result<()> {
    let (name, fault) = ("postgres_disk_full", "the disk of Postgres is full");
    let Some(disk) = SmallDisk::mount(400) else {
        return Line::skip(name, fault, "a file system of its own cannot be mounted (needs root)");
    };
    let seen = Trial::new(name, fault, 16 * SECOND)
        .without_postgres()
        .stand(|stand| {
            stand.postgres_dir = Some(disk.dir.join("postgres"));
            // Little room in the write-ahead log, so that it needs more soon.
            let small = [("min_wal_size", "32MB"), ("max_wal_size", "64MB"), ("wal_recycle", "off")];
            stand.postgres.extend(small);
        })
        .run(async |stand, _| fill_for_a_while(stand, &disk).await)
        .await?;
    seen.passed("")
}

async fn fill_for_a_while(stand: &mut Stand, disk: &SmallDisk) -> Result<String> {
    let bytes = disk.fill();
    // What is allocated already is used up, so that somebody has to ask for more.
    let admin = stand.superuser().await?;
    let burn = "create temporary table burn as select repeat('x', 1000) from generate_series(1, 2000)";
    let burnt = admin.batch_execute(burn).await;
    let _ = admin.batch_execute("select pg_switch_wal()").await;
    tokio::time::sleep(4 * SECOND).await;
    let log = std::fs::read_to_string(stand.postgres.log())?;
    disk.empty()?;
    if !stand.postgres.is_running() {
        stand.postgres.start_again().await?;
    }
    tokio::time::sleep(SECOND).await;
    let full = log.matches("No space left on device").count();
    ensure!(full > 0, "Postgres did not notice that {bytes} bytes were taken: {burnt:?}");
    Ok(format!("{full} times \"No space left on device\""))
}
