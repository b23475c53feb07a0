//! A pool's mirror in Redis, kept up with the log. Repair runs this way only (protocol, rule 1).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use events::{LogError, SessionId};

use super::batch::Context;
use super::load::catch_up;
use super::state::PoolState;
use crate::gate::{MirrorSeat, Pass, Passes, holder};

/// Shortest pause between two tellings of a pool's heartbeats: a hundredth of the TTL, within these bounds. Postgres has
/// them already and nobody waits for the mirror, so those of a busy pool go together; the first after a quiet time goes at
/// once.
const EXTEND_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How many batches of a full pool ask the gate in each [`FULL_WINDOW`].
///
/// The gate spares Postgres appends that would be refused, and there are none: a denial is judged by the pool's version,
/// whatever the gate says. It is asked all the same, or a mirror that is wrong would stay so; but not by a crowd.
const ASKED_WHILE_FULL: u32 = 8;

/// See [`ASKED_WHILE_FULL`].
const FULL_WINDOW: Duration = Duration::from_secs(1);

/// What this process knows of a pool's mirror.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    /// The gate's generation when the mirror was last written whole.
    synced_in: Option<u64>,
    /// Sessions that live, or live on, and that the mirror has not been told of.
    untold: HashSet<SessionId>,
    /// When it was last told of any.
    told_at: Option<Instant>,
    /// Since when batches of a full pool are counted, and how many of them asked.
    full: Option<(Instant, u32)>,
}

impl Mirror {
    /// Asks the gate for seats, after bringing a doubtful mirror up to date. `None`: go on without the gate.
    pub(crate) async fn ask(
        &mut self,
        context: &Context,
        state: &mut PoolState,
        requests: &[(SessionId, String)],
    ) -> Result<Option<(Vec<Pass>, Vec<SessionId>)>, LogError> {
        if !context.gate.is_up() {
            return Ok(None);
        }
        let known_good = self.synced_in == Some(context.gate.generation());
        if !known_good && !self.sync(context, state).await? {
            return Ok(None);
        }
        for _ in 0..2 {
            match context.gate.acquire(state.license_id, context.ttl, requests).await {
                Some(Passes::Known { passes, lapsed }) => return Ok(Some((passes, lapsed))),
                Some(Passes::UnknownPool) => {
                    if !self.sync(context, state).await? {
                        return Ok(None);
                    }
                }
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether a batch asks the gate although the state says that the pool is full.
    pub(crate) fn asks_although_full(&mut self) -> bool {
        let full = self.full.filter(|(since, _)| since.elapsed() < FULL_WINDOW);
        let (since, asked) = full.unwrap_or_else(|| (Instant::now(), 0));
        self.full = Some((since, asked + 1));
        asked < ASKED_WHILE_FULL
    }

    /// Takes note of sessions whose deadline moved, or that the gate was not asked for.
    pub(crate) fn note(&mut self, beaten: impl IntoIterator<Item = SessionId>) {
        self.untold.extend(beaten);
    }

    /// Whether there is something to tell.
    pub(crate) fn is_behind(&self) -> bool {
        !self.untold.is_empty()
    }

    /// How long those wait that come now.
    pub(crate) fn next_telling(&self, ttl: Duration) -> Duration {
        self.told_at.map_or(Duration::ZERO, |at| extend_every(ttl).saturating_sub(at.elapsed()))
    }

    /// Tells of the heartbeats that gathered, if it is time. Answers the sessions that the mirror has forgotten.
    async fn tell(&mut self, context: &Context, state: &PoolState) -> Vec<SessionId> {
        if self.untold.is_empty() || self.told_at.is_some_and(|at| at.elapsed() < extend_every(context.ttl)) {
            return Vec::new();
        }
        let beaten: Vec<_> = self.untold.drain().collect();
        self.told_at = Some(Instant::now());
        context.gate.extend(state.license_id, context.ttl, &beaten).await.unwrap_or_default()
    }

    /// Follows a batch: what ended goes, what lives on is told of, what the mirror forgot comes back, a contradiction is
    /// repaired whole.
    pub(crate) async fn follow(
        &mut self,
        context: &Context,
        state: &mut PoolState,
        ended: Vec<(SessionId, String)>,
        repair: bool,
    ) {
        if !context.gate.is_up() {
            self.synced_in = None;
            self.untold.clear();
            // Not told: but nobody need try before the next time.
            self.told_at = Some(Instant::now());
            return;
        }
        if repair {
            self.repair(context, state).await;
            return;
        }
        if !ended.is_empty() && context.gate.release(state.license_id, &ended).await.is_none() {
            self.synced_in = None;
        }
        for (session, _) in &ended {
            self.untold.remove(session);
        }
        let forgotten = self.tell(context, state).await;
        let lost: Vec<_> = seats(context, state, forgotten.into_iter());
        if !lost.is_empty() {
            let restored = context.gate.restore(state.license_id, state.version, state.limit(), &lost).await;
            if restored.is_some() {
                metrics::counter!("license_mirror_repairs_total").increment(1);
            } else {
                // It knows nothing of the pool any more.
                self.repair(context, state).await;
            }
        }
    }

    async fn repair(&mut self, context: &Context, state: &mut PoolState) {
        if let Err(error) = self.sync(context, state).await {
            tracing::warn!(%error, license_id = %state.license_id, "the mirror was not repaired");
        }
    }

    /// Writes the mirror whole. A mirror that claims a later version sends us to the log first; if the log does not
    /// bear it out, the mirror is wrong.
    pub(crate) async fn sync(&mut self, context: &Context, state: &mut PoolState) -> Result<bool, LogError> {
        let generation = context.gate.generation();
        for force in [false, true] {
            let all = seats(context, state, state.sessions().map(|(session_id, _)| session_id));
            match context.gate.sync(state.license_id, state.version, state.limit(), &all, force).await {
                Some(true) => {
                    self.synced_in = Some(generation);
                    return Ok(true);
                }
                Some(false) => {
                    catch_up(&context.log, &context.writer, state).await?;
                }
                None => break,
            }
        }
        self.synced_in = None;
        Ok(false)
    }
}

fn extend_every(ttl: Duration) -> Duration {
    (ttl / 100).clamp(EXTEND_EVERY.0, EXTEND_EVERY.1)
}

fn seats(context: &Context, state: &PoolState, wanted: impl Iterator<Item = SessionId>) -> Vec<MirrorSeat> {
    let now = context.writer.now();
    wanted
        .filter_map(|session_id| {
            let session = state.session(session_id)?;
            Some(MirrorSeat {
                session_id,
                holder: holder(&session.user_id, &session.hardware_id),
                remaining: session.deadline.since(now),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ASKED_WHILE_FULL, Mirror};

    #[test]
    fn a_crowd_at_a_full_pool_asks_the_gate_a_few_times_a_second() {
        let mut mirror = Mirror::default();
        let asked = (0..1_000).filter(|_| mirror.asks_although_full()).count();
        assert_eq!(asked, ASKED_WHILE_FULL as usize);
        // A second later it is asked again.
        mirror.full = mirror.full.map(|(since, asked)| (since - super::FULL_WINDOW, asked));
        assert!(mirror.asks_although_full());
    }
}
