//! The admins and the others: whoever changes limits, suspends and revokes; whoever reaches for another
//! tenant's things; and the probe that shows when a fault is over.

use std::time::Duration;

use tokio::time::Instant;

use super::history::{Act, Call, Origin, Outcome};
use super::recorder::Asked;
use super::site::{Pool, Tenant};
use super::wire::{Answered, Wire};

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(300);
/// How long a suspension lasts, as a part of the TTL.
const SUSPENDED_TTLS: f64 = 0.2;
/// For how long a user stays removed, as a part of the TTL.
const REMOVED_TTLS: f64 = 0.3;
/// Attempts at a change whose outcome stays unknown.
const MAX_ATTEMPTS: usize = 200;

/// One actor beside the clients.
pub(crate) struct Actor {
    pub wire: Wire,
    pub name: &'static str,
    pub user: String,
    pub token: String,
    pub tenants: Vec<Tenant>,
    pub rng: fastrand::Rng,
    pub ttl: Duration,
    pub until: Instant,
}

impl Actor {
    /// Changes limits up and down around what they were. Each change names the version that it changes (`If-Match`), so
    /// that of several attempts at one change at most one takes effect, and none after a later change.
    pub async fn change_limits(mut self, every: Duration) {
        while self.pause(every).await {
            let (tenant, pool) = self.any_pool();
            let (Some(license), Some(seats)) = (pool.license_id, pool.seats) else { return };
            let seats = self.rng.u32(seats / 2..=seats + seats / 2);
            self.change(&tenant, &license, |license| Act::SetSeats { license, seats }).await;
        }
    }

    /// Suspends a license or a tenant for a moment. It is let work again even when the time is over.
    pub async fn suspend(mut self, every: Duration) {
        while self.pause(every).await {
            let (tenant, pool) = self.any_pool();
            let Some(license) = pool.license_id else { return };
            let whole_tenant = self.rng.bool();
            for active in [false, true] {
                let done = if whole_tenant {
                    self.settle(&tenant, &Act::SetTenantActive { active }).await
                } else {
                    let set = |license| Act::SetLicenseActive { license, active };
                    self.change(&tenant, &license, set).await
                };
                if !done {
                    break;
                }
                if !active {
                    tokio::time::sleep(self.ttl.mul_f64(SUSPENDED_TTLS)).await;
                }
            }
        }
    }

    /// Revokes sessions that clients were granted lately.
    pub async fn revoke(mut self, every: Duration) {
        while self.pause(every).await {
            let Some((tenant, session)) = self.a_session() else { continue };
            let revoke = Act::Revoke { session };
            if !self.settle(&tenant, &revoke).await {
                // This service has no such route.
                return;
            }
            if self.rng.u8(..4) == 0 {
                self.send(&tenant, &revoke, Origin::Duplicate, None).await;
            }
        }
    }

    /// Removes a user who was granted a seat lately, and adds it again.
    pub async fn remove_users(mut self, every: Duration) {
        while self.pause(every).await {
            let Some(call) = self.a_grant() else { continue };
            let (tenant, user) = (call.tenant, call.user);
            if !self.settle(&tenant, &Act::RemoveUser { removed: user.clone() }).await {
                // This service has no such route.
                return;
            }
            tokio::time::sleep(self.ttl.mul_f64(REMOVED_TTLS)).await;
            self.settle(&tenant, &Act::AddUser { added: user }).await;
        }
    }

    /// Reaches for another tenant's sessions and pages.
    pub async fn trespass(mut self, every: Duration) {
        let (Some(own), Some(victim)) = (self.tenants.first().cloned(), self.tenants.get(1).cloned()) else {
            return;
        };
        while self.pause(every).await {
            let foreign = self.session_of(&victim.id);
            let pages = ["", "/licenses", "/events", "/sessions", "/users", "/usage", "/denials", "/state"];
            let (method, path, session) = match (self.rng.u8(..4), foreign) {
                (0, Some(session)) => ("POST", "/api/v1/licenses/heartbeat".to_owned(), Some(session)),
                (1, Some(session)) => ("POST", "/api/v1/licenses/release".to_owned(), Some(session)),
                _ => {
                    let page = pages[self.rng.usize(..pages.len())];
                    ("GET", format!("/api/v1/tenants/{}{page}", victim.id), None)
                }
            };
            let act = Act::Trespass { method: method.into(), path, session, victim: victim.id.clone() };
            self.send(&own.id, &act, Origin::Fresh, None).await;
        }
    }

