//! Finds a pool's actor, or starts it; bounded in number, and in what waits before each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use events::{
    EventLog, HardwareId, IdempotencyKey, LicenseChange, LicenseId, LogError, MachineName, SessionId, UserId,
};
use ractor::{Actor, ActorId, ActorRef, RpcReplyPort};
use tokio::sync::{Semaphore, oneshot};

use crate::gate::Gate;
use crate::pool::Message;
use crate::pool::batch::{Context, Pending, Preview};
use crate::pool::beat::{self, Beaten};
use crate::pool::command::{Answer, Command, Grant};
use crate::supervisor::{Order, PoolRef, Root};
use crate::writer::Writer;

/// Most pools with a live actor; the reaper serves the others' seats.
const MAX_POOLS: usize = 20_000;

/// Most commands that wait before one pool.
const MAILBOX: usize = 2_048;

/// A pool that nobody asked for this long stops.
const IDLE: Duration = Duration::from_secs(900);

/// How often idle pools are looked for.
pub(crate) const SWEEP: Duration = Duration::from_secs(30);

/// A live actor and what bounds its mailbox.
#[derive(Clone)]
pub(crate) struct Handle {
    pub actor: PoolRef,
    permits: Arc<Semaphore>,
    beaten: Arc<Beaten>,
    /// Milliseconds since the table was made.
    last_asked: Arc<AtomicU64>,
}

/// All live actors by pool.
pub(crate) struct Table {
    begun: Instant,
    pools: RwLock<HashMap<LicenseId, Handle>>,
}

impl Table {
    fn new() -> Self {
        Self { begun: Instant::now(), pools: RwLock::default() }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn get(&self, license_id: LicenseId) -> Option<Handle> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&license_id).cloned()
    }

    /// When the table is full: takes out the hundredth part that was asked the longest ago, of those that nobody asks
    /// now. What they hold is in the log.
    pub(crate) fn make_room(&self) -> Vec<Handle> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if pools.len() < MAX_POOLS {
            return Vec::new();
        }
        let idle = pools.iter().filter(|(_, handle)| handle.permits.available_permits() == MAILBOX);
        let mut by_age: Vec<_> =
            idle.map(|(id, handle)| (handle.last_asked.load(Ordering::Relaxed), *id)).collect();
        by_age.sort_unstable();
        let oldest = by_age.into_iter().take(MAX_POOLS / 100).filter_map(|(_, id)| pools.remove(&id));
        let taken: Vec<_> = oldest.collect();
        for handle in &taken {
            handle.permits.close();
        }
        count(&pools);
        taken
    }

    pub(crate) fn insert(&self, license_id: LicenseId, actor: PoolRef, beaten: Arc<Beaten>) -> Handle {
        let handle = Handle {
            actor,
            beaten,
            permits: Arc::new(Semaphore::new(MAILBOX)),
            last_asked: Arc::new(AtomicU64::new(self.age())),
        };
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.insert(license_id, handle.clone());
        count(&pools);
        handle
    }

    pub(crate) fn remove(&self, license_id: LicenseId, actor: ActorId) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if pools.get(&license_id).is_some_and(|handle| handle.actor.get_id() == actor) {
            pools.remove(&license_id);
            count(&pools);
        }
    }

    pub(crate) fn clear(&self) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.clear();
        count(&pools);
    }

    /// Takes out the pools that nobody asked for a while. Closing the permits first sends late callers to a new actor.
    pub(crate) fn take_idle(&self) -> Vec<Handle> {
        let before = self.age().saturating_sub(u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX));
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let idle = |handle: &Handle| {
            handle.last_asked.load(Ordering::Relaxed) < before
                && handle.permits.available_permits() == MAILBOX
        };
        let taken: Vec<_> = pools.extract_if(|_, handle| idle(handle)).map(|(_, handle)| handle).collect();
        for handle in &taken {
            handle.permits.close();
        }
        count(&pools);
        taken
    }
}

