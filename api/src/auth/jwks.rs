//! The issuer's keys: fetched when needed, honouring `max-age`; one refresh at a time; at most one every 30 s for key
//! ids that nobody knows; a set that has become stale serves on while the issuer is down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, decode_header};
use serde_json::Value;
use tokio::sync::Mutex;

use super::caller::Caller;
use super::claims::VerifyingKey;
use super::verified::VerifiedTokens;
use crate::config::IdentityConfig;
use crate::problem::Problem;

/// Longest time that the issuer is waited for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest answer of the issuer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long a set is fresh if the issuer does not say; and the bounds of what it may say.
const FRESH: Duration = Duration::from_secs(300);
const FRESH_BOUNDS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(24 * 3600));

/// Shortest pause between two refreshes: for key ids that nobody knows, and after a failure.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Longest key id that is looked up.
const MAX_KID: usize = 256;

/// The issuer's keys. Cheap to clone.
#[derive(Clone)]
pub struct KeySet {
    shared: Arc<Shared>,
}

struct Shared {
    client: reqwest::Client,
    issuer: String,
    jwks_url: Option<String>,
    keys: ArcSwapOption<Fetched>,
    last_try: Mutex<Option<(Instant, bool)>>,
}

struct Fetched {
    by_kid: HashMap<String, VerifyingKey>,
    /// Keys without an id.
    anonymous: Vec<VerifyingKey>,
    fresh_until: Instant,
    /// What these keys have verified.
    verified: VerifiedTokens,
}

impl Fetched {
    /// The key of an id; without one, the only key there is.
    fn find(&self, kid: Option<&str>) -> Option<VerifyingKey> {
        match kid {
            Some(kid) => self.by_kid.get(kid).cloned(),
            None if self.by_kid.len() + self.anonymous.len() == 1 => {
                self.by_kid.values().chain(&self.anonymous).next().cloned()
            }
            None => None,
        }
    }
}

impl KeySet {
    /// The keys of a configured issuer; nothing is fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(config: &IdentityConfig) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build().context("an HTTP client")?;
        let shared = Shared {
            client,
            issuer: config.oidc_issuer.clone(),
            jwks_url: config.oidc_jwks_url.clone(),
            keys: ArcSwapOption::empty(),
            last_try: Mutex::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The caller of a token that the present keys have verified before.
    pub fn remembered(&self, token: &str, now: i64) -> Option<Caller> {
        let known = self.shared.keys.load();
        let keys = known.as_ref()?;
        // A stale set is for `key_for`, which has it refreshed.
        if Instant::now() >= keys.fresh_until {
            return None;
        }
        keys.verified.find(token, now)
    }

    /// The key that a token names, and where to remember that it verified.
    ///
    /// # Errors
    /// 401 if there is no such key, 503 if no key could ever be fetched.
    pub async fn key_for(&self, token: &str) -> Result<(VerifyingKey, VerifiedTokens), Problem> {
        let unknown = || Problem::InvalidToken { why: "The token does not verify.".to_owned() };
        let kid = decode_header(token).map_err(|_| unknown())?.kid;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(unknown());
        }
        let known = self.shared.keys.load_full();
        let find = |keys: &Arc<Fetched>| Some((keys.find(kid.as_deref())?, keys.verified.clone()));
        let found = known.as_ref().and_then(find);
        let is_fresh = known.as_ref().is_some_and(|keys| Instant::now() < keys.fresh_until);
        if let Some(found) = found {
            if !is_fresh {
                // Stale serves on; whoever comes first refreshes beside.
                let keys = self.clone();
                tokio::spawn(async move { keys.refresh(false).await });
            }
            return Ok(found);
        }
        self.refresh(is_fresh).await;
        match self.shared.keys.load_full() {
            Some(keys) => find(&keys).ok_or_else(unknown),
            None => Err(Problem::Unavailable { why: "The issuer's keys cannot be had. Try again." }),
        }
    }

    /// Fetches the set, unless that was tried a moment ago.
    async fn refresh(&self, is_fresh: bool) {
        let asked = Instant::now();
        let mut last_try = self.shared.last_try.lock().await;
        if let Some((at, worked)) = *last_try {
            let pause = if worked && is_fresh { PAUSE } else { PAUSE_AFTER_FAILURE };
            // Somebody refreshed while we waited for the lock, or a moment before.
            if at >= asked || (at.elapsed() < pause && (is_fresh || !worked)) {
                return;
            }
        }
        let fetched = self.shared.fetch().await;
        *last_try = Some((Instant::now(), fetched.is_ok()));
        match fetched {
            Ok(keys) => self.shared.keys.store(Some(Arc::new(keys))),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the issuer's keys were not fetched"),
        }
    }
}

impl Shared {
    async fn fetch(&self) -> anyhow::Result<Fetched> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let (max_age, body) = self.get(&url).await?;
        let set: Value = serde_json::from_slice(&body).context("the JWK set")?;
        let mut fetched = Fetched {
            by_kid: HashMap::new(),
            anonymous: Vec::new(),
            verified: VerifiedTokens::default(),
            fresh_until: Instant::now() + max_age.unwrap_or(FRESH).clamp(FRESH_BOUNDS.0, FRESH_BOUNDS.1),
        };
        // One key by one: a kind that the library does not know must not spoil the set.
        for key in set["keys"].as_array().context("the JWK set has no keys")? {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key.clone()) else { continue };
            let Some(verifying) = usable(&jwk) else { continue };
            match jwk.common.key_id {
                Some(kid) => {
                    fetched.by_kid.insert(kid, verifying);
                }
                None => fetched.anonymous.push(verifying),
            }
        }
        Ok(fetched)
    }

    async fn discover(&self) -> anyhow::Result<String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let (_, body) = self.get(&url).await?;
        let document: Value = serde_json::from_slice(&body).context("the discovery document")?;
        // OpenID Connect Discovery 1.0, section 4.3.
        ensure!(document["issuer"] == self.issuer.as_str(), "the discovery document is of another issuer");
        Ok(document["jwks_uri"].as_str().context("the discovery document has no jwks_uri")?.to_owned())
    }

    async fn get(&self, url: &str) -> anyhow::Result<(Option<Duration>, Vec<u8>)> {
        let mut response = self.client.get(url).send().await?.error_for_status()?;
        let max_age = response
            .headers()
            .get(reqwest::header::CACHE_CONTROL)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| {
                text.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok())
            })
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            ensure!(body.len() + chunk.len() <= MAX_ANSWER, "the answer of {url} is too large");
            body.extend_from_slice(&chunk);
        }
        Ok((max_age, body))
    }
}

/// A key for RS256 or ES256, as the key itself says; any other is not used.
fn usable(jwk: &Jwk) -> Option<VerifyingKey> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::EllipticCurve(curve), None | Some(KeyAlgorithm::ES256))
            if curve.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        _ => return None,
    };
    Some(VerifyingKey { key: DecodingKey::from_jwk(jwk).ok()?, algorithm })
}
