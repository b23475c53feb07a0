//! Who is calling, and what it may do.

mod caller;
mod claims;
mod jwks;
mod verified;

use std::collections::BTreeSet;
use std::time::Duration;

use actors::Members;
use events::{EventLog, TenantId};
use moka::future::Cache;

use crate::config::IdentityConfig;
use crate::limits::RateLimits;
use crate::problem::Problem;

pub use caller::{Caller, Credentials, Role};
pub use jwks::KeySet;

/// How long it is remembered that a tenant of this id exists. What is not found is not remembered: it may be made at
/// any moment.
const REMEMBER_TENANT: Duration = Duration::from_secs(10);

/// Claims remembered.
const REMEMBERED_TENANTS: u64 = 50_000;

/// Verifies callers and finds their tenants. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    config: IdentityConfig,
    keys: KeySet,
    log: EventLog,
    members: Members,
    limits: RateLimits,
    tenants: Cache<String, TenantId>,
}

impl Authenticator {
    /// Believes tokens of the configured issuer.
    ///
    /// # Errors
    /// When no HTTP client can be made for the issuer's keys.
    pub fn new(
        config: IdentityConfig,
        log: EventLog,
        members: Members,
        limits: RateLimits,
    ) -> anyhow::Result<Self> {
        let keys = KeySet::new(&config)?;
        let tenants = Cache::builder().max_capacity(REMEMBERED_TENANTS).time_to_live(REMEMBER_TENANT).build();
        Ok(Self { config, keys, log, members, limits, tenants })
    }

    /// The caller of a token.
    ///
    /// # Errors
    /// 401 if there is none, or it does not verify; 503 if the issuer's keys cannot be had.
    pub async fn verify(&self, token: Option<&str>) -> Result<Caller, Problem> {
        let token =
            token.ok_or_else(|| Problem::InvalidToken { why: "A bearer token is needed.".to_owned() })?;
        let now = chrono::Utc::now().timestamp();
        if let Some(caller) = self.keys.remembered(token, now) {
            return Ok(caller);
        }
        let (key, tokens) = self.keys.key_for(token).await?;
        let verified = claims::verify(&self.config, &key, token)?;
        tokens.keep(token, verified.clone());
        Ok(verified.caller)
    }

    /// The caller's own tenant.
    ///
    /// # Errors
    /// 403 if its token names none, 404 if there is no such tenant.
    pub async fn tenant_of(&self, caller: &Caller) -> Result<TenantId, Problem> {
        let claim =
            caller.tenant_claim.as_deref().ok_or(Problem::Forbidden { why: "The token names no tenant." })?;
        // Only a tenant's own id always means the same: its other name may be given to another tenant at any moment.
        let is_id = claim.parse::<TenantId>().is_ok();
        if is_id && let Some(known) = self.tenants.get(claim).await {
            return Ok(known);
        }
        if claim.chars().any(char::is_control) {
            return Err(Problem::TenantNotFound);
        }
        let tenant_id = self.log.find_tenant(claim).await?.ok_or(Problem::TenantNotFound)?;
        if is_id {
            self.tenants.insert(claim.to_owned(), tenant_id).await;
        }
        Ok(tenant_id)
    }

    /// The tenant that a path names, as far as it exists for the caller: a platform admin sees all, others their own.
    /// The request is counted.
    ///
    /// # Errors
    /// 404 for another's tenant, whatever the caller's roles; 429.
    pub async fn of_tenant(&self, caller: &Caller, named: &str) -> Result<TenantId, Problem> {
        let named: Option<TenantId> = named.parse().ok();
        if caller.roles.contains(&Role::PlatformAdmin) {
            let tenant_id = named.filter(|id| *id != TenantId::PLATFORM).ok_or(Problem::TenantNotFound)?;
            self.limits.check(tenant_id, &caller.user_id)?;
            return match self.log.stream_head(tenant_id.0).await? {
                Some(head) if head.tenant_id == tenant_id => Ok(tenant_id),
                _ => Err(Problem::TenantNotFound),
            };
        }
        let own = self.tenant_of(caller).await?;
        self.limits.check(own, &caller.user_id)?;
        if named == Some(own) { Ok(own) } else { Err(Problem::TenantNotFound) }
    }

    /// Lets a caller of a tenant act on it: a platform admin always, others with one of the roles.
    ///
    /// # Errors
    /// 403.
    pub async fn authorize(
        &self,
        caller: &Caller,
        tenant_id: TenantId,
        allowed: &[Role],
    ) -> Result<(), Problem> {
        if caller.roles.contains(&Role::PlatformAdmin) {
            return Ok(());
        }
        let roles = self.roles(caller, tenant_id).await?;
        if allowed.iter().any(|role| roles.contains(role)) {
            Ok(())
        } else {
            Err(Problem::Forbidden { why: "None of the caller's roles may do this." })
        }
    }

    /// [`Authenticator::of_tenant`], then [`Authenticator::authorize`].
    ///
    /// # Errors
    /// As there: 404 before 403.
    pub async fn on_tenant(
        &self,
        caller: &Caller,
        named: &str,
        allowed: &[Role],
    ) -> Result<TenantId, Problem> {
        let tenant_id = self.of_tenant(caller, named).await?;
        self.authorize(caller, tenant_id, allowed).await?;
        Ok(tenant_id)
    }

    /// The roles of the token and those stored with the user. Whoever was invited by email signs in with its first
    /// request, whatever that asks for.
    async fn roles(&self, caller: &Caller, tenant_id: TenantId) -> Result<BTreeSet<Role>, Problem> {
        let mut roles = caller.roles.clone();
        let mut member = self.log.find_member(tenant_id, &caller.user_id).await?;
        if member.as_ref().is_none_or(|member| member.removed)
            && self.members.take_invitation(new_user(tenant_id, caller, None)).await?
        {
            member = self.log.find_member(tenant_id, &caller.user_id).await?;
        }
        if let Some(member) = member.filter(|member| !member.removed) {
            let stored = member.roles.iter().filter_map(|role| role.parse::<Role>().ok());
            // What the platform may is never stored with a tenant's user.
            roles.extend(stored.filter(|role| *role != Role::PlatformAdmin));
        }
        Ok(roles)
    }

    /// Lets a platform admin through, and nobody else.
    ///
    /// # Errors
    /// 403.
    pub fn require_platform_admin(caller: &Caller) -> Result<(), Problem> {
        if caller.roles.contains(&Role::PlatformAdmin) {
            Ok(())
        } else {
            Err(Problem::Forbidden { why: "Only a platform admin may do this." })
        }
    }
}

/// Adds a caller to its tenant the first time, and refuses a removed one.
///
/// # Errors
/// 403 `forbidden` for a removed user; 503 when the log cannot be asked.
pub async fn ensure_member(
    members: &Members,
    tenant_id: TenantId,
    caller: &Caller,
    request_id: &str,
) -> Result<(), Problem> {
    let user = new_user(tenant_id, caller, Some(request_id.to_owned()));
    if members.ensure(user).await? { Ok(()) } else { Err(REMOVED) }
}

fn new_user(tenant_id: TenantId, caller: &Caller, request_id: Option<String>) -> actors::NewUser {
    actors::NewUser {
        tenant_id,
        user_id: caller.user_id.clone(),
        email: caller.email.clone(),
        email_verified: caller.email_verified,
        request_id,
    }
}

/// What a removed user is told.
pub const REMOVED: Problem = Problem::Forbidden { why: "The user was removed from the tenant." };
