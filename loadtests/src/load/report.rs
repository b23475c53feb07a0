//! What a run has shown, in figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::tally::Summary;
use crate::usage::usage;

use super::recorder::Recorder;
use super::run::Run;
use super::scenario::Goal;

/// Quantiles of the plot of latencies.
pub(super) const QUANTILES: [f64; 9] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// A run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Virtual clients.
    pub clients: usize,
    /// Tenants over which they were spread.
    pub tenants: usize,
    /// Connections at most.
    pub connections: usize,
    /// Requests a second that fell due.
    pub offered_per_second: f64,
    /// From the first due time to the last answer.
    pub elapsed_seconds: f64,
    /// All requests; latency counts from the due time.
    pub all: Summary,
    /// The same by kind of request.
    pub kinds: BTreeMap<String, Summary>,
    /// How late the generator itself sent requests whose client was free: part of every latency.
    pub generator_lateness: Summary,
    /// Latency in milliseconds at each quantile.
    pub quantiles_ms: Vec<(f64, f64)>,
    /// Over time.
    pub timeline: Vec<Point>,
    /// What the scenario asks for.
    pub goal: Goal,
    /// The most sessions that one tenant's clients held at once, and what its pool has.
    pub most_held: u64,
    /// Seats of each tenant.
    pub seats: u32,
    /// The first answer of each unexpected kind.
    pub samples: BTreeMap<String, String>,
}

/// A stretch of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// Expected answers a second to requests that fell due in it.
    pub rate_per_second: f64,
    /// Half were at most this slow.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Requests that ended otherwise than expected.
    pub errors: u64,
    /// The server's resident memory at its end, where it is known.
    pub server_memory_bytes: Option<u64>,
}

impl Report {
    pub(super) fn new(run: &Run, recorder: &Recorder, memory: &[u64]) -> Self {
        let elapsed = recorder.last.saturating_duration_since(recorder.start);
        let kinds = recorder.kinds.iter().map(|(kind, tally)| ((*kind).to_owned(), tally.summary(elapsed)));
        let values = recorder.all.quantiles_ms(&QUANTILES);
        Self {
            scenario: run.scenario.name.clone(),
            clients: run.scenario.clients,
            tenants: run.crowd.tenants,
            connections: run.connections,
            offered_per_second: run.scenario.rate,
            elapsed_seconds: elapsed.as_secs_f64(),
            all: recorder.all.summary(elapsed),
            kinds: kinds.collect(),
            generator_lateness: recorder.lateness.summary(elapsed),
            quantiles_ms: QUANTILES.into_iter().zip(values).collect(),
            timeline: timeline(recorder, memory),
            goal: run.scenario.goal,
            most_held: recorder.most_held(),
            seats: run.scenario.seats,
            samples: recorder.samples.clone(),
        }
    }

    /// Fast enough, with few enough errors, and no seat granted twice.
    pub fn goal_met(&self) -> bool {
        let quick = self.all.p99_ms < self.goal.p99_ms && self.all.error_rate() < self.goal.error_rate;
        quick && self.most_held <= u64::from(self.seats)
    }
}

fn timeline(recorder: &Recorder, memory: &[u64]) -> Vec<Point> {
    let length = recorder.point_length();
    let point = |(n, tally): (usize, &crate::tally::Tally)| {
        let summary = tally.summary(length);
        Point {
            at_seconds: length.as_secs_f64() * n as f64,
            rate_per_second: summary.rate_per_second,
            p50_ms: summary.p50_ms,
            p99_ms: summary.p99_ms,
            max_ms: summary.max_ms,
            errors: summary.errors.values().sum(),
            server_memory_bytes: memory.get(n).copied(),
        }
    };
    recorder.points.iter().enumerate().map(point).collect()
}

/// The server's memory, looked at once in every point of the timeline.
pub(super) struct Samples {
    seen: Arc<Mutex<Vec<u64>>>,
    task: Option<JoinHandle<()>>,
}

impl Samples {
    /// Does nothing without a process to look at.
    pub(super) fn start(start: Instant, every: Duration, pid: Option<u32>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watched = seen.clone();
        let task = pid.map(|pid| {
            tokio::spawn(async move {
                let mut next = start + every;
                loop {
                    tokio::time::sleep_until(next.into()).await;
                    let memory = usage(pid).map_or(0, |usage| usage.memory_bytes);
                    watched.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
                    next += every;
                }
            })
        });
        Self { seen, task }
    }

    pub(super) fn finish(self) -> Vec<u64> {
        if let Some(task) = self.task {
            task.abort();
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
