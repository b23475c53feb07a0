//! The log and the seats table, read with SQL of the checker's own, all of it at one instant.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

const EVENTS: &str = include_str!("log/events.sql");
const SEATS: &str = include_str!("log/seats.sql");
const STREAMS: &str = include_str!("log/streams.sql");
const CLOCK: &str = include_str!("log/clock.sql");

/// Rows of one question.
const PAGE: i64 = 5_000;
/// A page of the second reading: another size, so that a reader that drops rows at a border is seen.
const SECOND_PAGE: i64 = 97;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub xid: u64,
    pub position: i64,
    pub event: String,
    pub tenant: String,
    pub stream: String,
    pub version: Option<i64>,
    pub kind: String,
    pub session: Option<String>,
    pub user: Option<String>,
    pub machine: Option<String>,
    pub at_ms: i64,
    pub request: Option<String>,
    pub data: Value,
}

impl Row {
    /// Where it stands in the log, for evidence.
    pub fn cursor(&self) -> String {
        format!("{}/{}", self.xid, self.position)
    }
}

/// A row of the seats table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub session: String,
    pub stream: String,
    pub tenant: String,
    pub user: String,
    pub machine: String,
    pub deadline_ms: i64,
}

/// A row of the table of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub stream: String,
    pub tenant: String,
    /// None: a tenant's own.
    pub product: Option<String>,
    pub version: i64,
}

/// Everything that Postgres says at one instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// By cursor.
    pub rows: Vec<Row>,
    /// The same, read a second time in other pages.
    pub again: Vec<Row>,
    pub seats: Vec<Seat>,
    pub streams: Vec<Stream>,
    /// Postgres's clock.
    pub now_ms: i64,
    /// The end of the latest outage, by Postgres's clock.
    pub recovered_ms: i64,
    /// What to add to the driver's wall clock to get Postgres's.
    pub clock_offset_ms: i64,
}

/// Reads everything about these tenants in one transaction.
pub(crate) async fn read(url: &str, tenants: &[String]) -> Result<Reading> {
    let client = connect(url).await?;
    client.batch_execute("begin isolation level repeatable read read only").await?;
    let (rows, again) = (events(&client, tenants, PAGE).await?, events(&client, tenants, SECOND_PAGE).await?);
    let asked = unix_ms();
    let clock = client.query_one(CLOCK, &[]).await?;
    let (now_ms, answered): (i64, i64) = (clock.try_get("now_ms")?, unix_ms());
    let (seats, streams) = at_rest(&client, tenants).await?;
    client.batch_execute("commit").await?;
    Ok(Reading {
        rows,
        again,
        seats,
        streams,
        now_ms,
        recovered_ms: clock.try_get("recovered_ms")?,
        clock_offset_ms: now_ms - i64::midpoint(asked, answered),
    })
}

/// The seats and the streams of these tenants.
pub(crate) async fn at_rest(client: &Client, tenants: &[String]) -> Result<(Vec<Seat>, Vec<Stream>)> {
    let seats = client.query(SEATS, &[&tenants]).await?;
    let seats = seats
        .iter()
        .map(|row| {
            anyhow::Ok(Seat {
                session: row.try_get("session_id")?,
                stream: row.try_get("stream_id")?,
                tenant: row.try_get("tenant_id")?,
                user: row.try_get("user_id")?,
                machine: row.try_get("hardware_id")?,
                deadline_ms: row.try_get("deadline_ms")?,
            })
        })
        .collect::<Result<_>>()?;
    let streams = client.query(STREAMS, &[&tenants]).await?;
    let streams = streams
        .iter()
        .map(|row| {
            anyhow::Ok(Stream {
                stream: row.try_get("stream_id")?,
                tenant: row.try_get("tenant_id")?,
                product: row.try_get("product")?,
                version: row.try_get("version")?,
            })
        })
        .collect::<Result<_>>()?;
    Ok((seats, streams))
}

async fn events(client: &Client, tenants: &[String], page: i64) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let (xid, position) =
            rows.last().map_or(("0".to_owned(), 0), |row| (row.xid.to_string(), row.position));
        let found =
            client.query(EVENTS, &[&tenants, &xid, &position, &page]).await.context("read the log")?;
        for row in &found {
            rows.push(Row {
                xid: row.try_get::<_, String>("xid")?.parse()?,
                position: row.try_get("position")?,
                event: row.try_get("event_id")?,
                tenant: row.try_get("tenant_id")?,
                stream: row.try_get("stream_id")?,
                version: row.try_get("version")?,
                kind: row.try_get("type")?,
                session: row.try_get("session_id")?,
                user: row.try_get("user_id")?,
                machine: row.try_get("hardware_id")?,
                at_ms: row.try_get("occurred_ms")?,
                request: row.try_get("request_id")?,
                data: serde_json::from_str(&row.try_get::<_, String>("data")?)?,
            });
        }
        if (found.len() as i64) < page {
            return Ok(rows);
        }
    }
}

/// When the latest outage ended, as the beacon has it.
pub(crate) async fn recovered_ms(client: &Client) -> Result<i64> {
    Ok(client.query_one(CLOCK, &[]).await?.try_get("recovered_ms")?)
}

/// A connection over TLS if the URL asks for it.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let mut config: Config = url.parse().context("the database's URL")?;
    config.connect_timeout(CONNECT_TIMEOUT).application_name("loadtests-check");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, connection) =
        config.connect(MakeRustlsConnect::new(tls)).await.context("connect to the database")?;
    // It ends with the client; an error reaches the question in hand.
    tokio::spawn(connection);
    Ok(client)
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
