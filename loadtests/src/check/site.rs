//! The system under test: where its replicas are, whose tenants are played with, which stores may be read.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::token::Issuing;

/// Seats of the probes' own pool: a probe is never refused.
const PROBE_SEATS: u32 = 10_000;

/// One pool: a license of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The license; also the id of the pool's stream. Unknown where only clients' tokens are at hand.
    pub license_id: Option<String>,
    /// What it is for.
    pub product: String,
    /// Its limit when the play begins, if it is known.
    pub seats: Option<u32>,
}

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Its pools.
    pub pools: Vec<Pool>,
}

/// A caller whose token was made elsewhere.
#[derive(Clone, Debug)]
pub struct Grantee {
    /// `sub`.
    pub user: String,
    /// The tenant claim.
    pub tenant: String,
    /// The token.
    pub token: String,
}

/// Where tokens come from.
pub enum Tokens {
    /// Minted here, for anybody.
    Minted(Issuing),
    /// Made elsewhere: nobody else can be played, and no admin.
    Given(Vec<Grantee>),
}

impl Tokens {
    /// Tokens made elsewhere, one a line; the claim names the tenant, a dotted path is allowed.
    ///
    /// # Errors
    /// When one of them is no JWT with a subject and a tenant.
    pub fn read(text: &str, tenant_claim: &str) -> Result<Self> {
        let tokens = text.split_whitespace().map(|token| grantee(token.to_owned(), tenant_claim));
        Ok(Self::Given(tokens.collect::<Result<_>>()?))
    }
}

/// The stores, if they may be read.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// `postgres://…`, a login that may read every table; never by way of a proxy that a fault cuts.
    pub database_url: Option<String>,
    /// As the service's `REDIS_URL`.
    pub redis_url: Option<String>,
}

/// The system under test.
#[derive(Clone)]
pub struct Site {
    /// Base URLs as the clients use them, perhaps of proxies.
    pub replicas: Vec<String>,
    /// Base URLs of the metrics listeners; empty: what the replicas count is not known.
    pub metrics: Vec<String>,
    /// Tenants that are played with.
    pub tenants: Vec<Tenant>,
    /// Where probes get their seats, which nobody else wants.
    pub probed: Option<Tenant>,
    /// Where tokens come from.
    pub tokens: Arc<Tokens>,
    /// What else may be read.
    pub stores: Stores,
}

/// What [`Site::furnish`] needs.
pub struct SiteOptions {
    /// See [`Site`].
    pub replicas: Vec<String>,
    /// See [`Site`].
    pub metrics: Vec<String>,
    /// See [`Site`].
    pub tokens: Arc<Tokens>,
    /// See [`Site`].
    pub stores: Stores,
    /// Tenants to make.
    pub tenants: usize,
    /// Seats of each pool.
    pub seats: u32,
}

impl Site {
    /// Makes tenants of its own on a running system, as its platform admin; the first has two pools.
    ///
    /// # Errors
    /// When the system does not make them.
    pub async fn furnish(options: SiteOptions) -> Result<Self> {
        ensure!(!options.replicas.is_empty(), "no replica is named");
        let SiteOptions { replicas, metrics, tokens, stores, tenants, seats } = options;
        let mut site = Self { replicas, metrics, tenants: Vec::new(), probed: None, tokens, stores };
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        for n in 0..tenants.max(1) {
            site.tenants.push(site.make_tenant(&format!("check-{run:x}-{n}"), seats).await?);
        }
        let second = site.issue(&site.tenants[0].id, "second", seats).await?;
        site.tenants[0].pools.push(second);
        site.probed = Some(site.make_tenant(&format!("check-{run:x}-probe"), PROBE_SEATS).await?);
        Ok(site)
    }

