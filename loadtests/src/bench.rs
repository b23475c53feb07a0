//! Closed loop: what the server can do at most, and how long it takes when nobody else asks.
//!
//! The generator, Postgres, Redis and the server share one machine, so a figure by itself says little.
//! Two others are measured in the same run to compare with: how many RSA-4096 signatures the machine's
//! cores make when they do nothing else, and, if wanted, another server with the same endpoints.

mod field;
mod report;
mod session;
mod signing;
mod work;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::baseline::{Baseline, BaselineOptions};
use crate::crowd::Crowd;
use crate::stand::{Stand, StandOptions, create_tenants, server_path};
use crate::target::{Credential, Target};

use field::{Field, Limits};
use report::Sheet;
use session::run_all;

pub use work::{Measurement, Shape, Work};

/// Enough that no run of acquires fills a pool.
const PLENTY_OF_SEATS: u32 = 1_000_000;
const FULL_POOL_SEATS: u32 = 1;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Length of each measurement.
    pub measured: Duration,
    /// Before each measurement, not counted.
    pub warm_up: Duration,
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Tenants over which the load is spread.
    pub tenants: usize,
    /// Callers with a token each, over all tenants.
    pub users: usize,
    /// Sessions that exist before heartbeats and releases are measured.
    pub sessions: usize,
    /// How often everything is measured; the median is shown.
    pub runs: usize,
    /// The service's binary; by default the one beside this program.
    pub server: Option<PathBuf>,
    /// The service's Redis; a private one by default.
    pub redis_url: Option<String>,
    /// Only these kinds of work; all if empty.
    pub works: Vec<Work>,
    /// Another server, measured in the same run.
    pub baseline: Option<BaselineOptions>,
    /// Where the figures go as JSON.
    pub json: Option<PathBuf>,
}

/// Measures and prints. Everything that was started is ended before this returns.
pub async fn bench(options: BenchOptions) -> Result<()> {
    let mut sheet = Sheet::new(&options);
    // One after the other in each run: a machine that slows down meanwhile slows down both.
    for run in 1..=options.runs {
        eprintln!("run {run} of {}", options.runs);
        service(&options, &mut sheet).await?;
        if let Some(baseline) = &options.baseline {
            compared(&options, baseline, &mut sheet).await?;
        }
    }
    println!("{}", sheet.table());
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&sheet)?)?;
    }
    Ok(())
}

/// The service on a private installation.
async fn service(options: &BenchOptions, sheet: &mut Sheet) -> Result<()> {
    let server = server_path(options.server.clone())?;
    eprintln!("starting Postgres, Redis, an issuer and {}", server.display());
    let redis_url = options.redis_url.clone();
    let stand = Stand::start(&server, StandOptions { redis_url, ..StandOptions::default() }).await?;
    let fields = service_fields(options, &stand).await?;
    sheet.add_signing(signing::measure(options.measured.min(Duration::from_secs(3))).await?);
    run_all("service", &fields, &options.measurements(), options, stand.server_pid(), sheet).await?;
    stand.stop().await
}

async fn service_fields(options: &BenchOptions, stand: &Stand) -> Result<Fields> {
    let target = Arc::new(Target::new(stand.endpoint.clone(), Credential::Header));
    let make = async |prefix: &str, count: usize, seats: u32| {
        let tenants = create_tenants(&stand.endpoint, &stand.issuing, prefix, count, seats).await?;
        let crowd = Crowd::mint(&stand.issuing, &tenants, options.users)?;
        anyhow::Ok(Field::new(target.clone(), crowd, options.connections))
    };
    Ok(Fields {
        spread: make("bench-spread", options.tenants, PLENTY_OF_SEATS).await?,
        hot: make("bench-hot", 1, PLENTY_OF_SEATS).await?,
        full_spread: make("bench-full", options.tenants, FULL_POOL_SEATS).await?,
        full_hot: make("bench-full-hot", 1, FULL_POOL_SEATS).await?,
    })
}

/// The other server. Its number of seats is a matter of its start, so refusals are measured apart.
async fn compared(options: &BenchOptions, baseline: &BaselineOptions, sheet: &mut Sheet) -> Result<()> {
    let (refused, granted): (Vec<_>, Vec<_>) =
        options.measurements().into_iter().partition(|m| m.work == Work::Refused);
    for (measurements, seats) in [(granted, PLENTY_OF_SEATS), (refused, FULL_POOL_SEATS)] {
        if measurements.is_empty() {
            continue;
        }
        eprintln!("starting {} with {seats} seats a tenant", baseline.dir.display());
        let server = Baseline::start(baseline, options.tenants, seats).await?;
        let fields = baseline_fields(options, &server)?;
        run_all("baseline", &fields, &measurements, options, None, sheet).await?;
        server.stop().await;
    }
    Ok(())
}

fn baseline_fields(options: &BenchOptions, server: &Baseline) -> Result<Fields> {
    let target = Arc::new(Target::new(server.endpoint.clone(), Credential::Body));
    let make = |tenants: usize| {
        let crowd = Crowd::mint(&server.issuing, &Baseline::tenants(tenants), options.users)?;
        anyhow::Ok(Field::new(target.clone(), crowd, options.connections))
    };
    let (spread, hot) = (make(options.tenants)?, make(1)?);
    Ok(Fields { full_spread: spread.clone(), full_hot: hot.clone(), spread, hot })
}

/// The crowds of one server, one for each kind of pool.
pub(crate) struct Fields {
    spread: Field,
    hot: Field,
    full_spread: Field,
    full_hot: Field,
}

impl Fields {
    fn of(&self, measurement: Measurement) -> &Field {
        match (measurement.work, measurement.shape) {
            (Work::Refused, Shape::Hot) => &self.full_hot,
            (Work::Refused, Shape::Spread | Shape::Alone) => &self.full_spread,
            (_, Shape::Hot) => &self.hot,
            (_, Shape::Spread | Shape::Alone) => &self.spread,
        }
    }
}

impl BenchOptions {
    fn measurements(&self) -> Vec<Measurement> {
        let wanted = |m: &Measurement| self.works.is_empty() || self.works.contains(&m.work);
        Measurement::all().into_iter().filter(wanted).collect()
    }

    fn limits(&self) -> Limits {
        Limits { warm_up: self.warm_up, measured: self.measured }
    }
}
