//! A running service of one or more replicas on a database of its own, and clients to talk to it.

#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use api::app::{self, App};
use api::config::{
    DatabaseConfig, IdentityConfig, LimitConfig, ListenConfig, LogFormat, NotaryConfig, RedisConfig,
    ServeConfig, SessionConfig, SigningConfig, TelemetryConfig,
};
use api::dev::{AUDIENCE, Issuer};
use api::signing::LocalSigner;
use aws_lc_rs::rsa::KeySize;
use engines::{TestDatabase, TestEngines};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// RSA-4096 takes a while to make: one key for all tests of a file.
static SIGNING_KEY: LazyLock<String> = LazyLock::new(|| LocalSigner::generate_pem(KeySize::Rsa4096).unwrap());

pub fn signing_key() -> &'static str {
    &SIGNING_KEY
}

/// One process's worth of service.
pub struct Replica {
    pub app: App,
    pub url: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    /// Drains and ends.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        (&mut self.serving).await.unwrap().unwrap();
    }

    /// Ends at once, as a crash would: nothing is drained.
    pub async fn crash(self) {
        self.serving.abort();
        self.app.stop().await;
    }
}

/// What a test may set.
pub struct Settings {
    pub replicas: usize,
    pub ttl_seconds: u32,
    pub per_user_per_minute: u32,
    pub per_tenant_per_second: u32,
    pub redis_url: Option<String>,
    pub tenant_claim: String,
    pub cors: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: 1,
            ttl_seconds: 360,
            per_user_per_minute: 0,
            per_tenant_per_second: 0,
            redis_url: None,
            tenant_claim: "tenant_id".to_owned(),
            cors: Vec::new(),
        }
    }
}

/// A service on a database of its own.
pub struct TestApp {
    pub replicas: Vec<Replica>,
    pub issuer: Issuer,
    pub database: TestDatabase,
    pub config: ServeConfig,
    pub http: Client,
    _key: tempfile::NamedTempFile,
}

pub async fn start() -> TestApp {
    TestApp::start(Settings::default()).await
}

