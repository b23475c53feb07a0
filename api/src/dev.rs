//! `dev`: the whole product on one machine, and nothing else needed: private engines, an issuer, a demo tenant.

mod check;
mod demo;
mod issuer;

use std::path::PathBuf;

use anyhow::Context;
use aws_lc_rs::rsa::KeySize;
use clap::Args;
use engines::{Postgres, PostgresOptions, Redis, RedisOptions};

use crate::config::{
    DatabaseConfig, IdentityConfig, LimitConfig, ListenConfig, LogFormat, NotaryConfig, RedisConfig,
    ServeConfig, SessionConfig, SigningConfig, TelemetryConfig, TokenFormat,
};
use crate::signing::LocalSigner;
use crate::{app, telemetry};

pub use issuer::Issuer;

/// The database of the demo.
const DATABASE: &str = "coditect";

/// `aud` of the demo's JWTs.
pub const AUDIENCE: &str = "coditect-license";

/// Where `dev` keeps its data and listens.
#[derive(Debug, Clone, Args)]
pub struct DevConfig {
    /// Folder of the data: kept, and found again by the next run
    #[arg(long, env = "DEV_DIR", default_value = ".dev")]
    pub dir: PathBuf,
    /// The dev issuer
    #[arg(long, env = "DEV_ISSUER_ADDR", default_value = "127.0.0.1:8001")]
    pub issuer_addr: std::net::SocketAddr,
    /// Acquire, heartbeat and release once against itself, and exit 0 if all is well
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own type is documented")]
    pub listen: ListenConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own type is documented")]
    pub session: SessionConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own type is documented")]
    pub limits: LimitConfig,
    /// A signature for each license token (`jwt`), or one for all of a moment (`batch`)
    #[arg(long, env, value_enum, default_value = "jwt")]
    pub token_format: TokenFormat,
    /// What is logged, as tracing's filter directives
    #[arg(long, env = "RUST_LOG", default_value = "warn")]
    pub rust_log: String,
}

/// Runs until `stop`, or with `check` until the check is over; all it started is ended.
///
/// # Errors
/// When something is missing (the message says what to install), an address is taken, or the check fails.
pub async fn run(config: DevConfig, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let log = TelemetryConfig {
        log_format: LogFormat::Text,
        rust_log: config.rust_log.clone(),
        otel_exporter_otlp_endpoint: None,
    };
    let _telemetry = telemetry::start(&log)?;
    // Addresses first: a port that is taken is said before anything is started.
    let (acceptor, address) = app::listen(config.listen.listen_addr).await.context("LISTEN_ADDR")?;
    telemetry::serve_metrics(config.listen.metrics_addr)?;
    std::fs::create_dir_all(&config.dir).with_context(|| format!("cannot make {}", config.dir.display()))?;
    let dir = config.dir.canonicalize()?;
    let issuer = Issuer::start(config.issuer_addr, Some(&dir.join("issuer.pem"))).await?;
    let postgres = Postgres::start(PostgresOptions::new(dir.join("postgres"))).await?;
    let redis = Redis::start(RedisOptions::new(dir.join("redis"))).await?;
    postgres.create_database(DATABASE).await.or_else(|error| {
        let text = format!("{error:#}");
        if text.contains("already exists") { Ok(()) } else { Err(error) }
    })?;
    let serve = ServeConfig {
        listen: config.listen.clone(),
        database: DatabaseConfig { database_url: postgres.url(DATABASE) },
        redis: RedisConfig { redis_url: redis.url() },
        identity: IdentityConfig {
            oidc_issuer: issuer.url(),
            oidc_audience: AUDIENCE.to_owned(),
            oidc_jwks_url: None,
            oidc_tenant_claim: "tenant_id".to_owned(),
            oidc_roles_claim: "roles".to_owned(),
        },
        signing: SigningConfig {
            token_format: config.token_format,
            ..SigningConfig::local(signing_key(&dir)?)
        },
        session: config.session,
        limits: config.limits,
        notary: NotaryConfig { notary_seal_seconds: 2 },
        telemetry: log,
    };
    events::migrate(&serve.database.database_url).await?;
    let app = app::build(&serve).await?;
    let url = format!("http://{address}");
    let (finished, check_is_over) = tokio::sync::oneshot::channel::<()>();
    let check = config.check;
    let stop = async move {
        if check {
            let _ = check_is_over.await;
        } else {
            stop.await;
        }
    };
    let serving = tokio::spawn(app.serve(acceptor, stop, config.listen.shutdown_grace()));
    let outcome = async {
        let demo = demo::tenant(&url, &issuer).await?;
        if check {
            check::run(&url, &issuer, &demo).await
        } else {
            demo::print(&url, &issuer, &demo);
            Ok(())
        }
    };
    let outcome = outcome.await;
    if check || outcome.is_err() {
        let _ = finished.send(());
    }
    if outcome.is_ok() {
        serving.await??;
    } else {
        serving.abort();
    }
    let _ = redis.stop_fast().await;
    let _ = postgres.stop_fast().await;
    outcome
}

/// The dev signing key: made once, RSA-4096, readable by its owner only.
fn signing_key(dir: &std::path::Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("signing-key.pem");
    if !file.exists() {
        crate::signing::write_private(&file, &LocalSigner::generate_pem(KeySize::Rsa4096)?)?;
    }
    Ok(file)
}
