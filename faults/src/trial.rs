//! One fault: a stand, clients that play, something that is broken and healed meanwhile, and the verdict.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use loadtests::check::{
    Act, Call, FaultKind, History, Invariant, Moment, Play, Report, Site, Verdict, Workload, examine,
};

use crate::stand::{Stand, StandOptions};
use crate::table::{Line, Outcome};

/// Clients play so long before anything is broken.
const WARM_UP: Duration = Duration::from_millis(2_500);

/// Clients play at least so long after the fault was healed.
const COOL_DOWN: Duration = Duration::from_millis(2_500);

/// A test of one fault.
pub struct Trial {
    name: &'static str,
    fault: &'static str,
    kind: FaultKind,
    /// What it runs on.
    pub stand: StandOptions,
    /// What the clients do.
    pub workload: Workload,
}

/// What a trial came to.
pub struct Seen {
    /// The stand, still running.
    pub stand: Stand,
    /// The tenants that were played with.
    pub site: Site,
    /// What the clients did and were told.
    pub history: History,
    /// The checker's verdict.
    pub report: Report,
    /// When the fault began and was healed.
    pub fault: (Moment, Moment),
    line: Line,
}

impl Trial {
    /// `name` is the test's, `fault` says in a few words what is broken, `lasts` about how long.
    pub fn new(name: &'static str, fault: &'static str, lasts: Duration) -> Self {
        let mut workload = Workload::seeded(seed());
        workload.clients = 24;
        workload.seats = 6;
        workload.duration = WARM_UP + lasts + COOL_DOWN;
        workload.expect.faults = 1;
        Self { name, fault, kind: FaultKind::default(), stand: StandOptions::new(), workload }
    }

    /// Postgres is gone for everybody while the fault lasts: rule 7 lengthens deadlines.
    #[must_use]
    pub fn without_postgres(mut self) -> Self {
        self.kind = FaultKind::postgres_outage();
        self
    }

    /// Changes the stand.
    #[must_use]
    pub fn stand(mut self, change: impl FnOnce(&mut StandOptions)) -> Self {
        change(&mut self.stand);
        self
    }

    /// Changes what the clients do.
    #[must_use]
    pub fn workload(mut self, change: impl FnOnce(&mut Workload)) -> Self {
        change(&mut self.workload);
        self
    }

    /// This replica starts with these fail points; a later start of it has none.
    #[must_use]
    pub fn fail_points(mut self, replica: usize, points: &str) -> Self {
        let variable = ("FAIL_POINTS".to_owned(), points.to_owned());
        self.stand.first_start.entry(replica).or_default().push(variable);
        self
    }

    /// Plays, and breaks something meanwhile; `act` breaks and heals, and answers what shows that it really happened.
    ///
    /// # Errors
    /// When something cannot be started, broken or healed, or an invariant did not hold.
    pub async fn run(self, act: impl AsyncFnOnce(&mut Stand, &Play) -> Result<String>) -> Result<Seen> {
        let seen = self.play(act).await?;
        ensure!(seen.report.is_ok(), "{}\n{}", seen.line.fault, seen.report);
        let unchecked: Vec<_> = Invariant::ALL
            .into_iter()
            .filter(|one| !matches!(seen.report.verdicts.get(one), Some(Verdict::Ok { .. })))
            .collect();
        ensure!(unchecked.is_empty(), "{unchecked:?} were not checked\n{}", seen.report);
        Ok(seen)
    }

    /// As [`Trial::run`], whatever the verdict.
    ///
    /// # Errors
    /// When something cannot be started, broken or healed.
    pub async fn play(mut self, act: impl AsyncFnOnce(&mut Stand, &Play) -> Result<String>) -> Result<Seen> {
        let line =
            Line { test: self.name.to_owned(), fault: self.fault.to_owned(), outcome: Outcome::Failed };
        line.keep()?;
        let begun = Instant::now();
        self.workload.ttl = self.stand.ttl;
        eprintln!("{}: seed {}", self.name, self.workload.seed);
        let mut stand = Stand::start(self.stand).await?;
        let site = stand.furnish(self.workload.tenants, self.workload.seats).await?;
        let started = begun.elapsed();
        let play = Play::start(&site, &self.workload).await?;
        tokio::time::sleep(WARM_UP).await;
        let handle = play.begin_fault(self.fault, self.kind);
        let began = play.now();
        let evidence = Box::pin(act(&mut stand, &play)).await;
        let healed = play.now();
        handle.healed(evidence.as_deref().unwrap_or(""));
        let evidence = evidence?;
        let over = Moment::default().after(self.workload.duration);
        ensure!(healed < over, "the clients had stopped before the fault was healed, at {healed}");
        let history = play.finish().await;
        let played = begun.elapsed();
        let report = examine(&history, &site).await?;
        eprintln!(
            "{}: {evidence}; start {:.1} s, play {:.1} s, verdict {:.1} s",
            self.name,
            started.as_secs_f64(),
            (played - started).as_secs_f64(),
            (begun.elapsed() - played).as_secs_f64()
        );
        Ok(Seen { stand, site, history, report, fault: (began, healed), line })
    }
}

impl Seen {
    /// The test holds: goes into the table, with what it found beside the verdict.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn passed(self, note: &str) -> Result<()> {
        let figures = self.figures();
        let text = if note.is_empty() { figures } else { format!("{note}; {figures}") };
        eprintln!("{}: {text}", self.line.test);
        Line { outcome: Outcome::Held(text), ..self.line }.keep()
    }

    /// Calls that were under way while the fault lasted.
    pub fn meanwhile(&self) -> impl Iterator<Item = &Call> {
        let (began, healed) = self.fault;
        self.history.calls.iter().filter(move |call| call.done >= began && call.sent <= healed)
    }

    /// Seats granted or renewed, and acquires refused for want of one.
    pub fn grants_and_denials(&self) -> (usize, usize) {
        let acquires = self.history.calls.iter().filter(|call| matches!(call.act, Act::Acquire { .. }));
        let granted = acquires.clone().filter(|call| call.ok().is_some()).count();
        let denied = acquires.filter(|call| call.refused() == Some("no_seats_available")).count();
        (granted, denied)
    }

    /// A metric that the checker read, 0 if it did not.
    pub fn counted(&self, metric: &str) -> f64 {
        let counted = self.history.noticed.counted.as_ref();
        counted.and_then(|counted| counted.get(metric)).copied().unwrap_or(0.0)
    }

    fn figures(&self) -> String {
        let (granted, denied) = self.grants_and_denials();
        let all = self.meanwhile().count();
        let unknown = self.meanwhile().filter(|call| call.unknown()).count();
        format!(
            "{} calls, {granted} grants, {denied} denials, {:.0} conflicts, {:.0} repairs; meanwhile {unknown} of {all} calls unanswered or 503, the longest {} ms",
            self.history.calls.len(),
            self.counted("conflicts"),
            self.counted("repairs"),
            self.meanwhile().map(|call| call.done.since(call.sent).as_millis()).max().unwrap_or(0),
        )
    }
}

/// `FAULTS_SEED`, else another one each time.
fn seed() -> u64 {
    let named = std::env::var("FAULTS_SEED").ok().and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into()
    })
}