    /// Takes a seat that nobody else wants, and gives it back.
    pub async fn probe(mut self, replica: usize) {
        let Some(tenant) = self.tenants.first().cloned() else { return };
        let mut number = 0_u64;
        while self.pause(PROBE_EVERY).await {
            number += 1;
            let machine = format!("{}-r{replica}-{number}", self.user);
            let acquire = Act::Acquire { product: tenant.pools[0].product.clone(), machine, key: None };
            let answered = self.send_to(&tenant.id, &acquire, Origin::Fresh, None, replica).await;
            if let Outcome::Ok { body, .. } = answered.outcome
                && let Some(session) = body["session_id"].as_str()
            {
                let release = Act::Release { session: session.to_owned() };
                self.send_to(&tenant.id, &release, Origin::Fresh, None, replica).await;
            }
        }
    }

    /// A change of a license, with the version that it changes. Answers whether it was carried out.
    async fn change(&mut self, tenant: &str, license: &str, act: impl Fn(String) -> Act) -> bool {
        let path = format!("/api/v1/tenants/{tenant}/licenses/{license}");
        let mut etag = None;
        let mut origin = Origin::Fresh;
        for _ in 0..MAX_ATTEMPTS {
            if etag.is_none() {
                let replica = self.rng.usize(..64);
                etag = self.wire.get(&self.token, replica, &path).await.ok().and_then(|(_, _, etag)| etag);
            }
            let Some(version) = &etag else {
                tokio::time::sleep(self.ttl / 20).await;
                continue;
            };
            let answered = self.send(tenant, &act(license.to_owned()), origin, Some(version)).await;
            match answered.outcome {
                Outcome::Ok { .. } => return true,
                Outcome::Unknown { .. } => origin = Origin::Retry(answered.id),
                // Another attempt at this change was carried out, or another admin was faster: look again.
                Outcome::Refused { status: 412, .. } => etag = None,
                Outcome::Refused { .. } => return false,
            }
            tokio::time::sleep(self.ttl / 20).await;
        }
        false
    }

    /// Sends until the outcome is known. Answers whether it was carried out.
    async fn settle(&mut self, tenant: &str, act: &Act) -> bool {
        let mut origin = Origin::Fresh;
        for _ in 0..MAX_ATTEMPTS {
            let answered = self.send(tenant, act, origin, None).await;
            match answered.outcome {
                Outcome::Ok { .. } => return true,
                Outcome::Refused { .. } => return false,
                Outcome::Unknown { .. } => origin = Origin::Retry(answered.id),
            }
            tokio::time::sleep(self.ttl / 20).await;
        }
        false
    }

    async fn send(&mut self, tenant: &str, act: &Act, origin: Origin, if_match: Option<&str>) -> Answered {
        let replica = self.rng.usize(..64);
        self.send_to(tenant, act, origin, if_match, replica).await
    }

    async fn send_to(
        &self,
        tenant: &str,
        act: &Act,
        origin: Origin,
        if_match: Option<&str>,
        replica: usize,
    ) -> Answered {
        let asked = Asked {
            actor: self.name.to_owned(),
            tenant: tenant.to_owned(),
            user: self.user.clone(),
            act: act.clone(),
            origin,
            replica,
        };
        self.wire.call(&self.token, asked, if_match).await
    }

    fn any_pool(&mut self) -> (String, Pool) {
        let tenant = &self.tenants[self.rng.usize(..self.tenants.len())];
        (tenant.id.clone(), tenant.pools[self.rng.usize(..tenant.pools.len())].clone())
    }

    /// A session that was granted lately, and its tenant.
    fn a_session(&mut self) -> Option<(String, String)> {
        let call = self.a_grant()?;
        Some((call.tenant.clone(), granted(&call)?))
    }

    /// An acquire that was granted lately.
    fn a_grant(&mut self) -> Option<Call> {
        let tenants: Vec<_> = self.tenants.iter().map(|tenant| tenant.id.clone()).collect();
        let recent =
            self.wire.recorder.latest(20, |call| tenants.contains(&call.tenant) && granted(call).is_some());
        (!recent.is_empty()).then(|| recent[self.rng.usize(..recent.len())].clone())
    }

    fn session_of(&mut self, tenant: &str) -> Option<String> {
        let recent = self.wire.recorder.latest(1, |call| call.tenant == tenant && granted(call).is_some());
        recent.first().and_then(granted)
    }

    /// Answers whether there is time left.
    async fn pause(&mut self, length: Duration) -> bool {
        let length = length.mul_f64(0.5 + self.rng.f64());
        tokio::time::sleep_until((Instant::now() + length).min(self.until)).await;
        Instant::now() < self.until
    }
}

/// The session that a call was granted.
fn granted(call: &Call) -> Option<String> {
    let is_acquire = matches!(call.act, Act::Acquire { .. });
    call.ok().filter(|_| is_acquire)?["session_id"].as_str().map(str::to_owned)
}
