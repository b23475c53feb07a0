//! The play: all clients at once for a given time, while the caller breaks things.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admin::Actor;
use super::client::Client;
use super::history::{FaultKind, History, Moment};
use super::notice::Notice;
use super::plan::{Plan, rng};
use super::recorder::Recorder;
use super::site::{Site, Tenant, Tokens};
use super::wire::Wire;
use super::workload::Workload;

/// A play that goes on in the background.
pub struct Play {
    recorder: Arc<Recorder>,
    actors: JoinSet<()>,
    notice: Notice,
    tenants: Vec<Tenant>,
    workload: Workload,
}

/// A fault that goes on.
#[must_use = "a fault that is never healed excuses everything until the end"]
pub struct FaultHandle {
    recorder: Arc<Recorder>,
    index: usize,
}

/// Plays to the end.
///
/// # Errors
/// When it cannot begin.
pub async fn play(site: &Site, workload: &Workload) -> Result<History> {
    Ok(Play::start(site, workload).await?.finish().await)
}

impl Play {
    /// Begins; the clients play in tasks of this runtime.
    ///
    /// # Errors
    /// When a token or the history's file cannot be made.
    pub async fn start(site: &Site, workload: &Workload) -> Result<Self> {
        let recorder = Arc::new(Recorder::new(workload.seed, workload.history.as_deref())?);
        let wire = Wire::new(&site.replicas, workload.request_timeout, recorder.clone())?;
        let until = Instant::now() + workload.duration;
        let mut actors = JoinSet::new();
        for n in 0..workload.clients {
            let (tenant, user) = whom(site, &recorder, n);
            let tenant = site.tenants[tenant].clone();
            let token = site.token(&user, &tenant.id)?;
            let client = Client {
                wire: wire.clone(),
                name: format!("client-{n}"),
                tenant,
                user,
                token,
                ttl: workload.ttl,
                until,
            };
            actors.spawn(client.play(Plan::of(workload, n)));
        }
        for actor in others(site, workload, &wire, until)? {
            actors.spawn(actor);
        }
        let notice = Notice::start(&site.metrics, site.stores.database_url.clone());
        Ok(Self { recorder, actors, notice, tenants: site.all_tenants(), workload: workload.clone() })
    }

    /// Now, by the history's clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.recorder.now()
    }

    /// Something is about to be broken.
    pub fn begin_fault(&self, name: &str, kind: FaultKind) -> FaultHandle {
        FaultHandle { recorder: self.recorder.clone(), index: self.recorder.fault_begins(name, kind) }
    }

    /// Waits until the time is over and every request has come to something.
    pub async fn finish(mut self) -> History {
        while self.actors.join_next().await.is_some() {}
        let ended = self.recorder.now();
        History {
            seed: self.workload.seed,
            began: self.recorder.began,
            ended,
            tenants: self.tenants,
            calls: self.recorder.calls(),
            faults: self.recorder.faults(),
            noticed: self.notice.finish().await,
            expect: self.workload.expect,
            ttl: self.workload.ttl,
            patience: self.workload.patience,
        }
    }
}

/// Admins, the trespasser and the probes, as far as their tokens can be minted.
fn others(
    site: &Site,
    workload: &Workload,
    wire: &Wire,
    until: Instant,
) -> Result<Vec<Pin<Box<dyn Future<Output = ()> + Send>>>> {
    let mut all: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
    let mix = workload.mix;
    let actor = |name: &'static str, part: u64, user: String, token: String, tenants: Vec<Tenant>| Actor {
        wire: wire.clone(),
        name,
        user,
        token,
        tenants,
        rng: rng(workload.seed, u64::MAX - part),
        ttl: workload.ttl,
        until,
    };
    if let Some(token) = site.token_with_roles("check-admin", None, &["platform_admin"])? {
        let admin = |part| actor("admin", part, "check-admin".into(), token.clone(), site.tenants.clone());
        if let Some(every) = mix.limit_change_every {
            all.push(Box::pin(admin(1).change_limits(every)));
        }
        if let Some(every) = mix.suspension_every {
            all.push(Box::pin(admin(2).suspend(every)));
        }
        if let Some(every) = mix.revocation_every {
            all.push(Box::pin(admin(3).revoke(every)));
        }
        if let Some(every) = mix.removal_every {
            all.push(Box::pin(admin(4).remove_users(every)));
        }
    }
    if let (Some(every), Some(own)) = (mix.trespass_every, site.tenants.first()) {
        let user = format!("check-{}-trespasser", wire.recorder.run());
        let token = site.token_with_roles(&user, Some(&own.id), &["tenant_admin", "auditor"])?;
        if let Some(token) = token {
            all.push(Box::pin(actor("trespasser", 5, user, token, site.tenants.clone()).trespass(every)));
        }
    }
    if let Some(probed) = &site.probed {
        for replica in 0..wire.replicas() {
            let user = format!("check-{}-probe", wire.recorder.run());
            let token = site.token(&user, &probed.id)?;
            let probe = actor("probe", 6 + replica as u64, user, token, vec![probed.clone()]);
            all.push(Box::pin(probe.probe(replica)));
        }
    }
    Ok(all)
}

impl FaultHandle {
    /// It is repaired. `evidence` says what shows that it really happened; empty: nothing does, and I12 says so.
    pub fn healed(self, evidence: impl AsRef<str>) {
        self.recorder.fault_heals(self.index, evidence.as_ref());
    }
}

/// The n-th client's tenant, by its place in the list, and its user.
fn whom(site: &Site, recorder: &Recorder, n: usize) -> (usize, String) {
    match &*site.tokens {
        Tokens::Minted(_) => (n % site.tenants.len(), format!("check-{}-u{n}", recorder.run())),
        Tokens::Given(grantees) => {
            let grantee = &grantees[n % grantees.len()];
            let place = site.tenants.iter().position(|tenant| tenant.id == grantee.tenant);
            (place.unwrap_or_default(), grantee.user.clone())
        }
    }
}
