//! A real Postgres is started, frozen, killed, started again, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::time::Duration;

use engines::{Postgres, PostgresOptions, Scratch, Signal, descendants};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn fresh() -> (Postgres, Scratch) {
    let scratch = Scratch::new().unwrap();
    let postgres = Postgres::start(PostgresOptions::new(scratch.path().join("postgres"))).await.unwrap();
    (postgres, scratch)
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn family(postgres: &Postgres) -> Vec<u32> {
    let mut all = descendants(postgres.pid());
    assert!(all.len() >= 3, "a postmaster has children: {all:?}");
    all.push(postgres.pid());
    all
}

fn assert_gone(pids: &[u32]) {
    // A killed postmaster's children are collected by another process, soon.
    for _ in 0..200 {
        if !pids.iter().any(|pid| exists(*pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!pids.iter().any(|pid| exists(*pid)), "some of {pids:?} are left");
}

#[tokio::test]
async fn the_role_may_create_and_is_no_superuser() {
    let (postgres, _scratch) = fresh().await;
    postgres.create_database("shop").await.unwrap();
    let client = connect(&postgres.url("shop")).await;
    client
        .batch_execute("CREATE TABLE t (n bigint); CREATE ROLE tenant LOGIN; CREATE DATABASE other")
        .await
        .unwrap_err();
    client.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    client.batch_execute("CREATE ROLE tenant LOGIN").await.unwrap();
    client.batch_execute("CREATE DATABASE other").await.unwrap();
    let row = client
        .query_one("SELECT rolsuper, current_user::text FROM pg_roles WHERE rolname = current_user", &[])
        .await
        .unwrap();
    assert!(!row.get::<_, bool>(0));
    assert_eq!(row.get::<_, String>(1), "coditect");
    let superuser = connect(&postgres.superuser_url("shop")).await;
    assert_eq!(
        number(&superuser, "SELECT setting::bigint FROM pg_settings WHERE name = 'max_connections'").await,
        200
    );
    let fsync: String = superuser.query_one("SHOW fsync", &[]).await.unwrap().get(0);
    assert_eq!(fsync, "on");
}

#[tokio::test]
async fn a_copy_of_a_template_has_its_rows() {
    let (postgres, _scratch) = fresh().await;
    postgres.create_database("template").await.unwrap();
    let client = connect(&postgres.url("template")).await;
    client.batch_execute("CREATE TABLE t AS SELECT 7::bigint AS n").await.unwrap();
    drop(client);
    postgres.create_database_from("odd \"name\"", "template").await.unwrap();
    let client = connect(&postgres.url("odd \"name\"")).await;
    assert_eq!(number(&client, "SELECT n FROM t").await, 7);
    // Somebody is connected, and it goes away nevertheless.
    postgres.drop_database("odd \"name\"").await.unwrap();
    postgres.drop_database("odd \"name\"").await.unwrap();
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
}

#[tokio::test]
async fn data_survive_the_value_and_a_kill() {
    let scratch = Scratch::new().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres"));
    let postgres = Postgres::start(options.clone()).await.unwrap();
    postgres.create_database("kept").await.unwrap();
    let client = connect(&postgres.url("kept")).await;
    client.batch_execute("CREATE TABLE t AS SELECT 1::bigint AS n").await.unwrap();
    let first = family(&postgres);
    drop(postgres);
    assert_gone(&first);

    let postgres = Postgres::start(options).await.unwrap();
    let client = connect(&postgres.url("kept")).await;
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    let second = family(&postgres);
    postgres.signal(Signal::Kill).unwrap();
    assert!(!postgres.is_running());
    assert_gone(&second);
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
    postgres.signal(Signal::Stop).unwrap_err();

    postgres.start_again().await.unwrap();
    postgres.start_again().await.unwrap_err();
    let client = connect(&postgres.url("kept")).await;
    assert_eq!(number(&client, "SELECT sum(n)::bigint FROM t").await, 3);
    postgres.stop_immediately().await.unwrap();
    postgres.start_again().await.unwrap();
    postgres.restart().await.unwrap();
    let client = connect(&postgres.url("kept")).await;
    assert_eq!(number(&client, "SELECT sum(n)::bigint FROM t").await, 3);
}

/// Only the postmaster dies; its children follow by themselves, and the next start waits for them.
#[tokio::test]
async fn a_postmaster_killed_by_a_stranger_starts_again() {
    let (postgres, _scratch) = fresh().await;
    let client = connect(&postgres.url("postgres")).await;
    let pid = postgres.pid().to_string();
    assert!(
        std::process::Command::new("/bin/sh").args(["-c", "kill -9 $0", &pid]).status().unwrap().success()
    );
    assert!(client.query_one("SELECT pg_sleep(5)", &[]).await.is_err());
    while postgres.is_running() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    postgres.start_again().await.unwrap();
    assert_eq!(number(&connect(&postgres.url("postgres")).await, "SELECT 1::bigint").await, 1);
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_is_thawed() {
    let (postgres, _scratch) = fresh().await;
    let client = connect(&postgres.url("postgres")).await;
    postgres.signal(Signal::Stop).unwrap();
    let mut answer = Box::pin(number(&client, "SELECT 5::bigint"));
    assert!(timeout(Duration::from_millis(300), &mut answer).await.is_err());
    postgres.signal(Signal::Continue).unwrap();
    assert_eq!(timeout(Duration::from_secs(5), answer).await.unwrap(), 5);
}

#[tokio::test]
async fn a_frozen_server_ends_with_its_value() {
    let (postgres, scratch) = fresh().await;
    let _client = connect(&postgres.url("postgres")).await;
    let all = family(&postgres);
    postgres.signal(Signal::Stop).unwrap();
    drop(postgres);
    assert_gone(&all);
    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_directory_serves_one_at_a_time() {
    let (postgres, scratch) = fresh().await;
    let second = Postgres::start(PostgresOptions::new(scratch.path().join("postgres"))).await;
    assert!(second.err().unwrap().to_string().contains("in use"));
    assert!(postgres.is_running());
}

#[tokio::test]
async fn stale_files_do_not_hinder_a_start() {
    let (postgres, scratch) = fresh().await;
    postgres.signal(Signal::Kill).unwrap();
    drop(postgres);
    // The number of the dead postmaster belongs to another program by now: this one.
    let lock = scratch.path().join("postgres/data/postmaster.pid");
    let text = std::fs::read_to_string(&lock).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&lock, format!("{}\n{rest}", std::process::id())).unwrap();
    // An initdb that was killed left this.
    std::fs::create_dir(scratch.path().join("postgres/data.new")).unwrap();
    Postgres::start(PostgresOptions::new(scratch.path().join("postgres"))).await.unwrap();
}

#[tokio::test]
async fn long_and_odd_paths_and_closed_parents_are_no_trouble() {
    // Closed to everybody but us, as temporary directories are.
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("with blank, comma").join("long".repeat(30));
    let postgres = Postgres::start(PostgresOptions::new(&dir)).await.unwrap();
    assert!(dir.join("data/PG_VERSION").exists());
    assert_eq!(number(&connect(&postgres.url("postgres")).await, "SELECT 1::bigint").await, 1);
    let socket_dir = postgres.socket_dir().to_owned();
    drop(postgres);
    assert!(!socket_dir.exists());
}

/// Root lends Postgres another user, who cannot enter this directory: the data move, and the next start finds them.
#[tokio::test]
async fn data_in_a_place_that_is_closed_to_the_server_are_found_again() {
    let parent = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = PostgresOptions::new(parent.path().join("postgres"));
    let postgres = Postgres::start(options.clone()).await.unwrap();
    postgres.create_database("kept").await.unwrap();
    drop(postgres);
    let postgres = Postgres::start(options).await.unwrap();
    connect(&postgres.url("kept")).await;
    drop(postgres);
    if let Ok(place) = std::fs::read_to_string(parent.path().join("postgres/moved-to")) {
        std::fs::remove_dir_all(place.trim_end()).unwrap();
    }
}

#[tokio::test]
async fn a_port_is_open_for_the_role_only() {
    let scratch = Scratch::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = PostgresOptions::new(scratch.path().join("postgres")).port(port).setting("work_mem", "5MB");
    let postgres = Postgres::start(options).await.unwrap();
    let url = postgres.tcp_url("postgres").unwrap();
    let client = connect(&url).await;
    let memory: String = client.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
    assert_eq!(memory, "5MB");
    assert!(tokio_postgres::connect(&url.replace("coditect@", "postgres@"), NoTls).await.is_err());
    assert_eq!(number(&connect(&postgres.url("postgres")).await, "SELECT 1::bigint").await, 1);
}

#[tokio::test]
async fn a_wrong_setting_is_named_in_the_error() {
    let scratch = Scratch::new().unwrap();
    let options = PostgresOptions::new(scratch.path().join("postgres")).setting("no_such_setting", "1");
    let error = Postgres::start(options).await.err().unwrap();
    assert!(error.to_string().contains("no_such_setting"), "{error:#}");
}
