//! Every test gets a database of its own, and loses it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use engines::TestEngines;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn databases_named(name: &str) -> i64 {
    let engines = TestEngines::shared().await.unwrap();
    let client = connect(&engines.superuser_url("postgres")).await;
    client.query_one("SELECT count(*) FROM pg_database WHERE datname = $1", &[&name]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_database_goes_away_with_its_value() {
    let engines = TestEngines::shared().await.unwrap();
    let database = engines.database().await.unwrap();
    let name = database.name().to_owned();
    let _client = connect(&database.url()).await;
    assert_eq!(databases_named(&name).await, 1);
    drop(database);
    assert_eq!(databases_named(&name).await, 0);
}

#[tokio::test]
async fn two_databases_know_nothing_of_each_other() {
    let engines = TestEngines::shared().await.unwrap();
    let (one, two) = tokio::try_join!(engines.database(), engines.database()).unwrap();
    assert_ne!(one.name(), two.name());
    for database in [&one, &two] {
        connect(&database.url()).await.batch_execute("CREATE TABLE t (n int)").await.unwrap();
    }
}

#[tokio::test]
async fn the_redis_has_a_url() {
    let engines = TestEngines::shared().await.unwrap();
    let socket = engines.redis_url().strip_prefix("redis+unix://").unwrap();
    assert!(std::path::Path::new(socket).exists());
}

#[tokio::test]
async fn a_template_is_filled_once_and_copied() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let engines = TestEngines::shared().await.unwrap();
    let template = TestEngines::unique_name();
    let filled = AtomicU32::new(0);
    let copy = || {
        engines.database_like(&template, async |database| {
            filled.fetch_add(1, Ordering::SeqCst);
            let client = connect(&database.url()).await;
            Ok(client.batch_execute("CREATE TABLE t AS SELECT 1 AS n").await?)
        })
    };
    let (one, two) = tokio::try_join!(copy(), copy()).unwrap();
    let three = copy().await.unwrap();
    assert_eq!(filled.load(Ordering::SeqCst), 1);
    for database in [&one, &two, &three] {
        let client = connect(&database.url()).await;
        client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    }
}

/// Printed with `--nocapture`: what a test pays.
#[tokio::test]
async fn a_database_is_cheap() {
    let engines = TestEngines::shared().await.unwrap();
    let start = std::time::Instant::now();
    let database = engines.database().await.unwrap();
    let created = start.elapsed();
    drop(database);
    println!("create {created:?}, create and drop {:?}", start.elapsed());
}
