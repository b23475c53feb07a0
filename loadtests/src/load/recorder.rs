//! Takes down every request of a run: by kind, over time, and how many sessions each tenant held.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::{Outcome, Tally};

/// The run is cut into so many points for the plots over time.
const POINTS: usize = 60;

/// One request, finished.
pub struct Entry {
    /// `acquire`, `refused`, `heartbeat` or `release`.
    pub kind: &'static str,
    /// When it should have been sent.
    pub due: Instant,
    /// When its answer was there.
    pub finished: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// Everything taken down so far.
pub struct Recorder {
    /// When the first request fell due.
    pub start: Instant,
    /// When the last answer was there.
    pub last: Instant,
    /// All requests.
    pub all: Tally,
    /// By kind.
    pub kinds: BTreeMap<&'static str, Tally>,
    /// By time of falling due.
    pub points: Vec<Tally>,
    /// How late the generator itself was with requests whose client was free.
    pub lateness: Tally,
    /// The first answer of each unexpected status.
    pub samples: BTreeMap<String, String>,
    point_length: Duration,
    held: Vec<i64>,
    most_held: i64,
}

impl Recorder {
    /// For a run of this length over so many tenants.
    pub fn new(start: Instant, duration: Duration, tenants: usize) -> Result<Self> {
        Ok(Self {
            start,
            last: start,
            all: Tally::new()?,
            kinds: BTreeMap::new(),
            points: Vec::new(),
            lateness: Tally::new()?,
            samples: BTreeMap::new(),
            point_length: (duration / POINTS as u32).max(Duration::from_secs(1)),
            held: vec![0; tenants.max(1)],
            most_held: 0,
        })
    }

    /// Adds a request. Its latency counts from when it fell due, not from when it was sent.
    pub fn record(&mut self, entry: &Entry) -> Result<()> {
        let latency = entry.finished.saturating_duration_since(entry.due);
        self.last = self.last.max(entry.finished);
        self.all.record(latency, entry.outcome);
        if !self.kinds.contains_key(entry.kind) {
            self.kinds.insert(entry.kind, Tally::new()?);
        }
        if let Some(kind) = self.kinds.get_mut(entry.kind) {
            kind.record(latency, entry.outcome);
        }
        let point = entry.due.saturating_duration_since(self.start).as_nanos() / self.point_length.as_nanos();
        let point = point as usize;
        while self.points.len() <= point {
            self.points.push(Tally::new()?);
        }
        self.points[point].record(latency, entry.outcome);
        Ok(())
    }

    /// A tenant's client has got a seat (+1) or asks to give it back (-1). Counted at the moments that make
    /// the count the smallest possible, so that more than the pool's seats is proof of one granted twice.
    pub fn hold(&mut self, tenant: usize, change: i64) {
        let tenant = tenant % self.held.len();
        self.held[tenant] += change;
        self.most_held = self.most_held.max(self.held[tenant]);
    }

    /// The most sessions that one tenant's clients held at one moment.
    pub fn most_held(&self) -> u64 {
        u64::try_from(self.most_held).unwrap_or(0)
    }

    /// The length of time that one point stands for.
    pub fn point_length(&self) -> Duration {
        self.point_length
    }

    /// Keeps the first answer of a kind that nobody expected.
    pub fn sample(&mut self, code: String, text: impl FnOnce() -> String) {
        self.samples.entry(code).or_insert_with(text);
    }
}
