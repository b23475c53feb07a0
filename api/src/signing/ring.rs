//! Which key signs now, and which are published.
//!
//! Keys live in Postgres from their first publication until their last use plus the longest grace, or until they are
//! retired. A new key is published for over an hour before it signs: by then every client's copy of the set
//! (`max-age` one hour) has it. What is done with keys are events (`register.rs`); a replica sees an act within `POLL`,
//! and before it answers which keys are published: a key that had to sign at once may be younger than `POLL`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{Event, EventLog};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::batch::Batcher;
use super::register::{Register, record, unavailable};
use super::{LicenseClaims, PublicKey, Signer, SigningError};
use crate::config::TokenFormat;

/// Longest grace of any license: a year, the most that a license can say.
pub(crate) const LONGEST_GRACE: Duration = Duration::from_secs(366 * 24 * 3_600);

/// How often the ring looks at its signer and at what others have published, and notes the use of its key.
pub(crate) const REFRESH: Duration = Duration::from_secs(60);

/// How often the ring asks whether something was done with the keys.
const POLL: Duration = Duration::from_secs(1);

/// Longest time that a question for the published keys waits to learn of an act; after it, what is known is told.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that one signature may take.
pub(super) const SIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// Who publishes a key that a replica found in its signer.
const SERVE: &str = "serve";

/// When keys sign, and for how long what they sign is good.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long a new key is published before it signs. By default two hours: one that clients keep a set, and one in
    /// which a replica that cannot look at the others' keys would still publish an old one.
    pub published_before_use: Duration,
    /// Grace of the tokens of licenses that do not say, in seconds.
    pub offline_grace_seconds: u32,
    /// What signs them: a signature each, or one for many.
    pub token_format: TokenFormat,
}

/// The keys of this moment. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    signer: Arc<dyn Signer>,
    log: EventLog,
    schedule: Schedule,
    keys: Arc<ArcSwap<Keys>>,
    /// When it was last asked what is published.
    asked: Arc<Mutex<Instant>>,
    /// With shared signatures.
    batcher: Option<Batcher>,
}

/// The keys that can still verify an unexpired token.
#[derive(Clone)]
struct Published {
    keys: Arc<[PublicKey]>,
    /// Of the register that this was read beside.
    version: i64,
}

#[derive(Clone)]
pub(super) struct Keys {
    /// `None`: every key was retired, and there is no new one yet.
    current: Option<PublicKey>,
    published: Published,
    /// What the signer had, oldest first, retired ones included.
    held: Vec<PublicKey>,
    /// Of the register that the key was picked by.
    version: i64,
    /// When the next key may sign.
    ripe_in: Option<Duration>,
}

/// A license token and the key that verifies it.
#[derive(Debug, Clone)]
pub struct SignedToken {
    /// Compact JWS, or batch token.
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
    pub async fn open(
        signer: Arc<dyn Signer>,
        log: EventLog,
        schedule: Schedule,
    ) -> Result<Self, SigningError> {
        let held = signer.keys().await?;
        failures(signer.as_ref()).absolute(0);
        let keys = survey(signer.as_ref(), &log, schedule, held).await?;
        if keys.current.is_none() {
            return Err(SigningError::Setting(
                "the signer has no key, or none that was not retired: `coditect-license keys rotate` makes one"
                    .to_owned(),
            ));
        }
        let asked = Arc::new(Mutex::new(Instant::now()));
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let batcher = match schedule.token_format {
            TokenFormat::Jwt => None,
            TokenFormat::Batch => Some(Batcher::start(signer.clone(), keys.clone())),
        };
        let ring = Self { signer, log, schedule, keys, asked, batcher };
        tokio::spawn(ring.clone().refresh());
        Ok(ring)
    }

