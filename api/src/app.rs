//! Where the parts are joined: build, run, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::{Gate, Grant, Members, Pools, Tenants, Writer};
use anyhow::Context;
use audit::Notary;
use events::{Database, EventLog, LicenseId, LogError, Product, SessionId, SessionPlace, TenantId, Time};
use moka::future::Cache;
use poem::listener::{Acceptor, Listener, TcpAcceptor, TcpListener};
use poem::middleware::{NormalizePath, TrailingSlash};
use poem::{Endpoint, EndpointExt, IntoEndpoint, Server};
use projections::{QueryError, ReadModels};
use tokio::task::AbortHandle;

use crate::auth::Authenticator;
use crate::config::{ServeConfig, SessionConfig, SignerKind, SigningConfig};
use crate::cors::Cors;
use crate::edge::Edge;
use crate::limits::RateLimits;
use crate::routes;
use crate::routes::front::Front;
use crate::routes::licenses::Licenses;
use crate::signing::{KeyRing, KmsSigner, LocalSigner, Schedule, Signer, SigningError};

/// Longest time that a decision may take: a client is told 503 within a second of an outage.
pub const DECISION_DEADLINE: Duration = Duration::from_millis(900);

/// How long a draining replica still answers that it drains.
const DRAIN_NOTICE: Duration = Duration::from_secs(2);

/// Longest time that a start waits for Redis, which may be absent.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);

/// Connections to Postgres: two lanes of the writer, the rest for reading.
const CONNECTIONS: usize = 16;

/// Longest time of one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sessions whose pool is remembered, so that heartbeats need not ask.
const REMEMBERED_SESSIONS: u64 = 1_000_000;

/// How long a tenant's license of a product is remembered.
const REMEMBER_LICENSE: Duration = Duration::from_secs(5);

/// Pause between two rounds of housekeeping, days of partitions kept ahead, age of forgotten keys in hours.
const HOUSEKEEPING: Duration = Duration::from_secs(3_600);
const PARTITION_DAYS: i32 = 14;
const KEY_AGE_HOURS: i32 = 48;

/// What tokens and answers say.
#[derive(Debug, Clone)]
pub struct Terms {
    /// `iss` of license tokens.
    pub license_issuer: String,
    /// Grace of a license that does not say.
    pub default_grace: Duration,
    /// How long sessions live.
    pub session: SessionConfig,
}

/// The running service. Cheap to clone.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field's own type is documented")]
pub struct App {
    pub pools: Pools,
    pub tenants: Tenants,
    pub members: Members,
    pub read_models: ReadModels,
    pub authenticator: Authenticator,
    pub ring: KeyRing,
    pub limits: RateLimits,
    pub terms: Terms,
    places: Cache<SessionId, SessionPlace>,
    licenses: Cache<(TenantId, Product), LicenseId>,
    draining: Arc<AtomicBool>,
    background: Arc<[AbortHandle; 4]>,
    cors: Vec<String>,
}

/// Connects, checks the schema, starts the actors.
///
/// # Errors
/// When Postgres does not answer, its schema is another, or a setting cannot be used. Redis may be absent.
pub async fn build(config: &ServeConfig) -> anyhow::Result<App> {
    let database = Database::new(&config.database.database_url, CONNECTIONS, STATEMENT_TIMEOUT)
        .context("DATABASE_URL")?;
    events::require_current_schema(&database).await?;
    let log = EventLog::new(database);
    let signer = signer(&config.signing).await?;
    let ring = KeyRing::open(signer, log.clone(), schedule(config)).await?;
    let ttl = config.session.ttl();
    let writer = Writer::start(log.clone(), ttl).await?;
    let gate =
        Gate::connect(&config.redis.redis_url).map_err(|error| anyhow::anyhow!("REDIS_URL: {error}"))?;
    gate.wait(REDIS_PATIENCE).await;
    let pools = Pools::start(log.clone(), writer.clone(), gate, ttl).await?;
    let limits = RateLimits::new(&config.limits);
    let members = Members::start(log.clone(), writer.clone());
    let background = [
        tokio::spawn(actors::reap(pools.clone())).abort_handle(),
        tokio::spawn(projections::run(log.clone())).abort_handle(),
        tokio::spawn(housekeeping(log.clone())).abort_handle(),
        tokio::spawn(Notary::new(log.clone(), Arc::new(ring.clone())).run(config.notary.every()))
            .abort_handle(),
    ];
    Ok(App {
        background: Arc::new(background),
        tenants: Tenants::new(log.clone(), writer),
        members: members.clone(),
        read_models: ReadModels::new(log.clone()),
        authenticator: Authenticator::new(config.identity.clone(), log, members, limits.clone())?,
        ring,
        limits,
        terms: Terms {
            license_issuer: config.signing.license_issuer.clone(),
            default_grace: Duration::from_secs(config.session.offline_grace_seconds.into()),
            session: config.session,
        },
        pools,
        places: Cache::builder().max_capacity(REMEMBERED_SESSIONS).time_to_idle(2 * ttl).build(),
        licenses: Cache::builder().max_capacity(100_000).time_to_live(REMEMBER_LICENSE).build(),
        draining: Arc::default(),
        cors: config.listen.cors_allowed_origins.clone(),
    })
}

fn schedule(config: &ServeConfig) -> Schedule {
    config.signing.schedule(config.session.offline_grace_seconds)
}