    /// Plays with the tenants of given tokens.
    ///
    /// # Errors
    /// When there is no replica or no token.
    pub fn given(
        replicas: Vec<String>,
        metrics: Vec<String>,
        tokens: Arc<Tokens>,
        stores: Stores,
    ) -> Result<Self> {
        ensure!(!replicas.is_empty(), "no replica is named");
        let Tokens::Given(grantees) = &*tokens else { bail!("the tokens are not given but minted") };
        let mut names: Vec<_> = grantees.iter().map(|grantee| grantee.tenant.clone()).collect();
        names.sort();
        names.dedup();
        ensure!(!names.is_empty(), "no token is given");
        let pool = Pool { license_id: None, product: "coditect".into(), seats: None };
        let tenants = names.into_iter().map(|id| Tenant { id, pools: vec![pool.clone()] }).collect();
        Ok(Self { replicas, metrics, tenants, probed: None, tokens, stores })
    }

    /// All tenants, the one of the probes too.
    pub(crate) fn all_tenants(&self) -> Vec<Tenant> {
        self.tenants.iter().chain(&self.probed).cloned().collect()
    }

    /// A user's token for its tenant.
    pub(crate) fn token(&self, user: &str, tenant: &str) -> Result<String> {
        match &*self.tokens {
            Tokens::Minted(issuing) => issuing.user(user, tenant),
            Tokens::Given(grantees) => grantees
                .iter()
                .find(|grantee| grantee.user == user && grantee.tenant == tenant)
                .map(|grantee| grantee.token.clone())
                .with_context(|| format!("no token of {user} was given")),
        }
    }

    /// A token with these roles, if tokens can be minted.
    pub(crate) fn token_with_roles(
        &self,
        user: &str,
        tenant: Option<&str>,
        roles: &[&str],
    ) -> Result<Option<String>> {
        match &*self.tokens {
            Tokens::Minted(issuing) => issuing.mint(user, tenant, roles).map(Some),
            Tokens::Given(_) => Ok(None),
        }
    }

    async fn make_tenant(&self, name: &str, seats: u32) -> Result<Tenant> {
        let body = json!({"name": name, "subdomain": name, "plan": "enterprise", "max_seats": seats});
        let made = self.create("/api/v1/tenants", &body).await?;
        let text = |field: &str| {
            made[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {made}"))
        };
        let pool =
            Pool { license_id: Some(text("license_id")?), product: "coditect".into(), seats: Some(seats) };
        Ok(Tenant { id: text("id")?, pools: vec![pool] })
    }

    async fn issue(&self, tenant: &str, product: &str, seats: u32) -> Result<Pool> {
        let body = json!({"product": product, "plan": "enterprise", "seats_total": seats});
        let made = self.create(&format!("/api/v1/tenants/{tenant}/licenses"), &body).await?;
        let license_id = made["license_id"].as_str().with_context(|| format!("no license_id in {made}"))?;
        Ok(Pool { license_id: Some(license_id.to_owned()), product: product.into(), seats: Some(seats) })
    }

    async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        let Some(token) = self.token_with_roles("check-admin", None, &["platform_admin"])? else {
            bail!("tenants cannot be made with given tokens")
        };
        let url = format!("{}{path}", self.replicas[0]);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build()?;
        let answer = client
            .post(&url)
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .with_context(|| format!("POST {url}"))?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.as_u16() == 201, "POST {url} answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("replicas", &self.replicas)
            .field("tenants", &self.tenants)
            .finish_non_exhaustive()
    }
}

/// Whose token this is. It is the service that verifies it.
fn grantee(token: String, claim: &str) -> Result<Grantee> {
    let payload = token.split('.').nth(1).context("a given token is no JWT")?;
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).context("a given token is no JWT")?)?;
    let user = claims["sub"].as_str().context("a given token has no `sub`")?.to_owned();
    let pointer = format!("/{}", claim.replace('.', "/"));
    let tenant = claims.pointer(&pointer).and_then(Value::as_str);
    let tenant = tenant.with_context(|| format!("a given token has no claim `{claim}`"))?.to_owned();
    Ok(Grantee { user, tenant, token })
}
