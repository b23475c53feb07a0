//! Measures the read side on a made log: inserts it by SQL as the database's owner, folds it, asks.
//!
//! `target/debug/engines run -- cargo run --release -p projections --example ten_million -- 10000000 [log]`
//! (`log`: only what is read off the log, without folding it.)
//!
//! The log is 400 days of 8 tenants; the first one has a quarter of the events. Six of ten events are heartbeats, three
//! belong to sessions of 20 minutes to 8 hours, one is a denial.

#![expect(clippy::unwrap_used, reason = "a measurement stops where something is wrong")]

use std::time::{Duration, Instant};

use engines::TestEngines;
use events::{Database, EventFilter, EventLog, Position, TenantId, Time, UserId};
use projections::{Bucket, DenialFilter, ReadModels, SessionFilter, UsageRange, WhatIfQuestion};
use tokio_postgres::{Client, NoTls};

const DAYS: i64 = 400;

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    println!("{what:<60} {:>9.3} s", begun.elapsed().as_secs_f64());
    done
}

#[tokio::main]
async fn main() {
    let count: i64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let database = TestEngines::shared().await.unwrap().database().await.unwrap();
    events::migrate(&database.url()).await.unwrap();
    let log = EventLog::new(Database::new(&database.url(), 8, Duration::from_secs(120)).unwrap());
    let owner = connect(&database.url()).await;
    timed(&format!("insert {count} events"), async {
        owner
            .batch_execute("set synchronous_commit = off; set maintenance_work_mem = '512MB'")
            .await
            .unwrap();
        owner
            .batch_execute(&include_str!("ten_million.sql").replace(":count", &count.to_string()))
            .await
            .unwrap();
        owner.batch_execute("analyze").await.unwrap();
    })
    .await;
    if std::env::args().nth(2).as_deref() == Some("log") {
        let tenant = TenantId("00000000-0000-7000-8000-000000000001".parse().unwrap());
        let now = chrono_now(&owner).await;
        ask_log(&log, tenant, now).await;
        return;
    }
    let models = ReadModels::new(log.clone());
    let begun = Instant::now();
    let pages =
        timed("fold all of it, 5000 events a page", projections::fold_all(&log, 5_000)).await.unwrap();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("{:<60} {pages:>9} pages, {rate:.0} events of the log/s", "");
    let tenant = TenantId(
        owner.query_one("select tenant_id from tenants_view order by 1 limit 1", &[]).await.unwrap().get(0),
    );
    let now = chrono_now(&owner).await;
    ask(&models, tenant, now).await;
    ask_log(&log, tenant, now).await;
    timed("rebuild activity", projections::rebuild(&log, "activity", true)).await.unwrap();
}

/// What auditors ask: pages of events, and a pool as it was.
async fn ask_log(log: &EventLog, tenant: TenantId, now: Time) {
    let half_a_year_ago = Time::from_millis(now.millis() - 183 * 86_400_000).unwrap();
    let start = Position::default();
    let filters = [
        ("first page", EventFilter::default()),
        ("from half a year ago", EventFilter { from: Some(half_a_year_ago), ..EventFilter::default() }),
        ("denials", EventFilter { event_type: Some("seat_denied".to_owned()), ..EventFilter::default() }),
        ("one user's", EventFilter { user_id: UserId::new("user-17").ok(), ..EventFilter::default() }),
    ];
    for (name, filter) in filters {
        timed(&format!("events, a page of 1000: {name}"), log.read_tenant(tenant, start, &filter, 1_000))
            .await
            .unwrap();
    }
    for (name, at) in [("now", now), ("half a year ago", half_a_year_ago)] {
        let pools = timed(&format!("replay of the tenant's pool, {name}"), log.pools_at(tenant, at)).await;
        for pool in pools.unwrap() {
            println!("{:<60} {:>9} decisions, {} sessions", "", pool.version, pool.sessions.len());
        }
    }
}

async fn chrono_now(owner: &Client) -> Time {
    let row = owner.query_one("select clock_timestamp()", &[]).await.unwrap();
    row.get::<_, chrono::DateTime<chrono::Utc>>(0).into()
}

async fn ask(models: &ReadModels, tenant: TenantId, now: Time) {
    let year_ago = Time::from_millis(now.millis() - 365 * 86_400_000).unwrap();
    for (name, bucket) in [("days", Bucket::Day), ("hours", Bucket::Hour), ("minutes", Bucket::Minute)] {
        let range = UsageRange { bucket, from: year_ago, to: now, license_id: None };
        let (items, peak) = timed(&format!("usage, a year of {name}"), async {
            let usage = models.usage(tenant, &range).await.unwrap();
            usage.items().fold((0, 0), |(count, peak), one| (count + 1, one.peak.max(peak)))
        })
        .await;
        println!("{:<60} {items:>9} buckets, peak {peak}", "");
    }
    let filter = DenialFilter::default();
    timed("denials, a page of 1000", models.denials(tenant, &filter, None, 1_000)).await.unwrap();
    timed("sessions, a page of 1000", models.sessions(tenant, &SessionFilter::default(), None, 1_000))
        .await
        .unwrap();
    let live = SessionFilter { live: Some(true), ..SessionFilter::default() };
    timed("sessions that live, a page of 1000", models.sessions(tenant, &live, None, 1_000)).await.unwrap();
    timed("tenants", models.tenants(None, 1_000)).await.unwrap();
    timed("users, a page of 1000", models.users(tenant, None, 1_000)).await.unwrap();
    let question = WhatIfQuestion {
        license_id: None,
        from: Time::from_millis(now.millis() - 30 * 86_400_000).unwrap(),
        to: now,
        seats: Some(10),
        ttl_seconds: None,
    };
    timed("what-if, 30 days", models.what_if(tenant, &question)).await.unwrap();
    println!("{DAYS} days in the log");
}