fn count(pools: &HashMap<LicenseId, Handle>) {
    metrics::gauge!("license_pool_actors").set(pools.len() as f64);
}

/// Why there is no answer. Repeating the request is always safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Something that the answer needs is down, or its deadline passed.
    #[error("no answer in time")]
    Unavailable,
    /// Too much waits already.
    #[error("the pool has too much to do")]
    Overloaded,
}

/// Who asks, and how long it waits.
#[derive(Debug, Clone)]
pub struct Request {
    /// Written into the events that the request causes.
    pub request_id: Option<String>,
    /// After this nobody listens any more.
    pub deadline: Instant,
}

/// A seat asked for.
#[derive(Debug, Clone)]
pub struct AcquireSeat {
    /// Who.
    pub user_id: UserId,
    /// Where.
    pub hardware_id: HardwareId,
    /// What admins see beside the session.
    pub machine_name: Option<MachineName>,
    /// Recorded with the grant.
    pub key: Option<IdempotencyKey>,
    /// The session that this acquire was granted before: only that one will do.
    pub renews: Option<SessionId>,
}

/// All pools. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    table: Arc<Table>,
    root: ActorRef<RpcReplyPort<ActorRef<Order>>>,
    context: Context,
}

impl Pools {
    /// Starts the supervision tree.
    ///
    /// # Errors
    /// When its root cannot be started.
    pub async fn start(log: EventLog, writer: Writer, gate: Gate, ttl: Duration) -> Result<Self, LogError> {
        let table = Arc::new(Table::new());
        let context = Context { log, writer, gate, ttl };
        let root = Root { context: context.clone(), table: table.clone() };
        let (root, _) = Actor::spawn(None, root, ())
            .await
            .map_err(|error| LogError::Setting(format!("no actors: {error}")))?;
        Ok(Self { table, root, context })
    }

