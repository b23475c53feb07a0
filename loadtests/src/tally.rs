//! What was measured: a histogram of the latencies and a count of everything that was not as expected.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies are kept in microseconds, up to two minutes, exact to three digits.
const HIGHEST_MICROSECONDS: u64 = 120_000_000;
const DIGITS: u8 = 3;

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a status that the scenario wants.
    Expected,
    /// With another status.
    Status(u16),
    /// With no answer at all: refused, reset or timed out.
    Lost,
}

/// Measurements of one kind of request. Tallies of several workers are merged; percentiles are taken last.
#[derive(Clone)]
pub struct Tally {
    latencies: Histogram<u64>,
    expected: u64,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Nothing measured yet.
    pub fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, HIGHEST_MICROSECONDS, DIGITS)?;
        Ok(Self { latencies, expected: 0, errors: BTreeMap::new() })
    }

    /// Adds one request. Failed ones keep their latency: a quick refusal must not flatter the percentiles
    /// unseen, so the error counts stand beside them.
    pub fn record(&mut self, latency: Duration, outcome: Outcome) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros);
        match outcome {
            Outcome::Expected => self.expected += 1,
            Outcome::Status(status) => *self.errors.entry(status.to_string()).or_default() += 1,
            Outcome::Lost => *self.errors.entry("no answer".into()).or_default() += 1,
        }
    }

    /// Takes in another's measurements.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.expected += other.expected;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        Ok(())
    }

    /// How many requests were recorded.
    pub fn count(&self) -> u64 {
        self.latencies.len()
    }

    /// The figures, for a measurement that took `elapsed`.
    pub fn summary(&self, elapsed: Duration) -> Summary {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let at = |quantile| to_ms(self.latencies.value_at_quantile(quantile));
        Summary {
            count: self.count(),
            rate_per_second: self.expected as f64 / seconds,
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: to_ms(self.latencies.max()),
            errors: self.errors.clone(),
        }
    }

    /// Latency in milliseconds at each of these quantiles, for a plot.
    pub fn quantiles_ms(&self, quantiles: &[f64]) -> Vec<f64> {
        quantiles.iter().map(|q| to_ms(self.latencies.value_at_quantile(*q))).collect()
    }
}

fn to_ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// A tally in figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// All requests, expected or not.
    pub count: u64,
    /// Expected answers a second.
    pub rate_per_second: f64,
    /// Half were at most this slow.
    pub p50_ms: f64,
    /// 90 of 100.
    pub p90_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// How many ended otherwise, by status code or `no answer`.
    pub errors: BTreeMap<String, u64>,
}

impl Summary {
    /// Part of all requests that ended otherwise than expected, 0 to 1.
    pub fn error_rate(&self) -> f64 {
        self.errors.values().sum::<u64>() as f64 / (self.count.max(1)) as f64
    }

    /// Each figure's median over several runs; errors are added up.
    pub fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure).collect());
        let mut errors = BTreeMap::new();
        for (code, count) in runs.iter().flat_map(|run| &run.errors) {
            *errors.entry(code.clone()).or_default() += count;
        }
        Self {
            count: runs.iter().map(|run| run.count).sum(),
            rate_per_second: of(|run| run.rate_per_second),
            p50_ms: of(|run| run.p50_ms),
            p90_ms: of(|run| run.p90_ms),
            p95_ms: of(|run| run.p95_ms),
            p99_ms: of(|run| run.p99_ms),
            p999_ms: of(|run| run.p999_ms),
            max_ms: of(|run| run.max_ms),
            errors,
        }
    }
}

/// The middle value; of an even number the mean of the two in the middle; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
