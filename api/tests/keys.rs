//! `coditect-license keys`, as an operator runs it, while replicas serve.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually};

/// How long a key of these tests is published before it signs.
const PUBLISHED_SECONDS: u32 = 4;

/// Replicas with a short publication time.
async fn service(replicas: usize) -> TestApp {
    let mut app = TestApp::start(Settings { replicas: 0, ..Settings::default() }).await;
    app.config.signing.key_publication_seconds = PUBLISHED_SECONDS;
    for _ in 0..replicas {
        app.add_replica().await;
    }
    app
}

/// Runs the command with the service's settings: whether it succeeded, and what it said.
async fn keys(app: &TestApp, arguments: &[&str]) -> (bool, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"))
        .arg("keys")
        .args(arguments)
        .env("DATABASE_URL", app.database.url())
        .env("SIGNING_KEY_FILE", app.config.signing.signing_key_file.as_ref().unwrap())
        .env("KEY_PUBLICATION_SECONDS", PUBLISHED_SECONDS.to_string())
        .env("KEYS_BY", "ada@ops")
        .output()
        .await
        .unwrap();
    let said = if ran.status.success() { ran.stdout } else { ran.stderr };
    (ran.status.success(), String::from_utf8(said).unwrap())
}

async fn keys_json(app: &TestApp, arguments: &[&str]) -> Value {
    let (done, said) = keys(app, &[arguments, &["--json"]].concat()).await;
    assert!(done, "{said}");
    serde_json::from_str(&said).unwrap()
}

async fn jwk_set(http: &reqwest::Client, url: &str) -> JwkSet {
    http.get(format!("{url}/.well-known/jwks.json")).send().await.unwrap().json().await.unwrap()
}

async fn published(app: &TestApp, replica: usize) -> Vec<String> {
    let set = jwk_set(&app.http, &app.replicas[replica].url).await;
    set.keys.into_iter().filter_map(|jwk| jwk.common.key_id).collect()
}

fn verifies(token: &str, set: &JwkSet) -> bool {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["coditect"]);
    let kid = decode_header(token).unwrap().kid.unwrap();
    let Some(jwk) = set.find(&kid) else { return false };
    decode::<Value>(token, &DecodingKey::from_jwk(jwk).unwrap(), &validation).is_ok()
}

fn kid_of(seat: &Value) -> String {
    decode_header(seat["license_token"].as_str().unwrap()).unwrap().kid.unwrap()
}

/// Clients that acquire, verify with the set they keep, and release, until told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(app: &TestApp, tenant: &Value) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..6).map(|number| {
            let url = app.replicas[number % app.replicas.len()].url.clone();
            let (token, http) = (app.user(tenant, &format!("user-{number}")), app.http.clone());
            tokio::spawn(work(http, url, token, stop.clone(), done.clone()))
        });
        let tasks = tasks.collect();
        Self { stop, done, tasks }
    }

    /// Waits until they have done so much more.
    async fn go_on(&self, rounds: usize) {
        let goal = self.done.load(Ordering::SeqCst) + rounds;
        eventually("the clients' work", async || self.done.load(Ordering::SeqCst) >= goal).await;
    }

    /// What went wrong for any of them.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        failures
    }
}

