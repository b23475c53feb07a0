//! Users seen for the first time are added to their tenant.
//!
//! On a Monday morning thousands of new users acquire at once. Each addition is a decision of its tenant's stream, so
//! one by one they would conflict with each other: they gather while an append is under way, and go together.
//!
//! An email that was invited becomes the user who first signs in with it: the id of ours is removed and the user added,
//! with the invitation's roles, in one append.

use std::collections::HashMap;
use std::time::Duration;

use events::{
    AddReason, Event, EventLog, LogError, NameClaim, NewEvent, Refused, StreamWrite, Subject, TenantId,
    UserId, email_key,
};
use moka::future::Cache;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::users::invitation;
use super::{MAX_ROUNDS, PAUSE};
use crate::writer::{Job, Writer};

/// Additions that may wait.
const QUEUE: usize = 16_384;

/// Most additions of one append.
const MAX_BATCH: usize = 500;

/// Users that are remembered as members, so that their acquires need not ask.
const REMEMBERED: u64 = 200_000;

/// How long a member is remembered. A removal is refused by the append itself, whatever is remembered here.
const REMEMBER_FOR: Duration = Duration::from_secs(60);

/// A user that a tenant's token names.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Whose.
    pub tenant_id: TenantId,
    /// `sub`.
    pub user_id: UserId,
    /// As the token says.
    pub email: Option<String>,
    /// The issuer does not say that the email is unverified: an invitation of it may be taken.
    pub email_verified: bool,
    /// The request that brought it.
    pub request_id: Option<String>,
}

impl NewUser {
    /// The email, unless the issuer says that it may be somebody else's.
    fn own_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified)
    }
}

type Reply = oneshot::Sender<Result<(), String>>;

/// Knows who belongs to which tenant. Cheap to clone.
#[derive(Clone)]
pub struct Members {
    log: EventLog,
    queue: mpsc::Sender<(NewUser, Reply)>,
    known: Cache<(TenantId, UserId), ()>,
}

impl Members {
    /// Starts the task that adds.
    #[must_use]
    pub fn start(log: EventLog, writer: Writer) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(add_all(log.clone(), writer, waiting));
        let known = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBER_FOR).build();
        Self { log, queue, known }
    }

    /// Adds the user unless it was ever added. `Ok(false)`: it was removed, and not invited again.
    ///
    /// # Errors
    /// When the log cannot be asked or written.
    pub async fn ensure(&self, user: NewUser) -> Result<bool, LogError> {
        let key = (user.tenant_id, user.user_id.clone());
        if self.known.contains_key(&key) {
            return Ok(true);
        }
        let member = self.log.find_member(user.tenant_id, &user.user_id).await?;
        let removed = member.as_ref().is_some_and(|member| member.removed);
        if removed || member.is_none() {
            if removed && invited(&self.log, &user).await?.is_none() {
                return Ok(false);
            }
            self.add(user).await?;
        }
        self.known.insert(key, ()).await;
        Ok(true)
    }

    /// Adds the user if its email was invited, and does nothing otherwise. Answers whether it was.
    ///
    /// # Errors
    /// When the log cannot be asked or written.
    pub async fn take_invitation(&self, user: NewUser) -> Result<bool, LogError> {
        if invited(&self.log, &user).await?.is_none() {
            return Ok(false);
        }
        self.add(user).await?;
        Ok(true)
    }

    async fn add(&self, user: NewUser) -> Result<(), LogError> {
        let (reply, answer) = oneshot::channel();
        let gone = || LogError::Unavailable("no users can be added".to_owned());
        self.queue.send((user, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(LogError::Unavailable)
    }

    /// Forgets what is remembered of a user.
    pub async fn forget(&self, tenant_id: TenantId, user_id: &UserId) {
        self.known.invalidate(&(tenant_id, user_id.clone())).await;
    }
}

async fn add_all(log: EventLog, writer: Writer, mut waiting: mpsc::Receiver<(NewUser, Reply)>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let mut by_tenant: HashMap<TenantId, Vec<(NewUser, Reply)>> = HashMap::new();
        for one in batch.drain(..) {
            by_tenant.entry(one.0.tenant_id).or_default().push(one);
        }
        // Tenants do not wait for each other.
        let additions = by_tenant.into_iter().map(|(tenant_id, users)| {
            let (log, writer) = (log.clone(), writer.clone());
            async move {
                let result = add(&log, &writer, tenant_id, &users).await.map_err(|error| error.to_string());
                for (_, reply) in users {
                    let _ = reply.send(result.clone());
                }
            }
        });
        futures_util::future::join_all(additions).await;
    }
}

