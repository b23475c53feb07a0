//! What operators rely on: probes, metrics, limits, request ids, draining, dependencies that come and go.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::time::{Duration, Instant};

use engines::{Redis, RedisOptions, Scratch};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually, problem, start};

#[tokio::test]
async fn probes_name_each_dependency_and_redis_is_not_needed() {
    let scratch = Scratch::new().unwrap();
    let redis = Redis::start(RedisOptions::new(scratch.path())).await.unwrap();
    let app = TestApp::start(Settings { redis_url: Some(redis.url()), ..Settings::default() }).await;
    let ready = async || {
        let answer = app.http.get(format!("{}/ready", app.url())).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let up = json!({ "status": "ok", "dependencies": { "postgres": "up", "redis": "up" } });
    eventually("ok", async || ready().await == (200, up.clone())).await;
    redis.stop_immediately().await.unwrap();
    let degraded = json!({ "status": "degraded", "dependencies": { "postgres": "up", "redis": "down" } });
    eventually("degraded", async || ready().await == (200, degraded.clone())).await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let seat = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!(app.heartbeat(&alice, &seat["session_id"]).await.status(), StatusCode::OK);
    assert_eq!(app.release(&alice, &seat["session_id"]).await.status(), StatusCode::OK);
    let health = app.http.get(format!("{}/health", app.url())).send().await.unwrap();
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "status": "ok" }));
}

#[tokio::test]
async fn request_ids_go_in_and_out() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let ask = async |id: &str| {
        let request = app.http.get(format!("{}/health", app.url())).header("X-Request-Id", id);
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("my-own id_7").await, "my-own id_7");
    assert_eq!(ask(&"x".repeat(64)).await, "x".repeat(64));
    assert_ne!(ask(&"x".repeat(65)).await, "x".repeat(65));
    assert_eq!(ask("").await.len(), 36);
    let answer = app
        .http
        .post(format!("{}/api/v1/licenses/acquire", app.url()))
        .bearer_auth(app.user(&tenant, "alice"))
        .header("X-Request-Id", "acquire-of-alice")
        .json(&json!({ "hardware_id": "laptop-of-alice" }));
    assert_eq!(answer.send().await.unwrap().status(), StatusCode::OK);
    let events = app.events(&tenant).await;
    let acquired = events.iter().find(|one| one["type"] == "seat_acquired").unwrap();
    assert_eq!(acquired["request_id"], "acquire-of-alice");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let app = start().await;
    let platform = app.platform();
    problem(app.get("/nowhere", &platform).await, 404, "not_found").await;
    problem(app.get("/api/v1/licenses/acquire", &platform).await, 405, "method_not_allowed").await;
    problem(app.post("/health", &platform, &json!({})).await, 405, "method_not_allowed").await;
    for path in [
        "/health/",
        "/ready/",
        "/api/v1/public-key/",
        "/.well-known/jwks.json/",
        "/openapi.json",
        "/docs",
        "/docs/",
    ] {
        assert_eq!(app.get(path, &platform).await.status(), StatusCode::OK, "{path}");
    }
    let document: Value = app.get("/openapi.json", &platform).await.json().await.unwrap();
    for path in ["/api/v1/licenses/acquire", "/api/v1/tenants/{tenant_id}/events", "/ready"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test]