/// A client's set is a second old at most: a quarter of the publication time, as an hour is less than two.
async fn work(
    http: reqwest::Client,
    url: String,
    token: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut fetched = std::time::Instant::now();
    let mut set = jwk_set(&http, &url).await;
    while !stop.load(Ordering::SeqCst) {
        if fetched.elapsed() > Duration::from_secs(1) {
            (set, fetched) = (jwk_set(&http, &url).await, std::time::Instant::now());
        }
        let post = |path: &str, body: Value| {
            http.post(format!("{url}/api/v1/licenses/{path}")).bearer_auth(&token).json(&body).send()
        };
        let answer = post("acquire", json!({ "hardware_id": "machine-of-many" })).await.unwrap();
        let status = answer.status();
        let seat: Value = answer.json().await.unwrap();
        // A busy machine is late sometimes, and a client comes again; that there is no signature would be our fault.
        if seat["detail"] == "No answer in time. Try again." {
            continue;
        }
        if status != reqwest::StatusCode::OK {
            failures.push(format!("acquire: {status} {seat}"));
            continue;
        }
        if !verifies(seat["license_token"].as_str().unwrap(), &set) {
            failures.push(format!("{} does not verify with a set of {:?}", kid_of(&seat), fetched.elapsed()));
        }
        let released = post("release", json!({ "session_id": seat["session_id"] })).await.unwrap();
        if ![200, 503].contains(&released.status().as_u16()) {
            failures.push(format!("release: {}", released.status()));
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_refuses_nobody() {
    let app = service(2).await;
    let tenant = app.tenant(10).await;
    let alice = app.user(&tenant, "alice");
    let before = app.granted(&alice, "laptop-of-alice").await;
    let clients = Clients::start(&app, &tenant);
    clients.go_on(6).await;

    let rotated = keys_json(&app, &["rotate"]).await;
    assert_eq!((&rotated["outcome"], &rotated["state"]), (&json!("created"), &json!("waits")));
    let kid = rotated["kid"].as_str().unwrap().to_owned();
    for replica in [0, 1] {
        eventually("the new key in the set", async || published(&app, replica).await.contains(&kid)).await;
    }
    let waiting = keys_json(&app, &["rotate"]).await;
    assert_eq!((&waiting["outcome"], &waiting["kid"]), (&json!("already_waits"), &json!(kid)));

    for replica in [0, 1] {
        let switched = async || {
            let seat =
                app.acquire_at(replica, &alice, "laptop-of-alice").await.json::<Value>().await.unwrap();
            kid_of(&seat) == kid
        };
        eventually("the new key signs", switched).await;
    }
    clients.go_on(6).await;
    let failures = clients.stop().await;
    assert!(failures.is_empty(), "{failures:?}");

    // What the old key signed goes on verifying, so it is not retired.
    let old = kid_of(&before);
    assert!(verifies(before["license_token"].as_str().unwrap(), &jwk_set(&app.http, app.url()).await));
    let (done, why) = keys(&app, &["retire", &old]).await;
    assert!(!done && why.contains("may live until"), "{why}");
    assert_eq!(published(&app, 0).await.len(), 2);
    let (done, why) = keys(&app, &["retire", &kid]).await;
    assert!(!done && why.contains("signs now"), "{why}");

    // Once its last token has expired, it is.
    let client = app.superuser().await;
    let age = "update signing_keys set last_used_at = last_used_at - interval '25 hours' where kid = $1";
    client.execute(age, &[&old]).await.unwrap();
    let retired = keys_json(&app, &["retire", &old, "--reason", "after a rotation"]).await;
    assert_eq!((&retired["kid"], &retired["already"]), (&json!(old), &json!(false)));
    for replica in [0, 1] {
        eventually("the old key leaves the set", async || published(&app, replica).await == [kid.clone()])
            .await;
    }
    let file = std::fs::read_to_string(app.config.signing.signing_key_file.as_ref().unwrap()).unwrap();
    assert_eq!(file.matches("BEGIN PRIVATE KEY").count(), 1);

    let events = keys_json(&app, &["list", "--events"]).await;
    let types: Vec<_> = events.as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    let published = ["signing_key_published", "signing_key_activated"];
    assert_eq!(types[..2], published);
    for name in ["signing_key_created", "signing_key_retired"] {
        let one = events.as_array().unwrap().iter().find(|one| one["type"] == name).unwrap();
        assert_eq!(one["data"]["by"], "ada@ops");
    }
    assert_eq!(types.iter().filter(|name| **name == "signing_key_published").count(), 2, "{types:?}");
    assert_eq!(types.iter().filter(|name| **name == "signing_key_activated").count(), 2, "{types:?}");
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_compromised_key_is_gone_at_once_on_every_replica() {
    let app = service(2).await;
    let tenant = app.tenant(10).await;
    let alice = app.user(&tenant, "alice");
    let before = app.granted(&alice, "laptop-of-alice").await;
    let old = kid_of(&before);
    let (done, why) = keys(&app, &["retire", "nobody"]).await;
    assert!(!done && why.contains("no key is called nobody"), "{why}");

    let retired = keys_json(&app, &["retire", &old, "--emergency", "--reason", "leaked"]).await;
    let new = retired["created"].as_str().unwrap().to_owned();
    for replica in [0, 1] {
        assert_eq!(published(&app, replica).await, std::slice::from_ref(&new), "none may answer what was");
    }
    for replica in [0, 1] {
        let seat = async || app.acquire_at(replica, &alice, "laptop-of-alice").await;
        // A replica learns of it within a second, and until then may have no signature to give.
        eventually("the new key signs", async || {
            let seat: Value = seat().await.json().await.unwrap();
            seat["license_token"].is_string() && kid_of(&seat) == new
        })
        .await;
    }
    assert!(!verifies(before["license_token"].as_str().unwrap(), &jwk_set(&app.http, app.url()).await));

    // A key that was retired never comes back, whatever a file holds.
    let file = app.config.signing.signing_key_file.as_ref().unwrap();
    let kept = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{}{kept}", support::signing_key())).unwrap();
    let mut app = app;
    app.add_replica().await;
    assert_eq!(published(&app, 2).await, [new]);
    let again = keys_json(&app, &["retire", &old, "--emergency"]).await;
    assert_eq!(again["already"], true);
    let lines = keys_json(&app, &["list"]).await;
    assert_eq!(lines[0]["state"], "retired");
    assert_eq!(lines[1]["state"], "signs");
}

/// The platform's stream is nobody's tenant.
#[tokio::test]
async fn no_claim_and_no_path_leads_to_the_platforms_stream() {
    let app = support::start().await;
    let nil = "00000000-0000-0000-0000-000000000000";
    let stranger =
        app.token(&json!({ "sub": "eve", "tenant_id": nil, "roles": ["tenant_admin", "auditor"] }));
    support::problem(app.acquire(&stranger, "laptop-of-eve").await, 404, "tenant_not_found").await;
    for token in [&stranger, &app.platform()] {
        for path in ["", "/events", "/licenses"] {
            let answer = app.get(&format!("/api/v1/tenants/{nil}{path}"), token).await;
            support::problem(answer, 404, "tenant_not_found").await;
        }
    }
}
