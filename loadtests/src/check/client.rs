//! A virtual CODITECT client: follows its plan, retries what is unknown as the contract documents, and sends
//! a request twice or long after where the plan says so.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::history::{Act, Origin, Outcome};
use super::plan::{Episode, Plan, Which};
use super::recorder::Asked;
use super::site::Tenant;
use super::wire::{Answered, Wire};

/// Attempts at one act whose outcome stays unknown, then the client gives up.
const MAX_ATTEMPTS: usize = 40;

/// One user, and what it plays with.
#[derive(Clone)]
pub(crate) struct Client {
    pub wire: Wire,
    pub name: String,
    pub tenant: Tenant,
    pub user: String,
    pub token: String,
    pub ttl: Duration,
    /// No new act begins after this.
    pub until: Instant,
}

/// What one act came to, after all its attempts.
struct Settled {
    /// The last call.
    id: u64,
    outcome: Outcome,
}

impl Client {
    /// Plays until the end. Requests that are to be sent late are sent by tasks of their own, which are waited for.
    pub async fn play(self, mut plan: Plan) {
        let mut late = JoinSet::new();
        let mut number = 0;
        while Instant::now() < self.until {
            let episode = plan.next_episode();
            self.episode(&episode, number, &mut late).await;
            number += 1;
        }
        while late.join_next().await.is_some() {}
    }

    async fn episode(&self, episode: &Episode, number: usize, late: &mut JoinSet<()>) {
        if !self.pause(episode.pause).await {
            return;
        }
        let product = &self.tenant.pools[episode.pool % self.tenant.pools.len()].product;
        let acquire = Act::Acquire {
            product: product.clone(),
            machine: self.machine(episode),
            key: episode.keyed.then(|| format!("{}-{}-{number}", self.wire.recorder.run(), self.name)),
        };
        let mut replica = episode.replica;
        let settled = self.settle(&acquire, &mut replica, episode.duplicate == Some(Which::Acquire)).await;
        self.later(episode, Which::Acquire, &acquire, &settled, late);
        let Some(session) = session_of(&settled.outcome) else { return };
        for (n, gap) in episode.gaps.iter().enumerate() {
            if !self.pause(*gap).await {
                // The play is over: the session stays as it is, so that something is there at rest.
                return;
            }
            if !self.keep(episode, n, &session, product, &mut replica, late).await {
                return;
            }
        }
        if episode.crashes || Instant::now() >= self.until {
            return;
        }
        let release = Act::Release { session };
        let settled = self.settle(&release, &mut replica, episode.duplicate == Some(Which::Release)).await;
        self.later(episode, Which::Release, &release, &settled, late);
    }

    /// Of this client alone, even if others play the same user.
    fn machine(&self, episode: &Episode) -> String {
        format!("{}-{}-m{}", self.wire.recorder.run(), self.name, episode.machine)
    }

    /// A sign of life, or an acquire in its place. Answers whether the session lives on as far as the client knows.
    async fn keep(
        &self,
        episode: &Episode,
        n: usize,
        session: &str,
        product: &str,
        replica: &mut usize,
        late: &mut JoinSet<()>,
    ) -> bool {
        if episode.renews_at == Some(n) {
            let renew =
                Act::Acquire { product: product.to_owned(), machine: self.machine(episode), key: None };
            let settled = self.settle(&renew, replica, false).await;
            return session_of(&settled.outcome).is_some_and(|renewed| renewed == session);
        }
        let beat = Act::Heartbeat { session: session.to_owned() };
        let settled =
            self.settle(&beat, replica, episode.duplicate == Some(Which::Heartbeat) && n == 0).await;
        if n == 0 {
            self.later(episode, Which::Heartbeat, &beat, &settled, late);
        }
        match settled.outcome {
            Outcome::Ok { .. } | Outcome::Unknown { .. } => true,
            // Suspended: it may be let in again before its time is over.
            Outcome::Refused { status, .. } => status == 403 || status == 429,
        }
    }

    /// Sends until the outcome is known, at another replica each time. With `twice`, the first attempt goes to two
    /// replicas at once, and the client goes by the first request's answer.
    async fn settle(&self, act: &Act, replica: &mut usize, twice: bool) -> Settled {
        let mut origin = Origin::Fresh;
        let mut last = None;
        for attempt in 0..MAX_ATTEMPTS {
            let first = self.send(act, origin, *replica);
            let answered = if twice && attempt == 0 {
                let second = self.send(act, Origin::Duplicate, *replica + 1);
                tokio::join!(first, second).0
            } else {
                first.await
            };
            let settled = Settled { id: answered.id, outcome: answered.outcome };
            let known = !matches!(settled.outcome, Outcome::Unknown { .. });
            if known || Instant::now() >= self.until {
                return settled;
            }
            origin = Origin::Retry(settled.id);
            last = Some(settled);
            *replica += 1;
            tokio::time::sleep(self.ttl / 20).await;
        }
        last.unwrap_or(Settled { id: 0, outcome: Outcome::Unknown { why: "not sent".into() } })
    }

    async fn send(&self, act: &Act, origin: Origin, replica: usize) -> Answered {
        let asked = Asked {
            actor: self.name.clone(),
            tenant: self.tenant.id.clone(),
            user: self.user.clone(),
            act: act.clone(),
            origin,
            replica,
        };
        self.wire.call(&self.token, asked, None).await
    }

    /// Sends this act once more, long after, if the plan says so.
    fn later(&self, episode: &Episode, which: Which, act: &Act, settled: &Settled, late: &mut JoinSet<()>) {
        let Some((_, after)) = episode.late.filter(|(late, _)| *late == which) else { return };
        // An acquire without a key is a new wish whenever it comes: only with one it is a duplicate.
        if matches!(act, Act::Acquire { key: None, .. }) {
            return;
        }
        let (client, act, of, replica) = (self.clone(), act.clone(), settled.id, episode.replica + 1);
        late.spawn(async move {
            if client.pause(after).await {
                client.send(&act, Origin::Late(of), replica).await;
            }
        });
    }

    /// Answers whether there is time left.
    async fn pause(&self, length: Duration) -> bool {
        tokio::time::sleep_until((Instant::now() + length).min(self.until)).await;
        Instant::now() < self.until
    }
}

fn session_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Ok { body, .. } => body.get("session_id").and_then(Value::as_str).map(str::to_owned),
        Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
    }
}
