//! The virtual clients at work, and everything that their requests in flight share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::crowd::Crowd;
use crate::http::{Answer, Call};
use crate::tally::Outcome;
use crate::target::Target;

use super::client::{Client, Next};
use super::pool::Pool;
use super::recorder::{Entry, Recorder};
use super::run::Run;
use super::scenario::Scenario;
use super::timetable::Tick;

/// Everything that the requests in flight share.
pub(super) struct Stage {
    target: Arc<Target>,
    scenario: Scenario,
    crowd: Crowd,
    pool: Pool,
    clients: Vec<Mutex<Seat>>,
    recorder: Mutex<Recorder>,
}

/// A client in its chair.
struct Seat {
    client: Client,
    machine: String,
    /// A request of its is under way.
    busy: bool,
    /// Due times that passed meanwhile.
    overdue: VecDeque<Instant>,
    /// It counts among its tenant's holders.
    counted: bool,
}

impl Stage {
    pub(super) fn new(run: &Run, pool: Pool) -> Result<Self> {
        let seat = |_| {
            let machine = run.target.new_machine();
            Mutex::new(Seat {
                client: Client::default(),
                machine,
                busy: false,
                overdue: VecDeque::new(),
                counted: false,
            })
        };
        Ok(Self {
            target: run.target.clone(),
            scenario: run.scenario.clone(),
            crowd: run.crowd.clone(),
            pool,
            clients: (0..run.scenario.clients).map(seat).collect(),
            recorder: Mutex::new(Recorder::new(Instant::now(), run.scenario.duration, run.crowd.tenants)?),
        })
    }

    /// A client's turn: it sends now, or, if it still waits for its last answer, as soon as that is there.
    pub(super) fn fallen_due(
        self: &Arc<Self>,
        tick: Tick,
        under_way: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let n = (tick.number % self.clients.len() as u64) as usize;
        let mut seat = self.seat(n);
        if seat.busy {
            seat.overdue.push_back(tick.due);
            return Ok(());
        }
        seat.busy = true;
        let late = Instant::now().saturating_duration_since(tick.due);
        self.recorder().lateness.record(late, Outcome::Expected);
        under_way.spawn(self.clone().serve(n, tick.due));
        Ok(())
    }

    async fn serve(self: Arc<Self>, n: usize, due: Instant) -> Result<()> {
        let mut due = Some(due);
        while let Some(time) = due {
            self.request(n, time).await?;
            let mut seat = self.seat(n);
            due = seat.overdue.pop_front();
            seat.busy = due.is_some();
        }
        Ok(())
    }

    /// One request of one client, from its due time to its entry in the record.
    async fn request(&self, n: usize, due: Instant) -> Result<()> {
        let (request, call) = self.prepare(n);
        let answer = self.pool.call(&call).await;
        let finished = Instant::now();
        let mut seat = self.seat(n);
        let seen = answer.as_ref().ok().map(|answer| (answer.status, answer.session_id()));
        let outcome = seat.client.answered(&request, self.scenario.script, seen);
        let kind = match (&request, seen) {
            (Next::Acquire, Some((409, _))) => "refused",
            (Next::Acquire, _) => "acquire",
            (Next::Heartbeat(_), _) => "heartbeat",
            (Next::Release(_), _) => "release",
        };
        let mut recorder = self.recorder();
        recorder.record(&Entry { kind, due, finished, outcome })?;
        if outcome != Outcome::Expected {
            note(&mut recorder, kind, &answer);
        }
        let holds = seat.client.session_id().is_some();
        // Released is counted when it is sent; here are grants, and sessions that had ended.
        if holds != seat.counted && !matches!(request, Next::Release(_)) {
            seat.counted = holds;
            recorder.hold(n % self.crowd.users.len(), if holds { 1 } else { -1 });
        }
        Ok(())
    }

    fn prepare(&self, n: usize) -> (Next, Call) {
        let mut seat = self.seat(n);
        let user = self.crowd.user(n);
        let request = seat.client.next(self.scenario.script);
        let call = match &request {
            Next::Acquire => self.target.acquire(user, &seat.machine),
            Next::Heartbeat(session_id) => self.target.heartbeat(user, session_id),
            Next::Release(session_id) => {
                if std::mem::take(&mut seat.counted) {
                    self.recorder().hold(n % self.crowd.users.len(), -1);
                }
                self.target.release(user, session_id)
            }
        };
        (request, call)
    }

    /// Before the measurement: all clients at once, as fast as the connections allow.
    pub(super) async fn everyone_acquires(self: &Arc<Self>) -> Result<()> {
        let mut under_way = JoinSet::new();
        for n in 0..self.clients.len() {
            let stage = self.clone();
            under_way.spawn(async move { stage.request(n, Instant::now()).await });
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        let without = (0..self.clients.len()).filter(|n| self.seat(*n).client.session_id().is_none()).count();
        if without > 0 {
            bail!(
                "{without} of {} sessions could not be acquired: {:?}",
                self.clients.len(),
                self.recorder().samples
            );
        }
        Ok(())
    }

    /// After the measurement: leaves the server as it was found. What fails lapses by itself.
    pub(super) async fn everyone_releases(self: &Arc<Self>) {
        let mut under_way = JoinSet::new();
        for n in 0..self.clients.len() {
            let Some(session_id) = self.seat(n).client.session_id().map(str::to_owned) else { continue };
            let stage = self.clone();
            under_way.spawn(async move {
                let call = stage.target.release(stage.crowd.user(n), &session_id);
                drop(stage.pool.call(&call).await);
            });
        }
        under_way.join_all().await;
    }

    /// Tells a new recorder who holds a session already.
    pub(super) fn recount(&self) {
        for n in 0..self.clients.len() {
            if self.seat(n).counted {
                self.recorder().hold(n % self.crowd.users.len(), 1);
            }
        }
    }

    // Both are held for single steps only, and always in this order.
    fn seat(&self, n: usize) -> MutexGuard<'_, Seat> {
        self.clients[n].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(recorder: &mut Recorder, kind: &str, answer: &Result<Answer>) {
    match answer {
        Ok(answer) => {
            recorder.sample(format!("{kind} {}", answer.status), || {
                String::from_utf8_lossy(&answer.body).into_owned()
            });
        }
        Err(error) => recorder.sample(format!("{kind} no answer"), || format!("{error:#}")),
    }
}