impl TestApp {
    pub async fn start(settings: Settings) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let engines = TestEngines::shared().await.unwrap();
        let database = engines.database().await.unwrap();
        events::migrate(&database.url()).await.unwrap();
        let issuer = Issuer::start(loopback(), None).await.unwrap();
        let key = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(key.path(), signing_key()).unwrap();
        let config = ServeConfig {
            listen: ListenConfig {
                listen_addr: loopback(),
                metrics_addr: loopback(),
                shutdown_grace_seconds: 5,
                cors_allowed_origins: settings.cors,
            },
            database: DatabaseConfig { database_url: database.url() },
            redis: RedisConfig {
                redis_url: settings.redis_url.unwrap_or_else(|| engines.redis_url().to_owned()),
            },
            identity: IdentityConfig {
                oidc_issuer: issuer.url(),
                oidc_audience: AUDIENCE.to_owned(),
                oidc_jwks_url: None,
                oidc_tenant_claim: settings.tenant_claim,
                oidc_roles_claim: "roles".to_owned(),
            },
            signing: SigningConfig::local(key.path().to_owned()),
            session: SessionConfig {
                session_ttl_seconds: settings.ttl_seconds,
                heartbeat_interval_seconds: 300,
                offline_grace_seconds: 86_400,
            },
            limits: LimitConfig {
                rate_limit_per_user_per_minute: settings.per_user_per_minute,
                rate_limit_per_tenant_per_second: settings.per_tenant_per_second,
            },
            notary: NotaryConfig { notary_seal_seconds: 1 },
            telemetry: TelemetryConfig {
                log_format: LogFormat::Text,
                rust_log: "warn".to_owned(),
                otel_exporter_otlp_endpoint: None,
            },
        };
        let http = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let mut app = Self { replicas: Vec::new(), issuer, database, config, http, _key: key };
        for _ in 0..settings.replicas {
            app.add_replica().await;
        }
        app
    }

    pub async fn add_replica(&mut self) {
        let (acceptor, address) = app::listen(loopback()).await.unwrap();
        let app = app::build(&self.config).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(app.clone().serve(acceptor, stopped, Duration::from_secs(5)));
        self.replicas.push(Replica { app, url: format!("http://{address}"), stop: Some(stop), serving });
    }

    pub fn url(&self) -> &str {
        &self.replicas[0].url
    }

    pub fn token(&self, claims: &Value) -> String {
        self.issuer.token(claims).unwrap()
    }

    pub fn platform(&self) -> String {
        self.token(&json!({ "sub": "platform", "roles": ["platform_admin"] }))
    }

    /// Makes a tenant with so many seats; answers it as the API shows it.
    pub async fn tenant(&self, seats: u32) -> Value {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let body = json!({ "name": "Acme", "subdomain": name, "plan": "team", "max_seats": seats });
        let answer = self.post("/api/v1/tenants", &self.platform(), &body).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json().await.unwrap()
    }

    /// A token of a user of a tenant.
    pub fn user(&self, tenant: &Value, sub: &str) -> String {
        self.token(&json!({ "sub": sub, "tenant_id": tenant["id"] }))
    }

    /// A token with one role.
    pub fn role(&self, tenant: &Value, role: &str) -> String {
        self.token(&json!({ "sub": role, "tenant_id": tenant["id"], "roles": [role] }))
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Response {
        self.post_to(0, path, token, body).await
    }

    pub async fn post_to(&self, replica: usize, path: &str, token: &str, body: &Value) -> Response {
        let url = format!("{}{path}", self.replicas[replica].url);
        self.http.post(url).bearer_auth(token).json(body).send().await.unwrap()
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> Response {
        self.http.put(format!("{}{path}", self.url())).bearer_auth(token).json(body).send().await.unwrap()
    }

    pub async fn get(&self, path: &str, token: &str) -> Response {
        self.http.get(format!("{}{path}", self.url())).bearer_auth(token).send().await.unwrap()
    }

    pub async fn acquire(&self, token: &str, hardware_id: &str) -> Response {
        self.acquire_at(0, token, hardware_id).await
    }

    pub async fn acquire_at(&self, replica: usize, token: &str, hardware_id: &str) -> Response {
        self.post_to(replica, "/api/v1/licenses/acquire", token, &json!({ "hardware_id": hardware_id })).await
    }

    /// Acquires and answers the body, which must be a grant.
    pub async fn granted(&self, token: &str, hardware_id: &str) -> Value {
        let answer = self.acquire(token, hardware_id).await;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub async fn heartbeat(&self, token: &str, session_id: &Value) -> Response {
        self.post("/api/v1/licenses/heartbeat", token, &json!({ "session_id": session_id })).await
    }

    pub async fn release(&self, token: &str, session_id: &Value) -> Response {
        self.post("/api/v1/licenses/release", token, &json!({ "session_id": session_id })).await
    }

    /// All events of a tenant, page by page.
    pub async fn events(&self, tenant: &Value) -> Vec<Value> {
        let auditor = self.role(tenant, "auditor");
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/tenants/{}/events?limit=1000{after}", tenant["id"].as_str().unwrap());
            let page: Value =
                self.get(&path, &auditor).await.error_for_status().unwrap().json().await.unwrap();
            all.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// The types of all events of a tenant.
    pub async fn event_types(&self, tenant: &Value) -> Vec<String> {
        self.events(tenant).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// A connection with all rights, for looking and for breaking things.
    pub async fn superuser(&self) -> tokio_postgres::Client {
        connect(&self.database.superuser_url()).await
    }

    /// Sessions end, and what is left agrees: seats table, log, and versions without a gap.
    pub async fn assert_consistent(&self) {
        let client = self.superuser().await;
        let gaps = client
            .query(
                "select stream_id from (select stream_id, version,
                   row_number() over (partition by stream_id order by version) as n from events_decision) t
                 where version <> n limit 1",
                &[],
            )
            .await
            .unwrap();
        assert!(gaps.is_empty(), "a stream has a gap");
        let held = "select session_id from events_decision where type = 'seat_acquired' except
                    select session_id from events_decision where type in ('seat_released', 'seat_expired', 'seat_revoked')";
        for sql in [
            format!("select session_id from seats except ({held})"),
            format!("({held}) except select session_id from seats"),
        ] {
            assert!(client.query(&sql, &[]).await.unwrap().is_empty(), "seats and log disagree: {sql}");
        }
    }
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The body of a problem, after checking its shape.
pub async fn problem(answer: Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let found = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], request_id.as_str());
    for field in ["type", "title", "detail"] {
        assert!(body[field].is_string(), "{body}");
    }
    body
}

/// Waits until something holds, at most ten seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come to hold");
}
