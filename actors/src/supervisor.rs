//! The supervision tree: root -> pool supervisor -> one actor per pool.
//!
//! ractor's default supervisor stops when a child does, and there are no restart strategies: both are written here.
//! A pool that fails is started again after a back-off; one that fails too often rests for a while, and its callers
//! are told to come back. A pool that stopped because it was idle is started again by the next caller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::LicenseId;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::pool::batch::Context;
use crate::pool::beat::Beaten;
use crate::pool::{Message, Pool};
use crate::registry::{Handle, Table};

/// First wait before a failed pool starts again; doubles with each failure.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Failures within [`WINDOW`] after which a pool rests for the whole of it.
const MAX_RESTARTS: u32 = 5;

/// Failures older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// What the pool supervisor is told.
pub(crate) enum Order {
    /// Start a pool's actor, unless it runs; `None` while it rests or if there is no room.
    Start(LicenseId, RpcReplyPort<Option<Handle>>),
    /// The back-off of a failed pool is over.
    Restart(LicenseId),
    /// Stop actors that nobody has asked for a while.
    Sweep,
}

/// Starts, restarts and stops pools.
pub(crate) struct PoolSupervisor {
    pub context: Context,
    pub table: Arc<Table>,
}

/// Which actor is which pool, and what failed lately.
#[derive(Default)]
pub(crate) struct Children {
    pools: HashMap<ActorId, LicenseId>,
    failures: HashMap<LicenseId, Failures>,
}

struct Failures {
    count: u32,
    last: Instant,
    rests_until: Instant,
}

impl Actor for PoolSupervisor {
    type Msg = Order;
    type State = Children;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<Children, ActorProcessingErr> {
        Ok(Children::default())
    }

    async fn handle(
        &self,
        me: ActorRef<Order>,
        order: Order,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Start(license_id, reply) => {
                let resting =
                    children.failures.get(&license_id).is_some_and(|one| Instant::now() < one.rests_until);
                let handle = if resting { None } else { self.start(&me, license_id, children).await };
                let _ = reply.send(handle);
            }
            Order::Restart(license_id) => {
                self.start(&me, license_id, children).await;
            }
            Order::Sweep => {
                for handle in self.table.take_idle() {
                    handle.actor.stop(Some("idle".to_owned()));
                }
                children.failures.retain(|_, one| one.last.elapsed() < WINDOW);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Order>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                if let Some(license_id) = children.pools.remove(&who.get_id()) {
                    self.table.remove(license_id, who.get_id());
                    let wait = children.note_failure(license_id);
                    tracing::error!(%license_id, %error, ?wait, "a pool's actor failed");
                    me.send_after(wait, move || Order::Restart(license_id));
                }
            }
            SupervisionEvent::ActorTerminated(who, _, _) => {
                if let Some(license_id) = children.pools.remove(&who.get_id()) {
                    self.table.remove(license_id, who.get_id());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Children {
    /// Counts a failure; answers how long the pool rests.
    fn note_failure(&mut self, license_id: LicenseId) -> Duration {
        let now = Instant::now();
        let one =
            self.failures.entry(license_id).or_insert(Failures { count: 0, last: now, rests_until: now });
        one.count = if one.last.elapsed() < WINDOW { one.count + 1 } else { 1 };
        one.last = now;
        let wait = if one.count > MAX_RESTARTS { WINDOW } else { BACK_OFF * 2u32.pow(one.count - 1) };
        one.rests_until = now + wait;
        wait
    }
}

impl PoolSupervisor {
    async fn start(
        &self,
        me: &ActorRef<Order>,
        license_id: LicenseId,
        children: &mut Children,
    ) -> Option<Handle> {
        if let Some(handle) = self.table.get(license_id) {
            return Some(handle);
        }
        for handle in self.table.make_room() {
            handle.actor.stop(Some("room for another".to_owned()));
        }
        let beaten = Arc::new(Beaten::default());
        let pool = Pool { context: self.context.clone(), license_id, beaten: beaten.clone() };
        match Actor::spawn_linked(None, pool, (), me.get_cell()).await {
            Ok((actor, _)) => {
                if children.failures.contains_key(&license_id) {
                    metrics::counter!("license_actor_restarts_total").increment(1);
                }
                children.pools.insert(actor.get_id(), license_id);
                Some(self.table.insert(license_id, actor, beaten))
            }
            Err(error) => {
                tracing::error!(%license_id, %error, "a pool's actor did not start");
                None
            }
        }
    }
}

/// The root: what it starts, it starts again. Today that is the pool supervisor.
pub(crate) struct Root {
    pub context: Context,
    pub table: Arc<Table>,
}

/// The pool supervisor of the moment.
pub(crate) struct Branch {
    pools: ActorRef<Order>,
}

impl Actor for Root {
    type Msg = RpcReplyPort<ActorRef<Order>>;
    type State = Branch;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<Self::Msg>, (): ()) -> Result<Branch, ActorProcessingErr> {
        Ok(Branch { pools: self.grow(&me).await? })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        ask: Self::Msg,
        branch: &mut Branch,
    ) -> Result<(), ActorProcessingErr> {
        let _ = ask.send(branch.pools.clone());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        branch: &mut Branch,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(who, error) = event {
            tracing::error!(%error, actor = %who.get_id(), "the pool supervisor failed: all pools start anew");
            metrics::counter!("license_actor_restarts_total").increment(1);
            self.table.clear();
            branch.pools = self.grow(&me).await?;
        }
        Ok(())
    }
}

impl Root {
    async fn grow(
        &self,
        me: &ActorRef<RpcReplyPort<ActorRef<Order>>>,
    ) -> Result<ActorRef<Order>, ActorProcessingErr> {
        let supervisor = PoolSupervisor { context: self.context.clone(), table: self.table.clone() };
        let (pools, _) = Actor::spawn_linked(None, supervisor, (), me.get_cell()).await?;
        pools.send_interval(crate::registry::SWEEP, || Order::Sweep);
        Ok(pools)
    }
}

/// What a pool's actor is asked through.
pub(crate) type PoolRef = ActorRef<Message>;
