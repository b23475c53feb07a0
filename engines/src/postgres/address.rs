//! The address of a Postgres, and what its superuser does there.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

/// The role of the product and of its tests.
const ROLE: &str = "coditect";
pub(crate) const SUPERUSER: &str = "postgres";
/// The suffix of the socket's name when nobody asked for a port.
pub(crate) const SOCKET_PORT: u16 = 5432;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Every start runs it.
const ENSURE_ROLE: &str = include_str!("ensure_role.sql");

/// A Postgres as its clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) socket_dir: PathBuf,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_for(ROLE, database)
    }

    pub(crate) fn superuser_url(&self, database: &str) -> String {
        self.url_for(SUPERUSER, database)
    }

    fn url_for(&self, role: &str, database: &str) -> String {
        let host = encoded(&self.socket_dir.to_string_lossy());
        format!("postgres://{role}@/{}?host={host}&port={}", encoded(database), self.port)
    }

    /// Connects as the superuser. The task ends when the client is dropped; then the connection is closed.
    pub(crate) async fn connect(&self) -> Result<(Client, JoinHandle<()>)> {
        let url = self.superuser_url(SUPERUSER);
        let (client, connection) = timeout(CONNECT_LIMIT, tokio_postgres::connect(&url, NoTls))
            .await
            .context("Postgres does not answer")?
            .context("cannot connect to Postgres")?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok((client, connection))
    }

    /// Runs statements outside a transaction, as the superuser. When it returns, the connection is closed.
    pub(crate) async fn execute(&self, statements: &str) -> Result<()> {
        let (client, connection) = self.connect().await?;
        let done = timeout(STATEMENT_LIMIT, client.batch_execute(statements)).await;
        drop(client);
        let _ = connection.await;
        done.context("Postgres does not finish")??;
        Ok(())
    }

    pub(crate) async fn ensure_role(&self) -> Result<()> {
        self.execute(ENSURE_ROLE).await.with_context(|| format!("cannot create the role {ROLE}"))
    }

    pub(crate) async fn create_database(&self, name: &str, template: Option<&str>) -> Result<()> {
        let mut statement = format!("CREATE DATABASE {} OWNER {ROLE}", quoted(name));
        if let Some(template) = template {
            let _ = write!(statement, " TEMPLATE {} STRATEGY file_copy", quoted(template));
        }
        self.execute(&statement).await.with_context(|| format!("cannot create the database {name}"))
    }

    pub(crate) async fn drop_database(&self, name: &str) -> Result<()> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        self.execute(&statement).await.with_context(|| format!("cannot drop the database {name}"))
    }

    /// Makes a database a template of another name: its sessions end, and no new ones are let in.
    pub(crate) async fn turn_into_template(&self, from: &str, to: &str) -> Result<()> {
        let (old, new) = (quoted(from), quoted(to));
        // It stays closed: nobody may be connected to a template that is copied.
        let rename = format!(
            "ALTER DATABASE {old} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {};
             ALTER DATABASE {old} RENAME TO {new}",
            literal(from)
        );
        self.execute(&rename)
            .await
            .with_context(|| format!("cannot turn the database {from} into the template {to}"))
    }
}

/// The URL of a database over TCP.
pub(crate) fn tcp_url(port: u16, database: &str) -> String {
    format!("postgres://{ROLE}@127.0.0.1:{port}/{}", encoded(database))
}

/// An SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL string, under `standard_conforming_strings`.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Percent-encoded for a URL; slashes stay, for a reader's sake.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
