//! Migrations: again, at once, and what a program says to a schema that is not its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use engines::{Postgres, PostgresOptions, Scratch, TestDatabase, TestEngines};
use events::{Database, LogError, migrate, require_current_schema};
use futures_util::future::join_all;
use support::{World, connect};

async fn empty() -> TestDatabase {
    TestEngines::shared().await.unwrap().database().await.unwrap()
}

fn database(url: &str) -> Database {
    Database::new(url, 2, Duration::from_secs(10)).unwrap()
}

async fn history(url: &str) -> Vec<(i32, String, String)> {
    let sql = "select version, name, applied_on || checksum from schema_history order by version";
    let rows = connect(url).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = empty().await;
    let version = migrate(&database.url()).await.unwrap();
    let before = history(&database.url()).await;
    assert_eq!(before.len() as i64, version);
    assert_eq!(
        before.iter().map(|one| i64::from(one.0)).collect::<Vec<_>>(),
        (1..=version).collect::<Vec<_>>()
    );
    assert_eq!(migrate(&database.url()).await.unwrap(), version);
    assert_eq!(history(&database.url()).await, before);
}

#[tokio::test]
async fn migrating_keeps_what_was_written() {
    let world = World::new().await;
    let pool = world.pool().await;
    world.seat(pool, "ada").await;
    let before = world.everything().await;
    migrate(&world.database.url()).await.unwrap();
    assert_eq!(world.everything().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_of_one_database_at_once_wait_for_each_other() {
    let one = empty().await;
    let url = one.url();
    let versions = join_all((0..4).map(|_| migrate(&url))).await;
    let versions: Vec<_> = versions.into_iter().map(Result::unwrap).collect();
    assert!(versions.iter().all(|version| *version == versions[0]));
    assert_eq!(history(&url).await.len() as i64, versions[0]);
    require_current_schema(&database(&url)).await.unwrap();
}

/// Roles belong to the whole cluster: here each round begins without one, so both want to make it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_of_two_databases_of_a_new_cluster_at_once_both_succeed() {
    let scratch = Scratch::new().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres")).setting("fsync", "off");
    let postgres = Postgres::start(options).await.unwrap();
    for round in 0..6 {
        for name in ["one", "two"] {
            postgres.create_database(name).await.unwrap();
        }
        let (one, two) = (postgres.url("one"), postgres.url("two"));
        let (first, second) = tokio::join!(
            tokio::spawn({
                let one = one.clone();
                async move { migrate(&one).await }
            }),
            tokio::spawn({
                let two = two.clone();
                async move { migrate(&two).await }
            })
        );
        for (url, version) in [(&one, first), (&two, second)] {
            version.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
            require_current_schema(&database(url)).await.unwrap();
        }
        for name in ["one", "two"] {
            postgres.drop_database(name).await.unwrap();
        }
        let superuser = connect(&postgres.superuser_url("postgres")).await;
        superuser.batch_execute("drop role license_service").await.unwrap();
    }
}

fn advice(error: LogError) -> (i64, i64, String) {
    let text = error.to_string();
    assert!(!error.is_retryable());
    let LogError::Schema { found, known, advice } = error else { panic!("{text}") };
    assert!(text.contains(advice) && text.contains(&found.to_string()));
    (found, known, advice.to_owned())
}

#[tokio::test]
async fn an_empty_database_is_refused_with_advice() {
    let world = World::new().await;
    let known = migrate(&world.database.url()).await.unwrap();
    let empty = empty().await;
    let error = require_current_schema(&database(&empty.url())).await.unwrap_err();
    assert_eq!(advice(error), (0, known, "run `coditect-license migrate` first".to_owned()));
}

#[tokio::test]
async fn an_older_schema_is_refused_and_a_newer_one_unless_it_is_still_made_for_this_program() {
    let world = World::new().await;
    let url = world.database.url();
    let known = migrate(&url).await.unwrap();
    require_current_schema(world.log.database()).await.unwrap();
    world
        .as_superuser(&format!(
            "insert into schema_history select {}, 'of_the_future', applied_on, checksum from schema_history limit 1",
            known + 1
        ))
        .await;
    require_current_schema(&database(&url)).await.unwrap();
    assert_eq!(migrate(&url).await.unwrap(), known + 1, "an older program leaves a newer schema alone");
    world.as_superuser(&format!("update schema_support set oldest_program = {}", known + 1)).await;
    let error = require_current_schema(&database(&url)).await.unwrap_err();
    assert_eq!(advice(error), (known + 1, known, "run a newer program".to_owned()));
    assert_eq!(
        advice(migrate(&url).await.unwrap_err()),
        (known + 1, known, "run a newer program".to_owned())
    );

    world.as_superuser(&format!("delete from schema_history where version >= {known}")).await;
    let error = require_current_schema(&database(&url)).await.unwrap_err();
    assert_eq!(advice(error), (known - 1, known, "run `coditect-license migrate` first".to_owned()));
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let world = World::new().await;
    world.as_superuser("update schema_history set checksum = '1' where version = 1").await;
    let error = migrate(&world.database.url()).await.unwrap_err();
    assert!(matches!(error, LogError::Rejected(_)), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable() {
    let missing = TestEngines::shared().await.unwrap().superuser_url("no_such_database");
    let error = migrate(&missing).await.unwrap_err();
    assert!(matches!(&error, LogError::Unavailable(text) if text.contains("no_such_database")), "{error}");
    let error = require_current_schema(&database(&missing)).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable(_)) && error.is_retryable(), "{error}");
    assert!(!database(&missing).is_up(Duration::from_secs(5)).await);
    assert!(matches!(Database::new("not a url", 1, Duration::from_secs(1)), Err(LogError::Setting(_))));
}

/// Whatever was done on a connection before, it works as the service when it is taken again.
#[tokio::test]
async fn a_connection_works_as_the_service_each_time_it_is_taken() {
    let world = World::new().await;
    let one = Database::new(&world.database.url(), 1, Duration::from_secs(10)).unwrap();
    for _ in 0..3 {
        let connection = one.get().await.unwrap();
        let role: String = connection.query_one("select current_user::text", &[]).await.unwrap().get(0);
        assert_eq!(role, events::SERVICE_ROLE);
        connection.batch_execute("reset role").await.unwrap();
    }
    let connection = one.get().await.unwrap();
    let settings = "select current_setting('statement_timeout') || current_setting('lock_timeout')
                    || current_setting('idle_in_transaction_session_timeout') || current_setting('timezone')";
    let settings: String = connection.query_one(settings, &[]).await.unwrap().get(0);
    assert_eq!(settings, "10s10s10sUTC");
}
