//! Users: added, changed, removed by an admin. Each is a decision of the tenant's stream.
//!
//! Who is added by email alone gets an id of ours, and holds the name of its email until its first sign-in with it
//! (`members.rs`), so that an email is invited once. Removing a user refuses its acquires from then on; its sessions are
//! ended by whoever removes it, after the removal, when no new one can begin.

use events::{
    AddReason, Event, LogError, NameClaim, Subject, TenantId, UserChange, UserId, UserRecord, email_key,
    invitation_scope,
};
use uuid::Uuid;

use super::{AdminRefusal, Decided, MAX_ROUNDS, PAUSE, Tenants, name_taken, write};
use crate::writer::Job;

/// A user that an admin adds.
#[derive(Debug, Clone)]
pub struct AddUser {
    /// `sub`, if the admin knows it.
    pub user_id: Option<UserId>,
    /// Needed without a `user_id`.
    pub email: Option<String>,
    /// Roles stored with the user.
    pub roles: Vec<String>,
}

impl Tenants {
    /// Adds a user, or adds a removed one again; answers its id.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub async fn add_user(
        &self,
        tenant_id: TenantId,
        new: AddUser,
        request_id: Option<String>,
    ) -> Decided<UserId> {
        let invited = Uuid::now_v7();
        let (user_id, names) = match (&new.user_id, &new.email) {
            (Some(user_id), _) => (user_id.clone(), Vec::new()),
            (None, email) => {
                if let Some(email) = email
                    && self.log.has_email(tenant_id, email).await?
                {
                    return Ok(Err(AdminRefusal::UserExists));
                }
                let user_id = UserId::new(invited.to_string())
                    .map_err(|error| LogError::Rejected(error.to_string()))?;
                let names = email.iter().map(|email| invitation(tenant_id, invited, email, true)).collect();
                (user_id, names)
            }
        };
        let added = Event::UserAdded { email: new.email, roles: new.roles, reason: AddReason::Admin };
        let decide = |known: Option<&UserRecord>, _| match known {
            Some(known) if !known.removed => Err(AdminRefusal::UserExists),
            _ => Ok(Some((added.clone(), names.clone()))),
        };
        Ok(self.decide_user(tenant_id, &user_id, decide, request_id).await?.map(|()| user_id))
    }

    /// Changes a user; a change that changes nothing writes nothing. `is_current` judges the version that the admin saw.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub async fn change_user(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
        change: UserChange,
        is_current: impl Fn(&UserRecord) -> bool,
        request_id: Option<String>,
    ) -> Decided<()> {
        let decide = |known: Option<&UserRecord>, waits_as: Option<Uuid>| {
            let known = known.filter(|known| !known.removed).ok_or(AdminRefusal::NoSuchUser)?;
            if !is_current(known) {
                return Err(AdminRefusal::Stale);
            }
            let change = UserChange {
                email: change.email.clone().filter(|email| *email != known.email),
                roles: change.roles.clone().filter(|roles| *roles != known.roles),
            };
            if change == UserChange::default() {
                return Ok(None);
            }
            let mut names = Vec::new();
            if let (Some(email), Some(id)) = (&change.email, waits_as) {
                names.extend(known.email.iter().map(|old| invitation(tenant_id, id, old, false)));
                names.extend(email.iter().map(|new| invitation(tenant_id, id, new, true)));
            }
            Ok(Some((Event::UserUpdated(change), names)))
        };
        self.decide_user(tenant_id, user_id, decide, request_id).await
    }

    /// Removes a user; one that was removed before stays so. `is_current` judges the version that the admin saw.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub async fn remove_user(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
        is_current: impl Fn(&UserRecord) -> bool,
        request_id: Option<String>,
    ) -> Decided<()> {
        let decide = |known: Option<&UserRecord>, waits_as: Option<Uuid>| {
            let known = known.ok_or(AdminRefusal::NoSuchUser)?;
            if known.removed {
                return Ok(None);
            }
            if !is_current(known) {
                return Err(AdminRefusal::Stale);
            }
            let mut names = Vec::new();
            if let (Some(email), Some(id)) = (&known.email, waits_as) {
                names.push(invitation(tenant_id, id, email, false));
            }
            Ok(Some((Event::UserRemoved {}, names)))
        };
        self.decide_user(tenant_id, user_id, decide, request_id).await
    }

    /// Decides on a user and writes the event; on a conflict looks and decides again.
    async fn decide_user(
        &self,
        tenant_id: TenantId,
        user_id: &UserId,
        decide: impl Fn(
            Option<&UserRecord>,
            Option<Uuid>,
        ) -> Result<Option<(Event, Vec<NameClaim>)>, AdminRefusal>,
        request_id: Option<String>,
    ) -> Decided<()> {
        for _ in 0..MAX_ROUNDS {
            // The head first: whatever changes after it was read is refused by its version.
            let Some(head) = self.log.stream_head(tenant_id.0).await? else {
                return Ok(Err(AdminRefusal::NoSuchTenant));
            };
            let known = self.log.find_user(tenant_id, user_id).await?;
            let waits_as = self.waits_as(tenant_id, known.as_ref()).await?;
            let (event, names) = match decide(known.as_ref(), waits_as) {
                Ok(Some(decided)) => decided,
                Ok(None) => return Ok(Ok(())),
                Err(refusal) => return Ok(Err(refusal)),
            };
            let mut stream = write(tenant_id.0, tenant_id, None, head.version, event, request_id.clone());
            for event in &mut stream.events {
                event.subject = Subject::user(user_id.clone());
            }
            let job = Job { whole: true, streams: vec![stream], names, heartbeats: Vec::new() };
            let appended = self.writer.append(job).await?;
            if let Some(refusal) = name_taken(&appended.refused) {
                return Ok(Err(refusal));
            }
            if appended.refused.iter().all(|one| matches!(one, events::Refused::Already { .. })) {
                return Ok(Ok(()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(LogError::Unavailable("the tenant changes too often".to_owned()))
    }

    /// The id of ours under which a user waits for its first sign-in; `None` for everybody else.
    async fn waits_as(
        &self,
        tenant_id: TenantId,
        known: Option<&UserRecord>,
    ) -> Result<Option<Uuid>, LogError> {
        let Some(UserRecord { user_id, email: Some(email), removed: false, .. }) = known else {
            return Ok(None);
        };
        let Ok(id) = Uuid::parse_str(user_id.as_str()) else { return Ok(None) };
        Ok(self.log.find_invitation(tenant_id, email).await?.filter(|waiting| *waiting == id))
    }
}

/// A claim of the email that waits under an id of ours; letting go what is not held changes nothing.
pub(super) fn invitation(tenant_id: TenantId, id: Uuid, email: &str, hold: bool) -> NameClaim {
    NameClaim { stream_id: id, scope: invitation_scope(tenant_id), name: email_key(email), hold }
}