/// Adds those that are still missing; on a conflict looks again.
async fn add(
    log: &EventLog,
    writer: &Writer,
    tenant_id: TenantId,
    users: &[(NewUser, Reply)],
) -> Result<(), LogError> {
    for _ in 0..MAX_ROUNDS {
        let Some(head) = log.stream_head(tenant_id.0).await? else {
            return Err(LogError::Unavailable("the tenant is gone".to_owned()));
        };
        let ids: Vec<_> = users.iter().map(|(user, _)| user.user_id.as_str()).collect();
        let emails: Vec<_> = users.iter().filter_map(|(user, _)| user.own_email()).collect();
        let members = log.find_members(tenant_id, &ids).await?;
        let mut invited = log.find_invitations(tenant_id, &emails).await?;
        let mut missing = HashMap::<&UserId, Addition>::new();
        for (user, _) in users {
            let member = members.get(user.user_id.as_str());
            if missing.contains_key(&user.user_id) || member.is_some_and(|member| !member.removed) {
                continue;
            }
            // An invitation is taken once; who was removed comes back by an invitation only.
            let invitation = user.own_email().and_then(|email| invited.remove(&email_key(email)));
            if let (Some(id), Some(email)) = (invitation, user.own_email()) {
                missing.insert(&user.user_id, Addition::invited(log, user, id, email).await?);
            } else if member.is_none() {
                missing.insert(&user.user_id, Addition::unasked(user));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let (mut events, mut names) = (Vec::new(), Vec::new());
        for addition in missing.into_values() {
            events.extend(addition.events);
            names.extend(addition.names);
        }
        let stream = StreamWrite {
            stream_id: tenant_id.0,
            tenant_id,
            product: None,
            expected: head.version,
            standing: None,
            events,
        };
        // Only an invitation's name must stand or fall with the rest; other additions travel with everybody's jobs.
        let job = Job { whole: !names.is_empty(), streams: vec![stream], names, ..Job::default() };
        let appended = writer.append(job).await?;
        if appended.refused.iter().all(|one| matches!(one, Refused::Already { .. })) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(LogError::Unavailable("the tenant changes too often".to_owned()))
}

/// The id of ours under which the user's email waits.
async fn invited(log: &EventLog, user: &NewUser) -> Result<Option<Uuid>, LogError> {
    match user.own_email() {
        Some(email) => log.find_invitation(user.tenant_id, email).await,
        None => Ok(None),
    }
}

/// What adding one user writes.
struct Addition {
    events: Vec<NewEvent>,
    names: Vec<NameClaim>,
}

impl Addition {
    fn unasked(user: &NewUser) -> Self {
        let events = vec![event(user, user.user_id.clone(), added(user, Vec::new()))];
        Self { events, names: Vec::new() }
    }

    /// The id of ours, under which the email waited, goes; its roles are the user's from now on.
    async fn invited(log: &EventLog, user: &NewUser, id: Uuid, email: &str) -> Result<Self, LogError> {
        let placeholder =
            UserId::new(id.to_string()).map_err(|error| LogError::Rejected(error.to_string()))?;
        let roles = log.find_member(user.tenant_id, &placeholder).await?.map(|member| member.roles);
        let events = vec![
            event(user, placeholder, Event::UserRemoved {}),
            event(user, user.user_id.clone(), added(user, roles.unwrap_or_default())),
        ];
        Ok(Self { events, names: vec![invitation(user.tenant_id, id, email, false)] })
    }
}

fn added(user: &NewUser, roles: Vec<String>) -> Event {
    Event::UserAdded { email: user.email.clone(), roles, reason: AddReason::FirstAcquire }
}

fn event(user: &NewUser, about: UserId, event: Event) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::user(about),
        event,
        request_id: user.request_id.clone(),
        key: None,
        give_back: false,
    }
}
