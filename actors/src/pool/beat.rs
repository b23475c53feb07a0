//! Heartbeats. They need no state, for Postgres judges each by its seats table, and they never conflict: so they do not
//! wait for the pool's decisions. Those that arrive while an append of heartbeats is under way go together in the next,
//! beside it if they are many.
//!
//! Delivery: as in `batch.rs`. A heartbeat is answered from its committed event only.

use events::{Appended, LicenseId, LogError, SessionId, TenantId, Time};
use uuid::Uuid;

use super::batch::{Context, Pending, look_up, reply};
use super::command::Answer;
use super::plan::{Asked, Outcome, Plan};
use super::state::PoolState;

/// What the pool is told of its heartbeats: sessions that live on, until when.
pub(crate) type Beaten = Vec<(SessionId, Time)>;

/// Takes heartbeats to their end.
///
/// # Errors
/// When the log cannot be written: whoever was not answered yet hears that by its dropped sender. What was written
/// before is in `beaten`.
pub(crate) async fn run(
    context: &Context,
    license_id: LicenseId,
    mut waiting: Vec<Pending>,
    beaten: &mut Beaten,
) -> Result<(), LogError> {
    let nothing_known = PoolState::new(license_id, TenantId(Uuid::nil()));
    loop {
        waiting.retain(Pending::is_wanted);
        if waiting.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = waiting.iter().map(Asked::of).collect();
        let plan = Plan::of(&nothing_known, &asked, context.writer.now(), context.ttl);
        let appended = context.writer.append(plan.job()).await?;
        waiting = settle(context, license_id, waiting, &plan.outcomes, &appended, beaten);
    }
}

/// Answers what was judged, and gives back those whose session had another's heartbeat in the same statement.
fn settle(
    context: &Context,
    license_id: LicenseId,
    waiting: Vec<Pending>,
    outcomes: &[Outcome],
    appended: &Appended,
    beaten: &mut Beaten,
) -> Vec<Pending> {
    let (mut later, mut ended) = (Vec::new(), Vec::new());
    for (slot, outcome) in waiting.into_iter().zip(outcomes) {
        let Outcome::Beat { session_id } = outcome else {
            later.push(slot);
            continue;
        };
        match appended.heartbeat(*session_id) {
            Ok(at) => {
                let deadline = at.after(context.ttl);
                beaten.push((*session_id, deadline));
                reply(slot, Answer::Alive { deadline });
            }
            Err(Some(standing)) => reply(slot, Answer::NotAccepted(standing)),
            Err(None) => ended.push(slot),
        }
    }
    if !ended.is_empty() {
        // Beside the heartbeats: nobody else waits for these, and their failure is nobody else's.
        tokio::spawn(look_up(context.log.clone(), license_id, ended));
    }
    later
}