    /// Looks again every minute, when a key has ripened, and as soon as something was done with the keys.
    async fn refresh(self) {
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(POLL).await;
            let known = self.keys.load_full();
            let due = known.ripe_in.map_or(REFRESH, |ripe_in| ripe_in.min(REFRESH));
            let acted = Register::version(&self.log).await.is_ok_and(|version| version != known.version);
            if !acted && looked.elapsed() < due {
                continue;
            }
            looked = Instant::now();
            // A signer that does not answer must not keep a retired key alive: what it had stays, as far as it may.
            let held = self.signer.keys().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the signer's keys were not looked at: the last ones stay");
                known.held.clone()
            });
            match survey(self.signer.as_ref(), &self.log, self.schedule, held).await {
                Ok(keys) => self.switch(keys),
                Err(error) => {
                    tracing::warn!(%error, "the signing keys were not looked at: the last ones stay")
                }
            }
        }
    }

    fn switch(&self, keys: Keys) {
        match (&self.keys.load().current, &keys.current) {
            (Some(old), Some(new)) if old.kid == new.kid => {}
            (_, Some(new)) => tracing::info!(kid = %new.kid, "another key signs from now on"),
            (_, None) => tracing::error!("every signing key was retired: no license token can be signed"),
        }
        self.keys.store(Arc::new(keys));
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// When every key was retired.
    pub fn current(&self) -> Result<PublicKey, SigningError> {
        self.keys.load().current()
    }

    /// Every key that can still verify an unexpired token, and an entity tag that changes whenever they do.
    ///
    /// A key signs only after its publication was recorded, so who asks with a token in hand finds its key, whichever
    /// replica answers. Without the database it is what was known last.
    pub async fn jwk_set(&self) -> (Value, String) {
        let asked = tokio::time::timeout(ASK_TIMEOUT, self.ask()).await;
        if let Err(error) =
            asked.unwrap_or_else(|_| Err(SigningError::Unavailable("no answer in time".to_owned())))
        {
            tracing::warn!(%error, "whether other keys are published is not known: the last ones are told");
        }
        let published = self.keys.load().published.clone();
        let kids: Vec<_> = published.keys.iter().map(|key| key.kid.as_str()).collect();
        let tag = URL_SAFE_NO_PAD.encode(Sha256::digest(kids.join(" ").as_bytes()));
        (json!({ "keys": published.keys.iter().map(PublicKey::jwk).collect::<Vec<_>>() }), tag)
    }

    /// Learns what is published now, if something was done with the keys: one question at a time, for all who wait.
    async fn ask(&self) -> Result<(), SigningError> {
        let begun = Instant::now();
        let mut asked = self.asked.lock().await;
        if *asked >= begun {
            return Ok(());
        }
        let now = Instant::now();
        if Register::version(&self.log).await? != self.keys.load().published.version {
            let published = Published::read(&self.log, &Register::read(&self.log).await?).await?;
            self.keys.rcu(|keys| Keys { published: published.clone(), ..Keys::clone(keys) });
        }
        *asked = now;
        Ok(())
    }

    /// Whether tokens of one moment share a signature.
    #[must_use]
    pub fn shares_signatures(&self) -> bool {
        self.batcher.is_some()
    }

    /// Signs a license token with the key of the moment.
    ///
    /// # Errors
    /// When the signer fails, or takes too long.
    #[tracing::instrument(name = "sign", skip_all)]
    pub async fn sign(&self, claims: LicenseClaims) -> Result<SignedToken, SigningError> {
        let signed = match &self.batcher {
            Some(batcher) => batcher.sign(claims).await,
            None => self.sign_alone(&claims).await,
        };
        self.counted(signed)
    }

    async fn sign_alone(&self, claims: &LicenseClaims) -> Result<SignedToken, SigningError> {
        let key = self.current()?;
        let input = claims
            .signing_input(&key.kid)
            .map_err(|error| SigningError::Corrupt(format!("the claims do not serialise: {error}")))?;
        let signature = self.signature(&key.kid, input.as_bytes()).await?;
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(SignedToken { token, public_key: key.pem, expires_at: claims.exp })
    }

    /// The signature of any message with one of the signer's keys.
    ///
    /// # Errors
    /// When the signer fails, or takes too long.
    pub async fn sign_bytes(&self, kid: &str, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        self.counted(self.signature(kid, message).await)
    }

    /// Counts what was left without a signature: a token, a checkpoint, a certificate.
    fn counted<T>(&self, signed: Result<T, SigningError>) -> Result<T, SigningError> {
        signed.inspect_err(|_| failures(self.signer.as_ref()).increment(1))
    }

    async fn signature(&self, kid: &str, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let begun = Instant::now();
        let signature = tokio::time::timeout(SIGN_TIMEOUT, self.signer.sign(kid, message))
            .await
            .unwrap_or_else(|_| Err(SigningError::Unavailable("no signature in time".to_owned())))?;
        measure(self.signer.as_ref(), begun, 1);
        Ok(signature)
    }
}

