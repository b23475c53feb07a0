//! Connections: TLS by `sslmode`, bounds on everything, and the service's role on each of them.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::LogError;

/// The role that the running service works as: it may read, and write through the append function.
pub const SERVICE_ROLE: &str = "license_service";

/// Longest time a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time to wait for a free connection of the pool.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A bounded pool of connections that work as [`SERVICE_ROLE`].
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    /// A pool of at most `size` connections; none is opened yet.
    ///
    /// # Errors
    /// When the URL or the system's certificates cannot be read.
    pub fn new(url: &str, size: usize, statement_timeout: Duration) -> Result<Self, LogError> {
        let manager = Manager::from_config(
            configuration(url, statement_timeout)?,
            tls()?,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(size)
            // Few connections that are warm, rather than all of them in turn: each prepares its statements itself.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(CONNECT_TIMEOUT),
                recycle: Some(WAIT_TIMEOUT),
            })
            .post_create(take_role())
            .pre_recycle(take_role())
            .build()
            .map_err(|error| LogError::Setting(error.to_string()))?;
        Ok(Self { pool })
    }

    /// A connection as [`SERVICE_ROLE`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when none can be had in time.
    pub async fn get(&self) -> Result<Object, LogError> {
        Ok(self.pool.get().await?)
    }

    /// Ends all connections; nothing more can be asked.
    pub fn close(&self) {
        self.pool.close();
    }

    /// Whether the database answers, within `patience`.
    pub async fn is_up(&self, patience: Duration) -> bool {
        let ask = async { self.get().await?.simple_query("select 1").await.map_err(LogError::from) };
        matches!(tokio::time::timeout(patience, ask).await, Ok(Ok(_)))
    }
}

/// `SET ROLE` each time a connection is taken: whatever was done on it before, it works as the service.
fn take_role() -> Hook {
    Hook::async_fn(|client, _| {
        Box::pin(async move {
            client.simple_query(concat!("set role ", "license_service")).await.map_err(HookError::Backend)?;
            Ok(())
        })
    })
}

/// One connection of the login itself, for what only the owner of the schema may do: migrations, roles, archives. It
/// ends when the client is dropped; the handle waits for that.
///
/// # Errors
/// When it cannot be opened.
pub async fn connect_as_login(
    url: &str,
) -> Result<(tokio_postgres::Client, tokio::task::JoinHandle<()>), LogError> {
    let (client, connection) = configuration(url, Duration::from_secs(600))?
        .connect(tls()?)
        .await
        .map_err(|error| LogError::Unavailable(format!("cannot connect: {}", LogError::from(error))))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "the migration's connection ended");
        }
    });
    Ok((client, driver))
}

fn configuration(url: &str, statement_timeout: Duration) -> Result<tokio_postgres::Config, LogError> {
    let mut config: tokio_postgres::Config = url
        .parse()
        .map_err(|error: tokio_postgres::Error| LogError::Setting(format!("not a Postgres URL: {error}")))?;
    let millis = statement_timeout.as_millis();
    // None of these statements runs long enough to be worth compiling; one whose ways are restricted looks as if it did.
    let limits = format!(
        "-c statement_timeout={millis} -c lock_timeout={millis} -c idle_in_transaction_session_timeout={millis} -c timezone=UTC -c jit=off"
    );
    let options = config.get_options().map_or(limits.clone(), |own| format!("{own} {limits}"));
    config.options(options).connect_timeout(CONNECT_TIMEOUT).keepalives_idle(Duration::from_secs(15));
    config.tcp_user_timeout(Duration::from_secs(10));
    if config.get_application_name().is_none() {
        config.application_name("coditect-license");
    }
    Ok(config)
}

fn tls() -> Result<MakeRustlsConnect, LogError> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let config = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| LogError::Setting(format!("TLS: {error}")))?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
