//! `project` alone: what it folds and seals while no `serve` runs, and what it shows of itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use support::{Settings, TestApp, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::Client;

/// A running `project`, and where its metrics are.
struct Project {
    child: Child,
    metrics: String,
}

/// Starts it with these settings, and the database's.
fn project(app: &TestApp, settings: &[(&str, &str)]) -> Project {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_coditect-license"))
        .arg("project")
        .env_clear()
        .env("DATABASE_URL", &app.config.database.database_url)
        .env("METRICS_ADDR", &free)
        .env("NOTARY_SEAL_SECONDS", "1")
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Project { child, metrics: format!("http://{free}") }
}

impl Project {
    async fn get(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("{}{path}", self.metrics)).await.ok()?;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.ok()
    }

    /// Ends it as Kubernetes would; answers its log.
    async fn end(mut self) -> Vec<Value> {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut lines = BufReader::new(self.child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            log.push(serde_json::from_str(&line).unwrap());
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end"));
        assert_eq!(ended.unwrap().code(), Some(0));
        log
    }
}

/// Gives both leases to somebody else, until then.
async fn lend(client: &Client, until: &str) {
    let sql = format!(
        "update notary set holder = gen_random_uuid(), lease_until = {until};
         insert into projection_lease (holder, until) values (gen_random_uuid(), {until})
         on conflict (singleton) do update set holder = excluded.holder, until = excluded.until"
    );
    client.batch_execute(&sql).await.unwrap();
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A log with a grant in it that nobody has folded or sealed, and no replica.
async fn left_alone() -> (TestApp, Client, String) {
    let mut app = TestApp::start(Settings { replicas: 0, ..Settings::default() }).await;
    let client = app.superuser().await;
    lend(&client, "now() + interval '1 hour'").await;
    app.add_replica().await;
    let tenant = app.tenant(2).await;
    app.granted(&app.user(&tenant, "ada"), "laptop-of-ada").await;
    app.replicas.remove(0).stop().await;
    let id = tenant["id"].as_str().unwrap().to_owned();
    (app, client, id)
}

#[tokio::test]
async fn it_folds_and_seals_what_no_replica_did_and_shows_its_metrics() {
    let (app, client, tenant) = left_alone().await;
    let folded = format!("select count(*) from sessions_view where tenant_id = '{tenant}'");
    let sealed = format!("select count(*) from tenant_checkpoints where tenant_id = '{tenant}'");
    assert_eq!((number(&client, &folded).await, number(&client, &sealed).await), (0, 0));
    lend(&client, "'-infinity'").await;

    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), support::signing_key()).unwrap();
    let project = project(&app, &[("SIGNING_KEY_FILE", key.path().to_str().unwrap())]);
    eventually("the seat is shown", async || number(&client, &folded).await == 1).await;
    eventually("the tenant is sealed", async || number(&client, &sealed).await == 1).await;
    assert_eq!(project.get("/health").await.as_deref(), Some("OK"));
    let fits = |metrics: &str| {
        [
            "license_projection_lag_events{projection=\"activity\"} 0",
            "license_signature_failures_total{signer=\"local\"} 0",
        ]
        .iter()
        .all(|line| metrics.contains(line))
            && !metrics.contains("license_notary_checkpoint 0\n")
    };
    eventually("its metrics", async || project.get("/metrics").await.is_some_and(|text| fits(&text))).await;
    let log = project.end().await;
    assert!(log.iter().any(|line| line["message"] == "this process may be the notary"), "{log:?}");
}

#[tokio::test]
async fn without_a_signer_it_folds_and_says_that_it_seals_nothing() {
    let (app, client, tenant) = left_alone().await;
    let folded = format!("select count(*) from sessions_view where tenant_id = '{tenant}'");
    lend(&client, "'-infinity'").await;
    let project =
        project(&app, &[("SIGNER", "none"), ("KMS_KEY", "projects/a/locations/b/keyRings/c/cryptoKeys/d")]);
    eventually("the seat is shown", async || number(&client, &folded).await == 1).await;
    let log = project.end().await;
    let said = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("no signer is set"));
    assert!(log.iter().any(said), "{log:?}");
    assert_eq!(number(&client, "select count(*) from notary where lease_until > now()").await, 0);
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_stops_the_start_and_a_signer_that_does_not_answer_does_not() {
    let (app, client, tenant) = left_alone().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (settings, named) in [
        ([("SIGNER", "kms"), ("RUST_LOG", "off")], "KMS_KEY"),
        ([("SIGNING_KEY_FILE", "/nowhere"), ("RUST_LOG", "off")], "SIGNING_KEY_FILE"),
        ([("METRICS_ADDR", "nowhere"), ("RUST_LOG", "off")], "METRICS_ADDR"),
        ([("METRICS_ADDR", taken.as_str()), ("RUST_LOG", "off")], "METRICS_ADDR"),
    ] {
        let refused = project(&app, &settings).child.wait_with_output().await.unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.lines().count() == 1 && said.contains(named), "{said}");
    }

    lend(&client, "'-infinity'").await;
    let kms = [
        ("SIGNER", "kms"),
        ("KMS_KEY", "projects/a/locations/b/keyRings/c/cryptoKeys/d"),
        ("KMS_ENDPOINT", "http://127.0.0.1:9"),
    ];
    let project = project(&app, &kms);
    let folded = format!("select count(*) from sessions_view where tenant_id = '{tenant}'");
    eventually("the seat is shown", async || number(&client, &folded).await == 1).await;
    project.end().await;
}