/// The signer of the settings.
///
/// # Errors
/// When a key cannot be read, or the client of KMS cannot be built.
pub async fn signer(config: &SigningConfig) -> anyhow::Result<Arc<dyn Signer>> {
    let missing = |name: &str| SigningError::Setting(format!("{name}: required, but not set"));
    Ok(match config.signer {
        SignerKind::Local => {
            let file = config.signing_key_file.as_deref().ok_or_else(|| missing("SIGNING_KEY_FILE"))?;
            Arc::new(LocalSigner::from_file(file)?)
        }
        SignerKind::Kms => {
            let key = config.kms_key.as_deref().ok_or_else(|| missing("KMS_KEY"))?;
            Arc::new(KmsSigner::connect(key, config.kms_endpoint.as_deref()).await?)
        }
    })
}

/// Makes the partitions of the coming days, and forgets old Idempotency-Keys.
async fn housekeeping(log: EventLog) {
    loop {
        if let Err(error) = log.ensure_partitions(PARTITION_DAYS).await {
            tracing::warn!(%error, "the partitions of the coming days were not made");
        }
        match log.forget_keys(KEY_AGE_HOURS).await {
            Ok(forgotten) => tracing::debug!(forgotten, "old idempotency keys"),
            Err(error) => tracing::warn!(%error, "old idempotency keys were not forgotten"),
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

impl App {
    /// What reads the log.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        self.pools.log()
    }

    /// The read models, once they hold what was written before this was asked; after a moment as they are.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn shown(&self) -> Result<&ReadModels, QueryError> {
        self.read_models.settled().await?;
        Ok(&self.read_models)
    }

    /// What Postgres's clock shows.
    #[must_use]
    pub fn now(&self) -> Time {
        self.pools.writer().now()
    }

    /// When a client that was answered now sends its next heartbeat.
    #[must_use]
    pub fn next_heartbeat(&self) -> Time {
        self.now().after(self.terms.session.heartbeat_interval())
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The pool and user of a session, live or ended.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub async fn place_of(&self, session_id: SessionId) -> Result<Option<SessionPlace>, LogError> {
        if let Some(known) = self.places.get(&session_id).await {
            return Ok(Some(known));
        }
        let found = self.log().find_session(session_id).await?;
        if let Some(place) = &found {
            self.places.insert(session_id, place.clone()).await;
        }
        Ok(found)
    }

    pub(crate) async fn remember_session(&self, grant: &Grant, tenant_id: TenantId, license_id: LicenseId) {
        let place = SessionPlace { license_id, tenant_id, user_id: grant.user_id.clone() };
        self.places.insert(grant.session_id, place).await;
    }

    pub(crate) async fn forget_session(&self, session_id: SessionId) {
        self.places.invalidate(&session_id).await;
    }

    /// The license that an acquire of a product is decided on.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub async fn license_of(
        &self,
        tenant_id: TenantId,
        product: &Product,
    ) -> Result<Option<LicenseId>, LogError> {
        let key = (tenant_id, product.clone());
        if let Some(known) = self.licenses.get(&key).await {
            return Ok(Some(known));
        }
        let found = self.log().find_license(tenant_id, product).await?.map(|found| found.license_id);
        if let Some(license_id) = found {
            self.licenses.insert(key, license_id).await;
        }
        Ok(found)
    }

    /// Forgets which license of a product a tenant has: it was refused.
    pub(crate) async fn forget_license(&self, tenant_id: TenantId, product: &Product) {
        self.licenses.invalidate(&(tenant_id, product.clone())).await;
    }

    /// Forgets which licenses a tenant has: one was issued or switched.
    pub(crate) async fn forget_licenses(&self, tenant_id: TenantId) {
        for (key, _) in &self.licenses {
            if key.0 == tenant_id {
                self.licenses.invalidate(&*key).await;
            }
        }
    }

    /// The whole HTTP service.
    pub fn endpoint(&self) -> impl Endpoint<Output = poem::Response> + use<> {
        let edge = Edge { draining: self.draining.clone() };
        let rest = routes::routes(self).into_endpoint().with(NormalizePath::new(TrailingSlash::Trim));
        Front { licenses: Licenses(self.clone()), rest }.with(edge).with(Cors { origins: self.cors.clone() })
    }

    /// Serves until `stop`, then drains: `/ready` turns 503 and can still be asked for a moment, new work is sent
    /// elsewhere, work in hand ends, the actors stop.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(
        self,
        acceptor: TcpAcceptor,
        stop: impl Future<Output = ()> + Send + 'static,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let draining = self.draining.clone();
        let signal = async move {
            stop.await;
            draining.store(true, Ordering::Relaxed);
            tracing::info!("draining");
            // Whoever balances load asks every second or so: it must be able to hear that this replica goes.
            tokio::time::sleep((grace / 4).min(DRAIN_NOTICE)).await;
        };
        let endpoint = self.endpoint();
        Server::new_with_acceptor(acceptor)
            .idle_timeout(Duration::from_secs(120))
            .run_with_graceful_shutdown(endpoint, signal, Some(grace - (grace / 4).min(DRAIN_NOTICE)))
            .await?;
        self.stop().await;
        Ok(())
    }
}

impl App {
    /// Ends everything that runs beside requests.
    pub async fn stop(&self) {
        for task in self.background.iter() {
            task.abort();
        }
        self.pools.stop().await;
        self.pools.writer().stop();
        self.pools.gate().close().await;
        self.log().database().close();
    }
}

/// Listens; port 0 picks a free one.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn listen(address: std::net::SocketAddr) -> anyhow::Result<(TcpAcceptor, std::net::SocketAddr)> {
    let acceptor = TcpListener::bind(address)
        .into_acceptor()
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let local =
        acceptor.local_addr().into_iter().find_map(|addr| addr.as_socket_addr().copied()).unwrap_or(address);
    Ok((acceptor, local))
}
