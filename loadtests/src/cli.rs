//! The command line.

mod check;
mod load;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::baseline::BaselineOptions;
use crate::bench::{BenchOptions, Work};

pub use check::CheckArguments;
pub use load::LoadArguments;

/// Load generator, benchmark and checker of CODITECT License Management.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Closed loop: what the server can do at most, on a private installation of this machine.
    Bench(BenchArguments),
    /// Open loop: what clients experience at a constant rate of requests.
    Load(LoadArguments),
    /// Clients that crash, repeat and come late, and whether the protocol's invariants hold; fails if one does not.
    Check(CheckArguments),
}

/// `loadtests bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Length of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Before each measurement, not counted.
    #[arg(long, default_value_t = 1)]
    warm_up_seconds: u64,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Tenants over which the load is spread.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    tenants: u32,
    /// Users over all tenants, each with a token.
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    /// Sessions that are there before heartbeats and releases are measured.
    #[arg(long, default_value_t = 15_000)]
    sessions: usize,
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The server's binary [default: `coditect-license` beside this program].
    #[arg(long)]
    server: Option<PathBuf>,
    /// The service's Redis, such as a cluster [default: a private one].
    #[arg(long)]
    redis_url: Option<String>,
    /// Measures only this kind of work; may be repeated.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Work>,
    /// Folder of another server with the same endpoints, to measure in the same run: its script `run` starts it.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where the other server keeps what it makes [default: `.state` in its folder].
    #[arg(long, requires = "baseline")]
    baseline_state: Option<PathBuf>,
    /// Writes all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl BenchArguments {
    /// The options that they mean.
    pub fn into_options(self) -> BenchOptions {
        let state = self.baseline_state;
        let baseline = self.baseline.map(|dir| {
            let state = state.unwrap_or_else(|| dir.join(".state"));
            BaselineOptions { dir, state }
        });
        BenchOptions {
            measured: Duration::from_secs(self.seconds.max(1)),
            warm_up: Duration::from_secs(self.warm_up_seconds),
            connections: self.connections as usize,
            tenants: self.tenants as usize,
            users: self.users,
            sessions: self.sessions,
            runs: self.runs as usize,
            server: self.server,
            redis_url: self.redis_url,
            works: self.scenarios,
            baseline,
            json: self.json,
        }
    }
}
