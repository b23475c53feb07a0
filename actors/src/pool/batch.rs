//! The path of a batch: gate, decide, append; on a conflict catch up and decide again; apply, reply, mirror.
//!
//! Delivery: a command is answered from committed events only. When this ends without an answer, its sender was
//! dropped and the caller says "unavailable"; repeating the command is safe.

mod settle;

pub(super) use settle::not_held;

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{EventLog, LicenseId, LicenseTerms, LogError, SessionId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::command::{Answer, Command};
use super::load::{Loaded, catch_up, load};
use super::mirror::Mirror;
use super::plan::{Asked, Outcome, Plan};
use super::state::PoolState;
use crate::fail_point;
use crate::gate::{Gate, Pass, holder};
use crate::writer::Writer;

/// How often a batch is decided again before its callers are told to come back.
const MAX_ROUNDS: u32 = 12;

/// How far the estimate of Postgres's clock may be ahead: an expiry that came too early waits this much longer.
const CLOCK_ERROR: Duration = Duration::from_millis(20);

/// What every pool works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub log: EventLog,
    pub writer: Writer,
    pub gate: Gate,
    pub ttl: Duration,
}

/// A command that waits for its answer.
pub(crate) struct Pending {
    pub command: Command,
    pub request_id: Option<String>,
    /// After this nobody listens any more.
    pub deadline: Instant,
    pub reply: oneshot::Sender<Answer>,
    /// Says early what an acquire will come to, so that signing begins beside the append.
    pub preview: Option<oneshot::Sender<Preview>>,
    /// What the gate said, once it was asked.
    pub pass: Option<Pass>,
    /// The request's span: the batch's own work is shown under its first command's, and linked to the others'.
    pub span: tracing::Span,
    /// A place in the pool's mailbox, given back when the command is dropped; the pool's own timer needs none.
    pub _permit: Option<OwnedSemaphorePermit>,
}

/// The session that an acquire is about to get, should the append succeed.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The session.
    pub session_id: SessionId,
    /// The terms in force.
    pub license: Arc<LicenseTerms>,
}

impl Pending {
    pub(super) fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.deadline
    }

    fn asks_for_seat(&self) -> Option<(SessionId, String)> {
        match &self.command {
            Command::Acquire { session_id, user_id, hardware_id, renews: None, .. } => {
                Some((*session_id, holder(user_id, hardware_id)))
            }
            _ => None,
        }
    }
}

/// What a pool's actor keeps between batches.
pub(crate) struct Core {
    pub state: PoolState,
    pub mirror: Mirror,
    pub snapshot_version: i64,
}

impl Core {
    /// Out of the log. `Ok(None)`: there is no such pool.
    pub(crate) async fn load(context: &Context, license_id: LicenseId) -> Result<Option<Self>, LogError> {
        let loaded = load(&context.log, &context.writer, license_id).await?;
        Ok(loaded.map(|Loaded { state, snapshot_version }| Self {
            state,
            snapshot_version,
            mirror: Mirror::default(),
        }))
    }
}

/// One batch on its way.
struct Run<'a> {
    context: &'a Context,
    core: &'a mut Core,
    waiting: Vec<Pending>,
    /// The state has been compared with the log since the batch began.
    caught_up: bool,
    /// The mirror contradicted a state that was compared with the log.
    repair: bool,
    /// Sessions that ended: taken out of the mirror.
    ended: Vec<(SessionId, String)>,
    /// Sessions that turned out to live, by renewal, by a refused expiry, or by a grant that the gate was not asked for: the
    /// mirror is told of them.
    living: Vec<SessionId>,
    /// Seats that the gate reserved: taken back unless they became sessions.
    reserved: Vec<(SessionId, String)>,
}

/// Takes a batch to its end.
///
/// # Errors
/// When the log cannot be read or written: whoever was not answered yet hears that by its dropped sender.
pub(crate) async fn run(context: &Context, core: &mut Core, waiting: Vec<Pending>) -> Result<(), LogError> {
    let mut run = Run {
        context,
        core,
        waiting,
        caught_up: false,
        repair: false,
        ended: Vec::new(),
        living: Vec::new(),
        reserved: Vec::new(),
    };
    run.ask_gate().await?;
    let mut result = Ok(());
    for _ in 0..MAX_ROUNDS {
        run.waiting.retain(Pending::is_wanted);
        if run.waiting.is_empty() {
            break;
        }
        result = run.round().await;
        if result.is_err() {
            break;
        }
    }
    fail_point::pass("before_mirror").await?;
    run.mirror().await;
    result
}

