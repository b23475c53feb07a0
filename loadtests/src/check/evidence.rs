//! What the stores and the API say once the system is at rest.
//!
//! At rest means: no client asks for anything but to keep what it holds, and what had to follow has followed. So
//! the sessions that lived on when the play ended are kept alive, each pool is asked for a seat once in a while
//! (a mirror is repaired when somebody needs it), and everything is compared until it agrees or time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::history::{Act, History};
use super::log::{self, Reading, Seat, Stream};
use super::mirror::{Mirror, Mirrors};
use super::shown::{Api, Shown};
use super::site::Site;

/// Beyond the TTL, which a reservation in the mirror may last.
const SETTLE_MARGIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);

/// What was read, as far as it could be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub reading: Option<Reading>,
    pub mirrors: Option<BTreeMap<String, Mirror>>,
    /// By tenant.
    pub shown: Option<BTreeMap<String, Shown>>,
    /// The seats as they were when mirrors and API were read.
    pub seats: Vec<Seat>,
    /// The pools then.
    pub streams: Vec<Stream>,
}

/// Reads everything there is to read.
pub(crate) async fn gather(history: &History, site: &Site) -> Result<Evidence> {
    let mut evidence = Evidence::default();
    let Some(url) = &site.stores.database_url else { return Ok(evidence) };
    let tenants: Vec<_> = history.tenants.iter().map(|tenant| tenant.id.clone()).collect();
    let mirrors = match &site.stores.redis_url {
        Some(url) => Some(Mirrors::connect(url).await?),
        None => None,
    };
    let api = Api::of(site)?;
    let keeper = Keeper::new(history, site)?;
    let deadline = Instant::now() + history.ttl + SETTLE_MARGIN;
    loop {
        keeper.keep().await;
        let client = log::connect(url).await?;
        (evidence.seats, evidence.streams) = log::at_rest(&client, &tenants).await?;
        let pools =
            evidence.streams.iter().filter(|stream| stream.product.is_some()).map(|s| s.stream.as_str());
        if let Some(mirrors) = &mirrors {
            evidence.mirrors = Some(mirrors.read(pools).await?);
        }
        if let Some(api) = &api {
            let mut shown = BTreeMap::new();
            for tenant in &tenants {
                shown.insert(tenant.clone(), api.read(tenant).await?);
            }
            evidence.shown = Some(shown);
        }
        if super::judge::rest::differences(&evidence).is_empty() || Instant::now() > deadline {
            break;
        }
        keeper.ask_for_seats().await;
        sleep(PAUSE).await;
    }
    evidence.reading = Some(log::read(url, &tenants).await?);
    Ok(evidence)
}

/// Keeps alive what lived when the play ended.
struct Keeper {
    client: reqwest::Client,
    base: String,
    /// Session, and its holder's token.
    held: Vec<(String, String)>,
    /// A caller of each pool: token, product.
    askers: Vec<(String, String)>,
}

impl Keeper {
    fn new(history: &History, site: &Site) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        let mut held: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for call in &history.calls {
            match (&call.act, call.ok()) {
                (Act::Acquire { .. }, Some(body)) => {
                    if let Some(session) = body["session_id"].as_str() {
                        held.insert(session, (&call.user, &call.tenant));
                    }
                }
                (Act::Release { session } | Act::Revoke { session }, _) => {
                    held.remove(session.as_str());
                }
                _ => {}
            }
        }
        let held = held
            .into_iter()
            .map(|(session, (user, tenant))| Ok((session.to_owned(), site.token(user, tenant)?)))
            .collect::<Result<_>>()?;
        let mut asked = BTreeSet::new();
        let mut askers = Vec::new();
        for call in &history.calls {
            if let Act::Acquire { product, .. } = &call.act
                && asked.insert((&call.tenant, product))
            {
                askers.push((site.token(&call.user, &call.tenant)?, product.clone()));
            }
        }
        Ok(Self { client, base: site.replicas[0].trim_end_matches('/').to_owned(), held, askers })
    }

    /// A heartbeat for each; that of a session that has ended is refused, which is no matter.
    async fn keep(&self) {
        let beats = self
            .held
            .iter()
            .map(|(session, token)| self.post("heartbeat", token, json!({"session_id": session})));
        futures_util::future::join_all(beats).await;
    }

    /// An acquire in each pool, given back at once.
    async fn ask_for_seats(&self) {
        for (token, product) in &self.askers {
            let body = json!({"hardware_id": "check-at-rest", "product": product});
            let Some(answer) = self.post("acquire", token, body).await else { continue };
            if let Some(session) = answer["session_id"].as_str() {
                self.post("release", token, json!({"session_id": session})).await;
            }
        }
    }

    async fn post(&self, what: &str, token: &str, body: serde_json::Value) -> Option<serde_json::Value> {
        let url = format!("{}/api/v1/licenses/{what}", self.base);
        self.client.post(url).bearer_auth(token).json(&body).send().await.ok()?.json().await.ok()
    }
}
