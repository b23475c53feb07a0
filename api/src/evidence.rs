//! The commands of auditors and operators: `verify`, `prove`, `export`, `archive`, `erase`.

mod erase;
mod prove;
mod usage;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use audit::{
    Archived, CsvEvents, EventProof, Kept, Ndjson, OfflineOptions, OnlineOptions, ParquetEvents, PublicKeys,
    Report, read_kept, verify_certificate, verify_database, verify_export,
};
use clap::{Args, ValueEnum};
use events::{Database, EventLog, LicenseId, TenantId, Time};

pub use erase::{EraseOptions, erase};
pub use prove::{ProveOptions, prove};
pub use usage::Interval;

use crate::config::DatabaseConfig;

/// Longest time of one statement of these commands.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// What `verify` ends with when something is not as it was sealed.
const NOT_AS_SEALED: u8 = 3;

/// What to verify.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    /// Postgres, for a log in its database
    #[arg(long, env, hide_env_values = true)]
    database_url: Option<String>,
    /// Only this tenant's events
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Events of one tenant, as `export --what events --format ndjson` writes them: nothing is asked of a server
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Checkpoints and leaf index of that tenant, as `export --what checkpoints` writes them
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// The proof of one event, as `prove` and `GET …/events/{event_id}/proof` give it
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// A concurrency certificate, to prove by `--export`
    #[arg(long, value_name = "FILE", requires = "export")]
    certificate: Option<PathBuf>,
    /// Keys to trust: public keys in PEM, or a JWK set; may be given more than once
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// Checkpoints that somebody kept, public or a tenant's own; may be given more than once
    #[arg(long, value_name = "FILE")]
    kept: Vec<PathBuf>,
    /// The folder of archived heartbeats, to recompute these too
    #[arg(long, value_name = "DIR")]
    archives: Option<PathBuf>,
}

/// Verifies, prints what was found; exit code 3: something is not as it was sealed.
///
/// # Errors
/// When something cannot be read: nothing was found out then.
pub async fn verify(options: VerifyOptions) -> anyhow::Result<ExitCode> {
    let mut keys = None;
    for file in &options.public_key {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = PublicKeys::parse(&text).with_context(|| file.display().to_string())?;
        keys.get_or_insert_with(PublicKeys::default).extend(parsed);
    }
    let mut kept: Vec<Kept> = Vec::new();
    for file in &options.kept {
        kept.extend(read_kept(file)?);
    }
    let begun = Instant::now();
    let trusted = || keys.clone().context("--public-key: required without a database");
    if let (Some(certificate), Some(export)) = (&options.certificate, &options.export) {
        let wrong = verify_certificate(certificate, export, options.checkpoints.as_deref(), keys.as_ref())?;
        return Ok(print_certificate(&wrong, keys.is_some()));
    }
    let report = match (&options.proof, &options.export, &options.database_url) {
        (Some(proof), _, _) => return verify_proof(proof, &trusted()?),
        (None, Some(export), _) => verify_export(&OfflineOptions {
            export: export.clone(),
            checkpoints: options.checkpoints.context("--checkpoints: required with --export")?,
            keys: trusted()?,
            kept,
            archives: options.archives,
        })?,
        (None, None, Some(url)) => {
            let log = open(url).await?;
            let tenant = options.tenant.map(|tenant| tenant.0);
            verify_database(&log, &OnlineOptions { tenant, keys, kept, archives: options.archives }).await?
        }
        (None, None, None) => bail!("DATABASE_URL: required, unless --export or --proof is given"),
    };
    Ok(print(&report, begun.elapsed()))
}

