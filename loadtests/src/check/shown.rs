//! What the read API shows of each pool, as far as its routes exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::sleep;

use super::site::Site;

/// Attempts at a page, where the service has too much to do.
const MAX_ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Pages of one list, at most.
const MAX_PAGES: usize = 100;

/// One tenant as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// License to seats in use and seats in all.
    pub licenses: Option<BTreeMap<String, (i64, i64)>>,
    /// License to live sessions.
    pub sessions: Option<BTreeMap<String, BTreeSet<String>>>,
    /// The same, as of an instant, folded from the log by the service.
    pub state: Option<BTreeMap<String, BTreeSet<String>>>,
}

/// Asks the API.
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// None where no admin's token can be had.
    pub fn of(site: &Site) -> Result<Option<Self>> {
        let Some(token) = site.token_with_roles("check-admin", None, &["platform_admin"])? else {
            return Ok(None);
        };
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        let base = site.replicas[0].trim_end_matches('/').to_owned();
        Ok(Some(Self { client, base, token }))
    }

    /// What it shows of a tenant.
    pub async fn read(&self, tenant: &str) -> Result<Shown> {
        let list = async |what: &str| self.list(&format!("/api/v1/tenants/{tenant}/{what}")).await;
        let licenses = list("licenses?limit=1000").await?.map(|items| {
            let number = |item: &Value, field: &str| item[field].as_i64().unwrap_or(-1);
            items
                .iter()
                .map(|i| (text(i, "license_id"), (number(i, "seats_used"), number(i, "seats_total"))))
                .collect()
        });
        let sessions = list("sessions?state=active&limit=1000").await?.map(|items| {
            let mut by_license: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for item in &items {
                by_license.entry(text(item, "license_id")).or_default().insert(text(item, "session_id"));
            }
            by_license
        });
        Ok(Shown { licenses, sessions, state: self.state(tenant).await? })
    }

    async fn state(&self, tenant: &str) -> Result<Option<BTreeMap<String, BTreeSet<String>>>> {
        // A moment ago: what a clock that runs a little behind calls the future is refused.
        let at = (chrono::Utc::now() - chrono::Duration::milliseconds(50))
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let Some(state) = self.get(&format!("/api/v1/tenants/{tenant}/state?at={at}")).await? else {
            return Ok(None);
        };
        let empty = Vec::new();
        let items = |value: &Value, field: &str| value[field].as_array().unwrap_or(&empty).clone();
        let of = |license: &Value| items(license, "sessions").iter().map(|s| text(s, "session_id")).collect();
        Ok(Some(
            items(&state, "licenses")
                .iter()
                .map(|license| (text(license, "license_id"), of(license)))
                .collect(),
        ))
    }

    /// All pages of a list; none where there is no such route.
    async fn list(&self, path: &str) -> Result<Option<Vec<Value>>> {
        let mut all = Vec::new();
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let Some(page) = self.get(&format!("{path}{after}")).await? else { return Ok(None) };
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(Some(all)),
            }
        }
        bail!("{path} has more than {MAX_PAGES} pages")
    }

    async fn get(&self, path: &str) -> Result<Option<Value>> {
        for _ in 0..MAX_ATTEMPTS {
            let answer =
                self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await?;
            match answer.status().as_u16() {
                200 => return Ok(Some(answer.json().await?)),
                404 | 405 => return Ok(None),
                429 | 503 => sleep(PAUSE).await,
                status => bail!("GET {path} answered {status}: {}", answer.text().await.unwrap_or_default()),
            }
        }
        bail!("GET {path} was not answered in {MAX_ATTEMPTS} attempts")
    }
}

fn text(item: &Value, field: &str) -> String {
    item[field].as_str().unwrap_or_default().to_owned()
}