    /// What reads the log beside the pools.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.context.log
    }

    /// The way into the log.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.context.writer
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.context.gate
    }

    /// Asks for a seat. The preview says what it will come to while the append is under way.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn acquire(
        &self,
        license_id: LicenseId,
        seat: AcquireSeat,
        preview: oneshot::Sender<Preview>,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let AcquireSeat { user_id, hardware_id, machine_name, key, renews } = seat;
        let session_id = SessionId::mint();
        let command = Command::Acquire { session_id, user_id, hardware_id, machine_name, key, renews };
        self.ask(license_id, command, Some(preview), request).await
    }

    /// Tells a pool that a holder lives.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn heartbeat(
        &self,
        license_id: LicenseId,
        session_id: SessionId,
        user_id: UserId,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let patience = request.deadline.saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(patience, async {
            let (handle, _permit) = self.find(license_id).await?;
            handle.last_asked.store(self.table.age(), Ordering::Relaxed);
            let answer =
                beat::run(&self.context, license_id, session_id, user_id, request.request_id.clone()).await;
            let answer = answer.map_err(|error| {
                tracing::warn!(%error, %license_id, "a heartbeat was not answered");
                NoAnswer::Unavailable
            })?;
            // Meanwhile another actor may have taken the place of one that failed.
            let handle = self.table.get(license_id).unwrap_or(handle);
            if let Answer::Alive { deadline } = answer
                && handle.beaten.note(session_id, deadline)
            {
                let _ = handle.actor.cast(Message::Beaten);
            }
            Ok(answer)
        });
        answer.await.unwrap_or(Err(NoAnswer::Unavailable))
    }

    /// Gives a seat back.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn release(
        &self,
        license_id: LicenseId,
        session_id: SessionId,
        user_id: UserId,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let command = Command::Release { session_id, user_id, give_back: false, forget: None };
        self.ask(license_id, command, None, request).await
    }

    /// Takes back a grant that could not be answered, and forgets its key; not if somebody was answered with it since.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn give_back(
        &self,
        license_id: LicenseId,
        grant: &Grant,
        forget: Option<IdempotencyKey>,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let (session_id, user_id) = (grant.session_id, grant.user_id.clone());
        let command = Command::Release { session_id, user_id, give_back: true, forget };
        self.ask(license_id, command, None, request).await
    }

    /// Ends somebody's session.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn revoke(
        &self,
        license_id: LicenseId,
        session_id: SessionId,
        by: String,
        reason: String,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        self.ask(license_id, Command::Revoke { session_id, by, reason }, None, request).await
    }

    /// Changes a license's terms.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request may have taken effect.
    pub async fn change_license(
        &self,
        license_id: LicenseId,
        change: LicenseChange,
        if_version: Option<i64>,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        self.ask(license_id, Command::ChangeLicense { change, if_version }, None, request).await
    }

    /// Ends the lapsed sessions of a pool in which somebody found an overdue seat.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn expire(&self, license_id: LicenseId, request: &Request) -> Result<Answer, NoAnswer> {
        self.ask(license_id, Command::Expire { overdue: true }, None, request).await
    }

    async fn ask(
        &self,
        license_id: LicenseId,
        command: Command,
        preview: Option<oneshot::Sender<Preview>>,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let patience = request.deadline.saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(patience, async {
            let (handle, permit) = self.find(license_id).await?;
            handle.last_asked.store(self.table.age(), Ordering::Relaxed);
            let (reply, answer) = oneshot::channel();
            let pending = Pending {
                command,
                request_id: request.request_id.clone(),
                deadline: request.deadline,
                reply,
                preview,
                pass: None,
                span: tracing::Span::current(),
                _permit: Some(permit),
            };
            handle.actor.cast(Message::Ask(Box::new(pending))).map_err(|_| NoAnswer::Unavailable)?;
            answer.await.map_err(|_| NoAnswer::Unavailable)
        });
        answer.await.unwrap_or(Err(NoAnswer::Unavailable))
    }

    /// A live actor and a place in its mailbox.
    async fn find(
        &self,
        license_id: LicenseId,
    ) -> Result<(Handle, tokio::sync::OwnedSemaphorePermit), NoAnswer> {
        // Twice, because an idle pool may be stopped between finding it and taking its permit.
        for _ in 0..2 {
            let handle = match self.table.get(license_id) {
                Some(handle) => handle,
                None => self.start_pool(license_id).await?,
            };
            match handle.permits.clone().try_acquire_owned() {
                Ok(permit) => return Ok((handle, permit)),
                Err(tokio::sync::TryAcquireError::NoPermits) => return Err(NoAnswer::Overloaded),
                Err(tokio::sync::TryAcquireError::Closed) => {}
            }
        }
        Err(NoAnswer::Unavailable)
    }

    async fn start_pool(&self, license_id: LicenseId) -> Result<Handle, NoAnswer> {
        let patience = Some(Duration::from_secs(1));
        let supervisor = self.root.call(|reply| reply, patience).await.map_err(|_| NoAnswer::Unavailable)?;
        let ractor::rpc::CallResult::Success(supervisor) = supervisor else {
            return Err(NoAnswer::Unavailable);
        };
        let handle = supervisor
            .call(|reply| Order::Start(license_id, reply), patience)
            .await
            .map_err(|_| NoAnswer::Unavailable)?;
        match handle {
            ractor::rpc::CallResult::Success(Some(handle)) => Ok(handle),
            _ => Err(NoAnswer::Unavailable),
        }
    }

    /// Makes a pool's next batch panic: what supervision does then is tested with it.
    #[cfg(any(test, feature = "fail-points"))]
    pub async fn panic_pool(&self, license_id: LicenseId) -> Result<(), NoAnswer> {
        let (handle, _permit) = self.find(license_id).await?;
        handle.actor.cast(Message::Panic).map_err(|_| NoAnswer::Unavailable)
    }

    /// Stops all pools, after what they have in hand.
    pub async fn stop(&self) {
        let _ = self.root.stop_and_wait(None, Some(Duration::from_secs(2))).await;
    }
}