impl Run<'_> {
    /// Asks the gate for those acquires whose user holds nothing yet; for a crowd at a full pool only now and then.
    async fn ask_gate(&mut self) -> Result<(), LogError> {
        let (mut asking, mut requests) = (Vec::new(), Vec::new());
        for (index, pending) in self.waiting.iter().enumerate() {
            if let Command::Acquire { user_id, hardware_id, .. } = &pending.command
                && self.core.state.held_by(user_id, hardware_id).is_none()
                && let Some(request) = pending.asks_for_seat()
            {
                asking.push(index);
                requests.push(request);
            }
        }
        let full = self.core.state.is_full(self.context.writer.now());
        if requests.is_empty() || (full && !self.core.mirror.asks_although_full()) {
            return Ok(());
        }
        let Some((passes, lapsed)) =
            self.core.mirror.ask(self.context, &mut self.core.state, &requests).await?
        else {
            return Ok(());
        };
        for ((index, request), pass) in asking.into_iter().zip(requests).zip(passes) {
            if pass == Pass::Granted {
                self.reserved.push(request);
            }
            self.waiting[index].pass = Some(pass);
        }
        // A lapsed session that the log does not know is a ghost: a reservation that never became a seat.
        let ghosts = lapsed.into_iter().filter(|session| self.core.state.session(*session).is_none());
        self.ended.extend(ghosts.map(|session| (session, String::new())));
        fail_point::pass("after_gate").await
    }

    /// Decides, appends and settles once; whoever is not answered stays waiting.
    async fn round(&mut self) -> Result<(), LogError> {
        let now = self.context.writer.now();
        let asked: Vec<_> = self.waiting.iter().map(Asked::of).collect();
        let plan = Plan::of(&self.core.state, &asked, now, self.context.ttl);
        if self.is_suspicious(&plan) {
            if !self.caught_up {
                self.caught_up = true;
                catch_up(&self.context.log, &self.context.writer, &mut self.core.state).await?;
                return Ok(());
            }
            self.repair = true;
        }
        if plan.is_empty() {
            return self.settle(plan, None).await;
        }
        self.preview(&plan);
        let appended = self.context.writer.append(plan.job()).await?;
        self.settle(plan, Some(appended)).await
    }

    /// Whether the gate or a caller knows of something that the state does not.
    fn is_suspicious(&self, plan: &Plan) -> bool {
        self.waiting.iter().zip(&plan.outcomes).any(|(pending, outcome)| match (outcome, &pending.pass) {
            (Outcome::NotHeld { .. } | Outcome::Expire { missed: true }, _) => !self.caught_up,
            (Outcome::Grant { .. }, Some(Pass::Full | Pass::Held(_))) => true,
            (Outcome::Deny { reason: super::command::Reason::NoSeatsAvailable, .. }, Some(Pass::Granted)) => {
                true
            }
            _ => false,
        })
    }

    fn preview(&mut self, plan: &Plan) {
        let Some(license) = plan.draft.license.clone() else { return };
        for (pending, outcome) in self.waiting.iter_mut().zip(&plan.outcomes) {
            if let Outcome::Grant { session_id, .. } | Outcome::Renew { session_id, .. } = outcome
                && let Some(preview) = pending.preview.take()
            {
                let _ = preview.send(Preview { session_id: *session_id, license: license.clone() });
            }
        }
    }

    /// Brings the mirror to what the log says now.
    async fn mirror(&mut self) {
        let state = &self.core.state;
        let unused = std::mem::take(&mut self.reserved).into_iter();
        self.ended.extend(unused.filter(|(session, _)| state.session(*session).is_none()));
        let ended = std::mem::take(&mut self.ended);
        self.core.mirror.note(std::mem::take(&mut self.living));
        self.core.mirror.follow(self.context, &mut self.core.state, ended, self.repair).await;
    }
}
