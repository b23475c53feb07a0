//! A run: the scenario's clients, driven through their timetable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc::channel;
use tokio::task::JoinSet;

use crate::crowd::Crowd;
use crate::target::Target;

use super::pool::Pool;
use super::recorder::Recorder;
use super::report::{Report, Samples};
use super::scenario::Scenario;
use super::stage::Stage;
use super::timetable::Timetable;

/// Announcements that wait while the runtime is busy; their due times are not touched by waiting.
const TICKS_WAITING: usize = 4_096;
/// Between the pacer's start and the first request.
const LEAD: Duration = Duration::from_millis(20);

/// A scenario about to be run.
pub struct Run {
    /// The server.
    pub target: Arc<Target>,
    /// What the clients do.
    pub scenario: Scenario,
    /// Whose tokens they use.
    pub crowd: Crowd,
    /// At most so many at once.
    pub connections: usize,
    /// The server's process, if its memory can be watched.
    pub server_pid: Option<u32>,
}

/// Runs the scenario to its end, gives back every seat, and reports.
pub async fn drive(run: Run) -> Result<Report> {
    let pool = Pool::new(&run.target.endpoint, run.connections);
    pool.connect().await?;
    let stage = Arc::new(Stage::new(&run, pool)?);
    if run.scenario.sessions_first {
        eprintln!("acquiring {} sessions", run.scenario.clients);
        stage.everyone_acquires().await?;
    }
    let start = Instant::now() + LEAD;
    *stage.recorder() = Recorder::new(start, run.scenario.duration, run.crowd.tenants)?;
    stage.recount();
    let samples = Samples::start(start, stage.recorder().point_length(), run.server_pid);
    let timetable = Timetable { start, rate: run.scenario.rate, requests: run.scenario.requests() };
    eprintln!(
        "running {}: {} requests in {:?}",
        run.scenario.name, timetable.requests, run.scenario.duration
    );
    let (sender, mut ticks) = channel(TICKS_WAITING);
    timetable.announce(sender);
    let mut under_way = JoinSet::new();
    while let Some(tick) = ticks.recv().await {
        stage.fallen_due(tick, &mut under_way)?;
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    let samples = samples.finish();
    let report = Report::new(&run, &stage.recorder(), &samples);
    stage.everyone_releases().await;
    Ok(report)
}