fn print(report: &Report, took: Duration) -> ExitCode {
    let Report { checkpoints, tenants, events, unsealed, not_recomputed, erased, .. } = report;
    for note in &report.notes {
        println!("note: {note}");
    }
    println!(
        "{tenants} tenants, {checkpoints} checkpoints, {events} events recomputed in {:.1} s ({:.0} a second); \
         {unsealed} not sealed yet, {not_recomputed} archived and not recomputed, {erased} with erased fields",
        took.as_secs_f64(),
        *events as f64 / took.as_secs_f64().max(0.001),
    );
    for finding in &report.findings {
        println!("FOUND {finding}");
    }
    if report.findings.is_empty() {
        println!("everything is as it was sealed");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(NOT_AS_SEALED)
}

fn print_certificate(wrong: &[String], trusted: bool) -> ExitCode {
    if !trusted {
        println!(
            "note: verified with the key that the certificate itself carries: compare it with the published one"
        );
    }
    for wrong in wrong {
        println!("FOUND {wrong}");
    }
    if wrong.is_empty() {
        println!("the events prove what the certificate states");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(NOT_AS_SEALED)
}

fn verify_proof(file: &PathBuf, keys: &PublicKeys) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let proof: EventProof = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let head = &proof.checkpoint.head;
    match proof.check(keys)? {
        Ok(()) => {
            println!(
                "event {} is leaf {} of {} in the log of tenant {}, sealed by checkpoint {} at {}",
                proof.event.event_id,
                proof.event.index.unwrap_or_default(),
                head.size,
                head.tenant_id,
                head.number,
                head.sealed_at
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(wrong) => {
            println!("FOUND {wrong}");
            Ok(ExitCode::from(NOT_AS_SEALED))
        }
    }
}

/// What to export.
#[derive(Debug, Clone, Args)]
pub struct ExportOptions {
    #[command(flatten)]
    database: DatabaseConfig,
    /// Whose
    #[arg(long)]
    tenant: TenantId,
    /// What
    #[arg(long, value_enum, default_value = "events")]
    what: What,
    /// How; checkpoints are always NDJSON
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Where to; left out: standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Usage: from this time on, RFC 3339
    #[arg(long, value_parser = Time::parse, required_if_eq("what", "usage"))]
    from: Option<Time>,
    /// Usage: before this time; left out: now
    #[arg(long, value_parser = Time::parse)]
    until: Option<Time>,
    /// Usage: how long a bucket is; `hour` if left out
    #[arg(long, value_enum)]
    interval: Option<Interval>,
    /// Usage: of one license; left out: of the tenant as a whole
    #[arg(long)]
    license: Option<LicenseId>,
}

/// What can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The events, oldest first
    Events,
    /// Public checkpoints, the tenant's heads and its leaf index: what `verify --checkpoints` reads
    Checkpoints,
    /// Usage by the minute, hour or day, as `GET …/usage` answers it: every bucket that `[--from, --until)` touches
    Usage,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line; what `verify --export` reads
    Ndjson,
    /// Comma-separated, with a line of names
    Csv,
    /// Columns, compressed with Snappy
    Parquet,
}

/// Exports, in pages: memory stays bounded. No file is touched before the question was found to be a good one.
///
/// # Errors
/// When the log cannot be read or the file not be written, or what is asked for is not there.
pub async fn export(options: ExportOptions) -> anyhow::Result<()> {
    let of_usage = [
        ("from", options.from.is_some()),
        ("until", options.until.is_some()),
        ("interval", options.interval.is_some()),
        ("license", options.license.is_some()),
    ];
    if options.what != What::Usage {
        let given = of_usage.iter().find(|(_, given)| *given);
        ensure!(given.is_none(), "--{}: only with --what usage", given.map_or("", |(name, _)| name));
    }
    let log = open(&options.database.database_url).await?;
    let ask = if let (What::Usage, Some(from)) = (options.what, options.from) {
        let bucket = options.interval.unwrap_or(Interval::Hour).into();
        let range = (from, options.until);
        Some(usage::Question::new(&log, options.tenant, options.license, bucket, range).await?)
    } else {
        None
    };
    let output: Box<dyn Write + Send> = match &options.to {
        Some(file) => Box::new(File::create(file).with_context(|| file.display().to_string())?),
        None => Box::new(std::io::stdout()),
    };
    let mut output = BufWriter::with_capacity(1 << 16, output);
    match (ask, options.what, options.format) {
        (Some(question), _, format) => {
            let count = question.write(format, &mut output).await?;
            eprintln!("{count} buckets");
        }
        (None, What::Checkpoints, _) => {
            audit::export_checkpoints(&log, options.tenant, &mut output).await?;
        }
        (None, _, format) => export_events(&log, options.tenant, format, &mut output).await?,
    }
    output.flush()?;
    Ok(())
}

async fn export_events(
    log: &EventLog,
    tenant: TenantId,
    format: Format,
    output: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let count = match format {
        Format::Ndjson => audit::export_events(log, tenant, &mut Ndjson(output)).await?,
        Format::Csv => {
            let mut sink = CsvEvents::new(output)?;
            let count = audit::export_events(log, tenant, &mut sink).await?;
            sink.finish()?;
            count
        }
        Format::Parquet => {
            let mut sink = ParquetEvents::new(output)?;
            let count = audit::export_events(log, tenant, &mut sink).await?;
            sink.finish()?;
            count
        }
    };
    eprintln!("{count} events");
    Ok(())
}

/// What to archive.
#[derive(Debug, Clone, Args)]
pub struct ArchiveOptions {
    #[command(flatten)]
    database: DatabaseConfig,
    /// Heartbeats of days that ended longer ago than this
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    older_than_days: u32,
    /// The folder that the Parquet files go to
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Moves old heartbeats out of the database, by day. Runs as the owner of the schema, like `migrate`.
///
/// # Errors
/// When the database or a file fails; what was done until then stays done.
pub async fn archive(options: ArchiveOptions) -> anyhow::Result<()> {
    open(&options.database.database_url).await?;
    let (mut client, driver) = events::connect_as_login(&options.database.database_url).await?;
    let days = audit::archive(&mut client, options.older_than_days, &options.to).await?;
    drop(client);
    driver.await?;
    for day in &days {
        match day {
            Archived::Moved { file, events } => println!("{events} heartbeats moved to {}", file.display()),
            Archived::Left { partition, why } => println!("{partition} stays: {why}"),
        }
    }
    if days.is_empty() {
        println!("no day of heartbeats is that old");
    }
    Ok(())
}

async fn open(url: &str) -> anyhow::Result<EventLog> {
    let database = Database::new(url, 4, STATEMENT_TIMEOUT).context("DATABASE_URL")?;
    events::require_current_schema(&database).await?;
    Ok(EventLog::new(database))
}
