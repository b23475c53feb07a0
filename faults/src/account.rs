//! A tenant of the test's own, beside those that the checker plays with, and single requests to it: for what a history
//! does not keep, such as `Retry-After`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loadtests::Issuing;
use loadtests::check::Tokens;
use serde_json::{Value, json};

use crate::stand::Stand;

/// What came back, and when.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status; 0: none came.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// The body, null if it was not JSON.
    pub body: Value,
    /// Time from sending to here.
    pub took: Duration,
}

impl Answer {
    /// The session that it names.
    pub fn session_id(&self) -> Option<&str> {
        self.body["session_id"].as_str()
    }
}

/// A tenant.
#[derive(Clone)]
pub struct Account {
    http: reqwest::Client,
    /// Base URLs of the replicas.
    pub urls: Vec<String>,
    /// Its id.
    pub id: String,
    /// Its first license.
    pub license_id: String,
}

impl Account {
    /// Makes a tenant with so many seats.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn open(stand: &Stand, name: &str, seats: u32) -> Result<Self> {
        let urls: Vec<_> = stand.replicas.iter().map(|replica| replica.url.clone()).collect();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        let body = json!({"name": name, "subdomain": name, "plan": "team", "max_seats": seats});
        let admin = issuing(stand)?.platform_admin()?;
        let url = format!("{}/api/v1/tenants", urls[0]);
        let answer = http.post(url).bearer_auth(admin).json(&body).send().await?;
        let status = answer.status();
        let made: Value = answer.json().await?;
        ensure!(status == 201, "{status}: {made}");
        let text = |field: &str| made[field].as_str().map(str::to_owned).with_context(|| made.to_string());
        Ok(Self { http, urls, id: text("id")?, license_id: text("license_id")? })
    }

    /// A tenant that is there already.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn existing(stand: &Stand, id: &str) -> Result<Self> {
        let urls = stand.replicas.iter().map(|replica| replica.url.clone()).collect();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        Ok(Self { http, urls, id: id.to_owned(), license_id: String::new() })
    }

    /// A token of one of its users.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, stand: &Stand, user: &str, roles: &[&str]) -> Result<String> {
        issuing(stand)?.mint(user, Some(&self.id), roles)
    }

    /// POST to `/api/v1/licenses/…`.
    pub async fn post(&self, replica: usize, act: &str, token: &str, body: &Value) -> Answer {
        let url = format!("{}/api/v1/licenses/{act}", self.urls[replica % self.urls.len()]);
        self.send(self.http.post(url).bearer_auth(token).json(body)).await
    }

    /// GET of a path below the tenant.
    pub async fn get(&self, replica: usize, path: &str, token: &str) -> Answer {
        let url = format!("{}/api/v1/tenants/{}/{path}", self.urls[replica % self.urls.len()], self.id);
        self.send(self.http.get(url).bearer_auth(token)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let begun = Instant::now();
        let mut answer = Answer { status: 0, retry_after: None, body: Value::Null, took: Duration::ZERO };
        if let Ok(response) = request.send().await {
            answer.status = response.status().as_u16();
            let retry = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            answer.retry_after = retry.and_then(|text| text.parse().ok());
            answer.body = response.json().await.unwrap_or_default();
        }
        answer.took = begun.elapsed();
        answer
    }
}

fn issuing(stand: &Stand) -> Result<&Issuing> {
    match &*stand.tokens {
        Tokens::Minted(issuing) => Ok(issuing),
        Tokens::Given(_) => bail!("a stand mints its tokens"),
    }
}
