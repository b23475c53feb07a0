//! The path of a batch: gate, decide, append; on a conflict catch up and decide again; apply, reply, mirror.
//!
//! Delivery: a command is answered from committed events only. When this ends without an answer, its sender was
//! dropped and the caller says "unavailable"; repeating the command is safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{Appended, Event, EventLog, LicenseId, LicenseTerms, LogError, Refused, SessionId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::command::{Answer, Command, Grant};
use super::load::{Loaded, catch_up, load};
use super::mirror::Mirror;
use super::plan::{Asked, Outcome, Plan};
use super::state::PoolState;
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
    /// The request's span: the batch's own work is shown under its first command's.
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
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.deadline
    }

    fn asks_for_seat(&self) -> Option<(SessionId, String)> {
        match &self.command {
            Command::Acquire { session_id, user_id, hardware_id, .. } => {
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
    /// Heartbeats that the mirror did not know.
    forgotten: Vec<SessionId>,
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
        forgotten: Vec::new(),
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
    run.mirror().await;
    result
}

impl Run<'_> {
    /// Asks the gate for those acquires whose user holds nothing yet.
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
        if requests.is_empty() {
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
        Ok(())
    }

    /// Decides, appends and settles once; whoever is not answered stays waiting.
    async fn round(&mut self) -> Result<(), LogError> {
        let now = self.context.writer.now();
        let asked: Vec<_> = self
            .waiting
            .iter()
            .map(|one| Asked { command: &one.command, request_id: one.request_id.as_deref() })
            .collect();
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
        let beats: Vec<_> = plan.heartbeats.iter().map(|beat| beat.session_id).collect();
        let extend = async {
            if beats.is_empty() {
                return None;
            }
            self.context.gate.extend(self.core.state.license_id, self.context.ttl, &beats).await
        };
        let (appended, forgotten) = tokio::join!(self.context.writer.append(plan.job()), extend);
        self.forgotten.extend(forgotten.unwrap_or_default());
        self.settle(plan, Some(appended?)).await
    }

    /// Whether the gate or a caller knows of something that the state does not.
    fn is_suspicious(&self, plan: &Plan) -> bool {
        self.waiting.iter().zip(&plan.outcomes).any(|(pending, outcome)| match (outcome, &pending.pass) {
            (Outcome::NotHeld { .. }, _) => !self.caught_up,
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

    /// Applies what was written and answers; what was refused is put right, so that the next round decides otherwise.
    async fn settle(&mut self, plan: Plan, appended: Option<Appended>) -> Result<(), LogError> {
        let (mut at, refused) = match appended {
            Some(appended) => (appended.at, appended.refused),
            None => (self.context.writer.now(), Vec::new()),
        };
        let mut written = true;
        let mut stale = false;
        for one in &refused {
            match one {
                Refused::Already { at: before, .. } => at = *before,
                Refused::Conflict { .. } => (written, stale) = (false, true),
                Refused::NotLapsed { session, until, .. } => {
                    written = false;
                    self.core.state.extend(*session, until.after(CLOCK_ERROR));
                }
                Refused::UserUnknown { session, .. } => {
                    written = false;
                    self.turn_away(*session, Answer::UserUnknown);
                }
                Refused::UserRemoved { session, .. } => {
                    written = false;
                    self.turn_away(*session, Answer::UserRemoved);
                }
                Refused::Renewed { session, .. } => {
                    written = false;
                    self.turn_away(*session, Answer::NotHeld { end: None });
                }
                Refused::KeyTaken { session, .. } => {
                    written = false;
                    self.turn_away(*session, Answer::KeyTaken);
                }
                Refused::NameTaken { .. }
                | Refused::Missing { .. }
                | Refused::LicenseInactive { .. }
                | Refused::LicenseExpired { .. }
                | Refused::TenantInactive { .. } => {}
            }
        }
        let license = plan.draft.license.clone();
        if written {
            let expired =
                plan.decisions.iter().filter(|new| matches!(new.event, Event::SeatExpired { .. })).count();
            metrics::counter!("license_seat_decisions_total", "decision" => "expired")
                .increment(expired as u64);
            self.core.state = plan.draft;
            self.ended.extend(plan.ended);
        }
        let deadline = at.after(self.context.ttl);
        let (mut still_waiting, mut lookups) = (Vec::new(), Vec::new());
        // Whoever was turned away is gone from `waiting`, but not from the plan.
        let outcomes = plan.outcomes.into_iter();
        for (slot, outcome) in std::mem::take(&mut self.waiting).into_iter().zip(outcomes) {
            if slot.reply.is_closed() {
                continue;
            }
            let heartbeat = |session_id: &SessionId| {
                refused.iter().find_map(|one| one.heartbeat().filter(|(session, _)| session == session_id))
            };
            let total = self.core.state.limit();
            let answer = match &outcome {
                Outcome::Grant { session_id, used } if written => {
                    self.core.state.extend(*session_id, deadline);
                    grant(&slot, *session_id, *used, total, license.as_ref(), deadline).map(Answer::Granted)
                }
                Outcome::Renew { session_id, used } if heartbeat(session_id).is_none() => {
                    self.core.state.extend(*session_id, deadline);
                    grant(&slot, *session_id, *used, total, license.as_ref(), deadline).map(Answer::Renewed)
                }
                Outcome::Renew { .. } => {
                    stale = true;
                    None
                }
                Outcome::Deny { reason, used, total } if written => {
                    Some(Answer::Denied { reason: *reason, used: *used, total: *total })
                }
                Outcome::Beat { session_id } => match heartbeat(session_id) {
                    None => {
                        self.core.state.extend(*session_id, deadline);
                        Some(Answer::Alive { deadline })
                    }
                    Some((_, Some(standing))) => Some(Answer::NotAccepted(standing)),
                    Some((_, None)) => {
                        lookups.push(slot);
                        continue;
                    }
                },
                Outcome::NotHeld { .. } => {
                    lookups.push(slot);
                    continue;
                }
                Outcome::End { .. } if written => Some(match slot.command {
                    Command::Revoke { .. } => Answer::Revoked,
                    _ => Answer::Released,
                }),
                Outcome::Expire if written => Some(Answer::Expired),
                _ => None,
            };
            match answer {
                Some(answer) => reply(slot, answer),
                None => still_waiting.push(slot),
            }
        }
        self.waiting = still_waiting;
        if !lookups.is_empty() {
            // Beside the batch: nobody else waits for these, and their failure is nobody else's.
            tokio::spawn(look_up(self.context.log.clone(), self.core.state.license_id, lookups));
        }
        if stale {
            self.caught_up = true;
            catch_up(&self.context.log, &self.context.writer, &mut self.core.state).await?;
        }
        Ok(())
    }

    /// Answers the acquire that would have got this session, or the release that would have given it back.
    fn turn_away(&mut self, session: SessionId, answer: Answer) {
        for pending in &mut self.waiting {
            let meant = match &pending.command {
                Command::Acquire { session_id, .. } => *session_id == session,
                Command::Release { session_id, give_back, .. } => *give_back && *session_id == session,
                _ => false,
            };
            if meant {
                let (closed, _) = oneshot::channel();
                let sender = std::mem::replace(&mut pending.reply, closed);
                let _ = sender.send(answer.clone());
            }
        }
    }

    /// Brings the mirror to what the log says now.
    async fn mirror(&mut self) {
        let state = &self.core.state;
        let unused = std::mem::take(&mut self.reserved).into_iter();
        self.ended.extend(unused.filter(|(session, _)| state.session(*session).is_none()));
        let ended = std::mem::take(&mut self.ended);
        let forgotten = std::mem::take(&mut self.forgotten);
        self.core.mirror.follow(self.context, &mut self.core.state, ended, forgotten, self.repair).await;
    }
}

/// Answers commands whose session is not held: how it ended, if it ever was this user's.
async fn look_up(log: EventLog, license_id: LicenseId, slots: Vec<Pending>) {
    for slot in slots {
        match not_held(&log, license_id, &slot.command).await {
            Ok(answer) => reply(slot, answer),
            Err(error) => tracing::warn!(%error, %license_id, "an ended session was not looked up"),
        }
    }
}

async fn not_held(log: &EventLog, license_id: LicenseId, command: &Command) -> Result<Answer, LogError> {
    let (session_id, user_id) = match command {
        Command::Heartbeat { session_id, user_id } | Command::Release { session_id, user_id, .. } => {
            (*session_id, Some(user_id))
        }
        Command::Revoke { session_id, .. } => (*session_id, None),
        Command::Acquire { .. } | Command::Expire | Command::ChangeLicense { .. } => {
            return Ok(Answer::NotHeld { end: None });
        }
    };
    let place = log.find_session(session_id).await?;
    let own = place.is_some_and(|place| {
        place.license_id == license_id && user_id.is_none_or(|user_id| place.user_id == *user_id)
    });
    let end = if own { log.session_end(session_id).await? } else { None };
    Ok(Answer::NotHeld { end })
}

fn grant(
    pending: &Pending,
    session_id: SessionId,
    used: u32,
    total: events::Seats,
    license: Option<&Arc<LicenseTerms>>,
    deadline: events::Time,
) -> Option<Grant> {
    let Command::Acquire { user_id, hardware_id, .. } = &pending.command else { return None };
    Some(Grant {
        session_id,
        user_id: user_id.clone(),
        hardware_id: hardware_id.clone(),
        license: license?.clone(),
        deadline,
        used,
        total,
    })
}

fn reply(pending: Pending, answer: Answer) {
    let decision = match &answer {
        Answer::Granted(_) => Some("granted"),
        Answer::Renewed(_) => Some("renewed"),
        Answer::Denied { .. } => Some("denied"),
        Answer::Released => Some("released"),
        Answer::Revoked => Some("revoked"),
        _ => None,
    };
    if let Some(decision) = decision {
        metrics::counter!("license_seat_decisions_total", "decision" => decision).increment(1);
    }
    let _ = pending.reply.send(answer);
}
