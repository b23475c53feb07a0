//! Which key signs now, and which are published.
//!
//! Keys live in Postgres from their first publication until their last use plus the longest grace. A new key is
//! published for over an hour before it signs: by then every client's copy of the set (`max-age` one hour) has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::EventLog;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{LicenseClaims, PublicKey, Signer, SigningError};

/// How long a new key is published before it signs: an hour that clients keep a set, and an hour in which a replica
/// that cannot look at the others' keys would still publish an old one.
const PUBLISHED_BEFORE_USE: Duration = Duration::from_secs(7_200);

/// Longest grace of any license: a year, the most that a license can say.
const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 3_600);

/// How often the ring looks at its signer and at what others have published.
const REFRESH: Duration = Duration::from_secs(60);

/// Longest time that one signature may take.
const SIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// The keys of this moment. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    signer: Arc<dyn Signer>,
    log: EventLog,
    keys: Arc<ArcSwap<Keys>>,
}

struct Keys {
    current: PublicKey,
    published: Vec<PublicKey>,
}

/// A license token and the key that verifies it.
#[derive(Debug, Clone)]
pub struct SignedToken {
    /// Compact JWS.
    pub token: String,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key: String,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

impl KeyRing {
    /// Publishes the signer's keys and picks the one that signs.
    ///
    /// # Errors
    /// When the signer or the database cannot be asked, or there is no key.
    pub async fn open(signer: Arc<dyn Signer>, log: EventLog) -> Result<Self, SigningError> {
        let keys = survey(signer.as_ref(), &log).await?;
        let ring = Self { signer, log, keys: Arc::new(ArcSwap::from_pointee(keys)) };
        tokio::spawn(ring.clone().refresh());
        Ok(ring)
    }

    async fn refresh(self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            match survey(self.signer.as_ref(), &self.log).await {
                Ok(keys) => self.keys.store(Arc::new(keys)),
                Err(error) => {
                    tracing::warn!(%error, "the signing keys were not looked at: the last ones stay")
                }
            }
        }
    }

    /// The key that signs now.
    #[must_use]
    pub fn current(&self) -> PublicKey {
        self.keys.load().current.clone()
    }

    /// Every key that can still verify an unexpired token.
    #[must_use]
    pub fn jwk_set(&self) -> Value {
        let keys = self.keys.load();
        json!({ "keys": keys.published.iter().map(PublicKey::jwk).collect::<Vec<_>>() })
    }

    /// Changes whenever the set of published keys does.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let keys = self.keys.load();
        let kids: Vec<_> = keys.published.iter().map(|key| key.kid.as_str()).collect();
        URL_SAFE_NO_PAD.encode(Sha256::digest(kids.join(" ").as_bytes()))
    }

    /// Signs a license token with the key of the moment.
    ///
    /// # Errors
    /// When the signer fails, or takes too long.
    #[tracing::instrument(name = "sign", skip_all)]
    pub async fn sign(&self, claims: &LicenseClaims) -> Result<SignedToken, SigningError> {
        let key = self.current();
        let input = claims
            .signing_input(&key.kid)
            .map_err(|error| SigningError::Corrupt(format!("the claims do not serialise: {error}")))?;
        let begun = Instant::now();
        let signature = tokio::time::timeout(SIGN_TIMEOUT, self.signer.sign(&key.kid, input.as_bytes()))
            .await
            .unwrap_or_else(|_| Err(SigningError::Unavailable("no signature in time".to_owned())))?;
        metrics::histogram!("license_signature_duration_seconds", "signer" => self.signer.name())
            .record(begun.elapsed().as_secs_f64());
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(SignedToken { token, public_key: key.pem, expires_at: claims.exp })
    }
}

/// Publishes what the signer has, notes the use of the current key, reads what is published.
async fn survey(signer: &dyn Signer, log: &EventLog) -> Result<Keys, SigningError> {
    let unavailable = |error: events::LogError| SigningError::Unavailable(error.to_string());
    let held = signer.keys().await?;
    for key in &held {
        log.publish_key(&key.kid, &key.pem).await.map_err(unavailable)?;
    }
    let published = log.published_keys(LONGEST_GRACE).await.map_err(unavailable)?;
    let ages: Vec<(PublicKey, Duration)> = held
        .into_iter()
        .filter_map(|key| {
            let age = published.iter().find(|one| one.kid == key.kid)?.age;
            Some((key, age))
        })
        .collect();
    let current = pick(&ages).ok_or_else(|| SigningError::Setting("the signer has no key".to_owned()))?;
    log.touch_key(&current.kid).await.map_err(unavailable)?;
    let published =
        published.iter().map(|one| PublicKey::from_pem(&one.public_key)).collect::<Result<_, _>>()?;
    Ok(Keys { current, published })
}

/// The newest key that has been published for long enough; before any has, the one published first.
fn pick(ages: &[(PublicKey, Duration)]) -> Option<PublicKey> {
    let ripe = ages.iter().rev().filter(|(_, age)| *age >= PUBLISHED_BEFORE_USE).min_by_key(|(_, age)| *age);
    let oldest = || ages.iter().rev().max_by_key(|(_, age)| *age);
    ripe.or_else(oldest).map(|(key, _)| key.clone())
}
