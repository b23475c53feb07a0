//! `coditect-license`: the only binary. Subcommands read their settings, and the library does the work.

use std::process::ExitCode;

use anyhow::Context;
use api::analysis::{AnalystLoginCommand, RebuildCommand, WhatIfCommand};
use api::config::{DatabaseConfig, ProjectConfig, ServeConfig, one_line};
use api::dev::DevConfig;
use api::evidence::{ArchiveOptions, EraseOptions, ExportOptions, ProveOptions, VerifyOptions};
use api::keys::KeysCommand;
use api::replay::{self, ReplayCommand};
use api::verify_token::VerifyTokenConfig;
use api::{analysis, app, dev, evidence, keys, project, telemetry, verify_token};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Floating licenses for CODITECT: a tenant buys N seats, any of its people may work, at most N at a time.
#[derive(Parser)]
#[command(name = "coditect-license", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests, until SIGTERM
    Serve(Box<ServeConfig>),
    /// Everything on this machine: private Postgres and Redis, an issuer, a demo tenant, the API
    Dev(DevConfig),
    /// Bring the database to this program's schema
    Migrate(DatabaseConfig),
    /// Whether a license token is good, and what it says
    VerifyToken(Box<VerifyTokenConfig>),
    /// The keys that sign license tokens: list, rotate, retire
    #[command(subcommand)]
    Keys(Box<KeysCommand>),
    /// What was true of a tenant at an instant, or the events that led there, out of the log, as lines of JSON
    Replay(ReplayCommand),
    /// Recompute the log, an export or a proof against its signed checkpoints, and name what is not as it was sealed
    Verify(Box<VerifyOptions>),
    /// The proof that one event is in the sealed log, archived heartbeats included: what `verify --proof` reads
    Prove(ProveOptions),
    /// Write a tenant's events or checkpoints to a file
    Export(Box<ExportOptions>),
    /// Move heartbeats of days long ago out of the database into Parquet files; runs as the owner, like `migrate`
    Archive(ArchiveOptions),
    /// Erase a removed user from events, archives, read models and evidence, which goes on to verify; runs as the owner
    Erase(EraseOptions),
    /// Fold the log into the read models, until SIGTERM; with a signer also seal it, as `serve` does
    Project(Box<ProjectConfig>),
    /// Fold a read model anew beside the one that is being read, and switch; may be killed, and called again
    Rebuild(RebuildCommand),
    /// Play a license's history again with other seats or another TTL: who would have waited, and for how long
    WhatIf(WhatIfCommand),
    /// Database logins of analysts: each sees one tenant in schema analytics, and only reads
    #[command(subcommand)]
    AnalystLogin(AnalystLoginCommand),
}

fn main() -> ExitCode {
    // Two libraries bring rustls; none may guess which crypto it uses.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return match one_line(&error) {
                Some(line) => {
                    eprintln!("coditect-license: {line}");
                    ExitCode::from(2)
                }
                None => error.exit(),
            };
        }
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // tokio's own variable goes first; 0 or not a number ends the process with a panic that names it.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none()
        && matches!(cli.command, Command::Serve(_) | Command::Dev(_))
    {
        runtime.worker_threads(serving_threads());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coditect-license: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coditect-license: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Threads that serve requests: a core fewer than there are, for signatures are made on threads of their own. On two cores
/// the second such thread found little to do and woke up for it: a fifth of the service's processor time
/// (docs/performance.md).
fn serving_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(config) => serve(&config).await?,
        Command::Dev(config) => dev::run(config, stopped()).await?,
        Command::Migrate(database) => {
            let version = events::migrate(&database.database_url).await?;
            println!("schema version {version}");
        }
        Command::VerifyToken(config) => {
            println!("{}", verify_token::run(&config).await?);
        }
        Command::Verify(options) => return evidence::verify(*options).await,
        Command::Prove(options) => println!("{}", evidence::prove(&options).await?),
        Command::Export(options) => evidence::export(*options).await?,
        Command::Erase(options) => evidence::erase(options).await?,
        Command::Archive(options) => evidence::archive(options).await?,
        Command::Keys(command) => {
            println!("{}", keys::run(*command).await?);
        }
        Command::Replay(command) => {
            replay::run(&command, &mut std::io::BufWriter::new(std::io::stdout())).await?;
        }
        Command::Project(config) => project::run(&config, stopped()).await?,
        Command::Rebuild(command) => {
            println!("{}", analysis::rebuild(&command).await?);
        }
        Command::WhatIf(command) => {
            println!("{}", analysis::what_if(&command).await?);
        }
        Command::AnalystLogin(command) => {
            let lines = analysis::analyst_login(&command).await?;
            if !lines.is_empty() {
                println!("{lines}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: &ServeConfig) -> anyhow::Result<()> {
    let _telemetry = telemetry::start(&config.telemetry)?;
    telemetry::serve_metrics(config.listen.metrics_addr)?;
    let (acceptor, address) = app::listen(config.listen.listen_addr).await.context("LISTEN_ADDR")?;
    let app = app::build(config).await?;
    tracing::info!(%address, "serving");
    app.serve(acceptor, stopped(), config.listen.shutdown_grace()).await
}

/// SIGTERM, or Ctrl-C.
async fn stopped() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
