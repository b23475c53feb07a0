//! One run: every measurement once, each with what it needs beforehand.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::tally::Summary;
use crate::usage::{machine_busy, usage};

use super::field::Limits;
use super::report::Sheet;
use super::work::{Measurement, Shape, Work};
use super::{BenchOptions, Fields};

/// One measurement of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// Latencies, rate, errors.
    #[serde(flatten)]
    pub summary: Summary,
    /// Cores in use, on average, while it was taken.
    pub cores: Cores,
}

/// Who used how many cores.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cores {
    /// Everything on the machine.
    pub all: f64,
    /// The server's process, where it is known.
    pub server: f64,
    /// This program.
    pub generator: f64,
}

/// Takes every measurement once and puts it into the sheet.
pub async fn run_all(
    server: &'static str,
    fields: &Fields,
    measurements: &[Measurement],
    options: &BenchOptions,
    server_pid: Option<u32>,
    sheet: &mut Sheet,
) -> Result<()> {
    for measurement in measurements {
        let field = fields.of(*measurement);
        match measurement.work {
            Work::Heartbeat | Work::Release => field.fill(options.sessions).await?,
            Work::Refused => field.occupy().await?,
            Work::Acquire => {}
        }
        let (limits, connections) = limits(*measurement, options);
        sheet.announce(server, *measurement);
        let meter = Meter::start(server_pid);
        let summary = field.measure(measurement.work, limits, connections).await?;
        let cores = meter.stop();
        sheet.add(server, *measurement, Reading { summary, cores }, field.samples());
    }
    Ok(())
}

fn limits(measurement: Measurement, options: &BenchOptions) -> (Limits, Option<usize>) {
    let mut limits = options.limits();
    if measurement.work == Work::Release {
        // Its sessions run out; none is to be spent uncounted.
        limits.warm_up = Duration::ZERO;
    }
    if measurement.shape == Shape::Alone {
        limits.measured /= 2;
        return (limits, Some(1));
    }
    (limits, None)
}

/// Processor time between two moments.
struct Meter {
    server_pid: Option<u32>,
    begun: Instant,
    before: [Duration; 3],
}

impl Meter {
    fn start(server_pid: Option<u32>) -> Self {
        Self { server_pid, begun: Instant::now(), before: spent(server_pid) }
    }

    fn stop(self) -> Cores {
        let elapsed = self.begun.elapsed().as_secs_f64().max(f64::EPSILON);
        let after = spent(self.server_pid);
        let cores = |n: usize| after[n].saturating_sub(self.before[n]).as_secs_f64() / elapsed;
        Cores { all: cores(0), server: cores(1), generator: cores(2) }
    }
}

fn spent(server_pid: Option<u32>) -> [Duration; 3] {
    let of = |pid: u32| usage(pid).map(|usage| usage.processor).unwrap_or_default();
    [machine_busy().unwrap_or_default(), server_pid.map(of).unwrap_or_default(), of(std::process::id())]
}