async fn limits_count_per_user_and_per_tenant() {
    let app =
        TestApp::start(Settings { per_user_per_minute: 3, per_tenant_per_second: 8, ..Settings::default() })
            .await;
    let tenant = app.tenant(20).await;
    let alice = app.user(&tenant, "alice");
    for _ in 0..3 {
        assert_eq!(app.acquire(&alice, "laptop-of-alice").await.status(), StatusCode::OK);
    }
    let limited = app.acquire(&alice, "laptop-of-alice").await;
    let wait: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    problem(limited, 429, "rate_limited").await;
    // Another user is not alice; but all of them together are the tenant.
    let mut refused = 0;
    for n in 0..15 {
        let token = app.user(&tenant, &format!("user-{n}"));
        let answer = app.acquire(&token, "some-machine").await;
        refused += u32::from(answer.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused > 0);
    // A token that does not verify is not counted, and not let in either.
    problem(app.acquire("no-token", "some-machine").await, 401, "invalid_token").await;
}

#[tokio::test]
async fn browsers_may_call_from_allowed_origins_only() {
    let app =
        TestApp::start(Settings { cors: vec!["https://app.coditect.ai".to_owned()], ..Settings::default() })
            .await;
    let preflight = async |origin: &str| {
        let url = format!("{}/api/v1/licenses/acquire", app.url());
        let request = app.http.request(Method::OPTIONS, url).header("Origin", origin);
        request.header("Access-Control-Request-Method", "POST").send().await.unwrap()
    };
    let allowed = preflight("https://app.coditect.ai").await;
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.coditect.ai");
    let refused = preflight("https://evil.example").await;
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_replica_drains_and_its_sessions_live_on_elsewhere() {
    let mut app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let seat = app.granted(&alice, "laptop-of-alice").await;
    app.replicas.remove(0).stop().await;
    assert_eq!(app.heartbeat(&alice, &seat["session_id"]).await.status(), StatusCode::OK);
    assert_eq!(app.release(&alice, &seat["session_id"]).await.status(), StatusCode::OK);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_frozen_database_is_503_within_a_second_and_nothing_is_lost() {
    use engines::{Postgres, PostgresOptions, Signal};
    let scratch = Scratch::new().unwrap();
    let postgres = Postgres::start(PostgresOptions::new(scratch.path())).await.unwrap();
    postgres.create_database("outage").await.unwrap();
    events::migrate(&postgres.url("outage")).await.unwrap();
    let mut app = TestApp::start(Settings { replicas: 0, ttl_seconds: 3, ..Settings::default() }).await;
    app.config.database.database_url = postgres.url("outage");
    app.add_replica().await;
    let tenant = app.tenant(2).await;
    let alice = app.user(&tenant, "alice");
    let seat = app.granted(&alice, "laptop-of-alice").await;

    postgres.signal(Signal::Stop).unwrap();
    // Longer than the TTL: the client keeps trying, and keeps its session.
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(5) {
        let begun = Instant::now();
        let answer = app.heartbeat(&alice, &seat["session_id"]).await;
        let taken = begun.elapsed();
        assert!(answer.headers().contains_key("retry-after"));
        problem(answer, 503, "unavailable").await;
        assert!(taken < Duration::from_secs(3), "an answer took {taken:?}");
    }
    postgres.signal(Signal::Continue).unwrap();
    eventually("the heartbeat", async || {
        app.heartbeat(&alice, &seat["session_id"]).await.status() == StatusCode::OK
    })
    .await;
    let again = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!((&again["status"], &again["session_id"]), (&json!("renewed"), &seat["session_id"]));
    let types = app.event_types(&tenant).await;
    assert!(
        !types.contains(&"seat_expired".to_owned()),
        "nobody loses a seat for the server's fault: {types:?}"
    );
    for replica in app.replicas.drain(..) {
        replica.crash().await;
    }
}

#[tokio::test]
async fn the_binary_says_in_one_line_what_is_missing_and_drains_on_sigterm() {
    let binary = env!("CARGO_BIN_EXE_coditect-license");
    let output = tokio::process::Command::new(binary).arg("serve").env_clear().output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.success(), said.lines().count()), (false, 1), "{said}");
    for name in ["DATABASE_URL", "REDIS_URL", "OIDC_ISSUER", "OIDC_AUDIENCE"] {
        assert!(said.contains(name), "{said}");
    }

    let app = start().await;
    let (collector, traces) = collector().await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), support::signing_key()).unwrap();
    let port = |listener: std::net::TcpListener| listener.local_addr().unwrap().to_string();
    let free = || port(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let (listen, metrics) = (free(), free());
    let mut serve = tokio::process::Command::new(binary)
        .arg("serve")
        .env_clear()
        .env("DATABASE_URL", &app.config.database.database_url)
        .env("REDIS_URL", &app.config.redis.redis_url)
        .env("OIDC_ISSUER", app.issuer.url())
        .env("OIDC_AUDIENCE", "coditect-license")
        .env("SIGNING_KEY_FILE", key.path())
        .env("LISTEN_ADDR", &listen)
        .env("METRICS_ADDR", &metrics)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let get = async |url: String| app.http.get(url).send().await;
    eventually("ready", async || {
        get(format!("http://{listen}/ready")).await.is_ok_and(|one| one.status() == StatusCode::OK)
    })
    .await;
    let tenant = app.tenant(1).await;
    let body = json!({ "hardware_id": "laptop-of-alice" });
    let seat = app
        .http
        .post(format!("http://{listen}/api/v1/licenses/acquire"))
        .bearer_auth(app.user(&tenant, "alice"))
        .json(&body);
    assert_eq!(seat.send().await.unwrap().status(), StatusCode::OK);

    let exported = get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
    for name in [
        "license_http_requests_total",
        "license_http_request_duration_seconds_bucket",
        "license_seat_decisions_total{decision=\"granted\"} 1",
        "license_sessions_active",
        "license_pool_actors 1",
        "license_actor_restarts_total",
        "license_event_append_duration_seconds_bucket",
        "license_event_append_batch_size_bucket",
        "license_events_appended_total{type=\"seat_acquired\"} 1",
        "license_append_conflicts_total",
        "license_redis_up 1",
        "license_redis_call_duration_seconds_bucket",
        "license_postgres_up 1",
        "license_mirror_repairs_total",
        "license_signature_duration_seconds_bucket{signer=\"local\"",
        "license_signature_failures_total{signer=\"local\"} 0",
        "license_projection_lag_events{projection=",
        "license_projection_lag_seconds{projection=",
    ] {
        assert!(exported.contains(name), "{name} is not exported:\n{exported}");
    }
    for metric in exported.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = metric.split(' ').next().unwrap();
        assert!(exported.contains(&format!("# HELP {name} ")), "{name} has no help");
    }

    let pid = serve.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(10), serve.wait())
        .await
        .unwrap_or_else(|_| panic!("it does not end"));
    assert_eq!(ended.unwrap().code(), Some(0));
    let traces = traces.lock().unwrap().concat();
    for name in ["coditect-license", "/api/v1/licenses/acquire", "append", "sign"] {
        assert!(traces.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "no trace has {name}");
    }
}

type Bodies = std::sync::Arc<std::sync::Mutex<Vec<Vec<u8>>>>;

#[poem::handler]
fn collect(bodies: poem::web::Data<&Bodies>, body: Vec<u8>) {
    bodies.lock().unwrap().push(body);
}

/// An OTLP collector that keeps what it is sent.
async fn collector() -> (String, Bodies) {
    use poem::EndpointExt as _;
    let bodies = Bodies::default();
    let (acceptor, address) = api::app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let routes = poem::Route::new().at("/v1/traces", poem::post(collect)).data(bodies.clone());
    tokio::spawn(poem::Server::new_with_acceptor(acceptor).run(routes));
    (format!("http://{address}"), bodies)
}