impl Published {
    /// What was published and not retired. Read after the register: a key's row precedes its events.
    async fn read(log: &EventLog, register: &Register) -> Result<Self, SigningError> {
        let keys = log.published_keys(LONGEST_GRACE).await.map_err(unavailable)?;
        let kept = keys.iter().filter(|key| !register.is_retired(&key.kid));
        let keys = kept.map(|key| PublicKey::from_pem(&key.public_key)).collect::<Result<_, _>>()?;
        Ok(Self { keys, version: register.version })
    }
}

impl Keys {
    pub(super) fn current(&self) -> Result<PublicKey, SigningError> {
        let none = || SigningError::Unavailable("every signing key was retired".to_owned());
        self.current.clone().ok_or_else(none)
    }
}

/// What was left without a signature.
fn failures(signer: &dyn Signer) -> metrics::Counter {
    metrics::counter!("license_signature_failures_total", "signer" => signer.name())
}

/// Notes a signature that began then and serves so many tokens.
pub(super) fn measure(signer: &dyn Signer, begun: Instant, tokens: usize) {
    metrics::histogram!("license_signature_duration_seconds", "signer" => signer.name())
        .record(begun.elapsed().as_secs_f64());
    metrics::histogram!("license_signature_batch_size").record(tokens as f64);
}

/// Publishes what the signer has, records what was not recorded, notes the use of the current key, reads what is
/// published.
async fn survey(
    signer: &dyn Signer,
    log: &EventLog,
    schedule: Schedule,
    held: Vec<PublicKey>,
) -> Result<Keys, SigningError> {
    let register = Register::read(log).await?;
    let usable: Vec<_> = held.iter().filter(|key| !register.is_retired(&key.kid)).cloned().collect();
    publish(signer, log, &usable, SERVE).await?;
    let published = log.published_keys(LONGEST_GRACE).await.map_err(unavailable)?;
    let ages: Vec<(PublicKey, Duration)> = usable
        .into_iter()
        .filter_map(|key| {
            let age = published.iter().find(|one| one.kid == key.kid)?.age;
            Some((key, age))
        })
        .collect();
    let current = pick(&ages, schedule.published_before_use).cloned();
    let register = match &current {
        Some(current) => activate(log, &current.kid, schedule.offline_grace_seconds).await?,
        None => Register::read(log).await?,
    };
    // Another act may have come between: what it retired is gone already.
    let current = current.filter(|key| !register.is_retired(&key.kid));
    if let Some(current) = &current {
        log.touch_key(&current.kid).await.map_err(unavailable)?;
    }
    let ripening = ages.iter().filter_map(|(_, age)| schedule.published_before_use.checked_sub(*age));
    let ripe_in = ripening.filter(|left| !left.is_zero()).min();
    let published = Published::read(log, &register).await?;
    Ok(Keys { current, published, held, version: register.version, ripe_in })
}

/// Puts keys into the published set, and records those that were not recorded.
pub(crate) async fn publish(
    signer: &dyn Signer,
    log: &EventLog,
    keys: &[PublicKey],
    by: &str,
) -> Result<(), SigningError> {
    for key in keys {
        log.publish_key(&key.kid, &key.pem).await.map_err(unavailable)?;
    }
    let published = |register: &Register| {
        let new = keys.iter().filter(|key| {
            let facts = register.of(&key.kid);
            !facts.published && facts.retired_at.is_none()
        });
        Ok::<_, SigningError>(
            new.map(|key| Event::SigningKeyPublished {
                kid: key.kid.clone(),
                held_by: signer.held_by(&key.kid),
                by: by.to_owned(),
            })
            .collect(),
        )
    };
    record(log, published).await.map(|_| ())
}

/// Records that a key signs, before it does; a retired one does not.
async fn activate(log: &EventLog, kid: &str, offline_grace_seconds: u32) -> Result<Register, SigningError> {
    record(log, |register| {
        let facts = register.of(kid);
        let known = facts.activated.is_some_and(|grace| grace >= offline_grace_seconds);
        if known || facts.retired_at.is_some() {
            return Ok(Vec::new());
        }
        Ok(vec![Event::SigningKeyActivated { kid: kid.to_owned(), offline_grace_seconds }])
    })
    .await
}

/// The newest key that has been published for long enough; before any has, the one published first.
pub(crate) fn pick(ages: &[(PublicKey, Duration)], published_before_use: Duration) -> Option<&PublicKey> {
    let ripe = ages.iter().rev().filter(|(_, age)| *age >= published_before_use).min_by_key(|(_, age)| *age);
    let oldest = || ages.iter().rev().max_by_key(|(_, age)| *age);
    ripe.or_else(oldest).map(|(key, _)| key)
}
