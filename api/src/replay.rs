//! `coditect-license replay`: what was true of a tenant at an instant, or everything that led there, out of the log
//! alone and without a server. Lines of JSON, as the API writes them; memory holds a page of events, whatever their
//! number.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use events::{Cursor, Database, EventFilter, EventLog, Position, TenantId, Time};
use poem_openapi::types::ToJSON;

use crate::config::DatabaseConfig;
use crate::routes::events::EventView;
use crate::routes::state::StateView;

/// Events read at a time.
const PAGE: i64 = 5_000;

/// Longest time of one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Whose history, and up to when.
#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ReplayCommand {
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own type is documented")]
    pub database: DatabaseConfig,
    /// The tenant's id
    #[arg(long)]
    pub tenant: String,
    /// Print what was true at this instant (RFC 3339), what happened in its millisecond included
    #[arg(long, group = "what", value_name = "TIME")]
    pub at: Option<String>,
    /// Print the events up to this instant (RFC 3339), those of its millisecond included, a line each
    #[arg(long, group = "what", value_name = "TIME")]
    pub until: Option<String>,
}

/// Prints.
///
/// # Errors
/// A setting that is none, a tenant that is not there, a database that does not answer, a reader that goes away.
pub async fn run(command: &ReplayCommand, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    let tenant_id: TenantId = command.tenant.parse().context("--tenant")?;
    let database =
        Database::new(&command.database.database_url, 2, STATEMENT_TIMEOUT).context("DATABASE_URL")?;
    events::require_current_schema(&database).await?;
    let log = EventLog::new(database);
    ensure!(log.tenant_of(tenant_id.0).await? == Some(tenant_id), "--tenant: there is no such tenant");
    match (&command.at, &command.until) {
        (Some(at), _) => {
            let at = Time::parse(at).context("--at")?;
            ensure!(at <= log.clock().await?, "--at: must not be in the future");
            log.settled().await?;
            line(out, &StateView::new(at, log.pools_at(tenant_id, at).await?))?;
        }
        (None, Some(until)) => events(&log, tenant_id, Time::parse(until).context("--until")?, out).await?,
        (None, None) => bail!("--at or --until: one of them is required"),
    }
    out.flush().context("the output")
}

async fn events(
    log: &EventLog,
    tenant_id: TenantId,
    until: Time,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let to = Some(until.after(Duration::from_millis(1)));
    let filter = EventFilter { to, ..EventFilter::default() };
    let mut after = Position::default();
    loop {
        let page = log.read_tenant(tenant_id, after, &filter, PAGE).await?;
        for recorded in &page {
            line(out, &EventView::from(recorded))?;
        }
        let Some(Cursor { position, .. }) = page.last().map(|last| last.cursor) else { return Ok(()) };
        after = position;
    }
}

fn line(out: &mut impl Write, row: &impl ToJSON) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, &row.to_json().unwrap_or_default()).context("the output")?;
    out.write_all(b"\n").context("the output")
}
