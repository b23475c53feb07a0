//! Signs with Google Cloud KMS: the key never leaves it.
//!
//! A digest goes there with its CRC32C; what comes back is used only if KMS says that it verified the digest, names
//! the version that was asked, and the signature's own CRC32C is right (Google's data integrity guidelines).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::exponential_backoff::ExponentialBackoffBuilder;
use google_cloud_gax::options::RequestOptionsBuilder as _;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_gax::retry_policy::{Aip194Strict, RetryPolicyExt};
use google_cloud_kms_v1::client::KeyManagementService;
use google_cloud_kms_v1::model::crypto_key_version::{CryptoKeyVersionAlgorithm, CryptoKeyVersionState};
use google_cloud_kms_v1::model::{CryptoKeyVersion, Digest};
use google_cloud_wkt::FieldMask;
use sha2::{Digest as _, Sha256};

use super::{PublicKey, Signer, SigningError};

/// Longest time of one attempt, and how many there are.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(800);
const ATTEMPTS: u32 = 3;

/// Longest time of all attempts together; and the pause before another one, at random up to these, doubling.
const TOTAL_TIMEOUT: Duration = Duration::from_millis(2_500);
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));

/// How long a new version may take to be made, and how often it is asked for.
const MAKING_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Longest time of one attempt of another act.
const ACT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most versions of one key that are published, the newest; and most that are looked at.
const MAX_VERSIONS: usize = 64;
const MAX_LISTED: usize = 2_000;

/// Keys of Google Cloud KMS: all enabled versions of one key, or a single version.
pub struct KmsSigner {
    client: KeyManagementService,
    key: String,
    /// Key id -> version name. A version's public key never changes, so it is fetched once.
    versions: ArcSwap<HashMap<String, (String, PublicKey)>>,
}

impl KmsSigner {
    /// A client for the key; nothing is asked yet.
    ///
    /// # Errors
    /// When the client cannot be built, e.g. for want of credentials.
    pub async fn connect(key: &str, endpoint: Option<&str>) -> Result<Self, SigningError> {
        let setting = |error: &dyn std::fmt::Display| SigningError::Setting(format!("KMS: {error}"));
        let pauses = ExponentialBackoffBuilder::new().with_initial_delay(PAUSE.0).with_maximum_delay(PAUSE.1);
        let mut builder = KeyManagementService::builder()
            .with_retry_policy(Aip194Strict.with_attempt_limit(ATTEMPTS).with_time_limit(TOTAL_TIMEOUT))
            .with_backoff_policy(pauses.build().map_err(|error| setting(&error))?)
            .with_attempt_timeout(ATTEMPT_TIMEOUT);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
            if endpoint.starts_with("http://") {
                builder = builder.with_credentials(anonymous::Builder::new().build());
            }
        }
        let client = builder.build().await.map_err(|error| setting(&error))?;
        Ok(Self { client, key: key.to_owned(), versions: ArcSwap::default() })
    }

    /// The versions that can sign, oldest first.
    async fn version_names(&self) -> Result<Vec<String>, SigningError> {
        if self.key.contains("/cryptoKeyVersions/") {
            return Ok(vec![self.key.clone()]);
        }
        let mut listed = self.client.list_crypto_key_versions().set_parent(&self.key).by_item();
        let (mut names, mut looked_at) = (Vec::new(), 0);
        while let Some(version) = listed.next().await {
            let version = version.map_err(unavailable)?;
            let usable = version.state == CryptoKeyVersionState::Enabled
                && version.algorithm == CryptoKeyVersionAlgorithm::RsaSignPkcs14096Sha256;
            if usable {
                names.push(version.name);
            }
            looked_at += 1;
            if looked_at >= MAX_LISTED {
                break;
            }
        }
        names.sort_by_key(|name| name.rsplit('/').next().and_then(|n| n.parse::<u64>().ok()));
        Ok(names.split_off(names.len().saturating_sub(MAX_VERSIONS)))
    }

    async fn public_key(&self, version: &str) -> Result<PublicKey, SigningError> {
        let answer = self.client.get_public_key().set_name(version).send().await.map_err(unavailable)?;
        if answer.name != version {
            return Err(SigningError::Corrupt("a public key of another version".to_owned()));
        }
        if answer.pem_crc32c != Some(i64::from(crc32c::crc32c(answer.pem.as_bytes()))) {
            return Err(SigningError::Corrupt("the public key's CRC32C".to_owned()));
        }
        if answer.algorithm != CryptoKeyVersionAlgorithm::RsaSignPkcs14096Sha256 {
            return Err(SigningError::Setting(format!("{version} is not RSA_SIGN_PKCS1_4096_SHA256")));
        }
        PublicKey::from_pem(&answer.pem)
    }

    async fn sign_digest(&self, version: &str, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let digest = Sha256::digest(message).to_vec();
        let answer = self
            .client
            .asymmetric_sign()
            .set_name(version)
            .set_digest_crc32c(i64::from(crc32c::crc32c(&digest)))
            .set_digest(Digest::new().set_sha256(digest))
            // A POST is not tried again unless it is said to be harmless; a second signature is.
            .with_idempotency(true)
            .send()
            .await
            .map_err(unavailable)?;
        if !answer.verified_digest_crc32c {
            return Err(SigningError::Corrupt("KMS did not verify the digest's CRC32C".to_owned()));
        }
        if answer.name != version {
            return Err(SigningError::Corrupt("a signature of another version".to_owned()));
        }
        if answer.signature_crc32c != Some(i64::from(crc32c::crc32c(&answer.signature))) {
            return Err(SigningError::Corrupt("the signature's CRC32C".to_owned()));
        }
        Ok(answer.signature.to_vec())
    }
}

/// An operator's acts; they need `roles/cloudkms.admin`, which the service itself does not have.
impl KmsSigner {
    /// A new version of the key, as soon as it is enabled.
    async fn new_version(&self) -> Result<String, SigningError> {
        if self.key.contains("/cryptoKeyVersions/") {
            return Err(SigningError::Setting(
                "KMS_KEY names a single version: name the key, so that all its versions can sign".to_owned(),
            ));
        }
        let mut version = self
            .client
            .create_crypto_key_version()
            .set_parent(&self.key)
            .set_crypto_key_version(CryptoKeyVersion::new())
            .with_attempt_timeout(MAKING_TIMEOUT)
            .with_retry_policy(Aip194Strict.with_time_limit(MAKING_TIMEOUT))
            .send()
            .await
            .map_err(unavailable)?;
        let begun = Instant::now();
        while version.state == CryptoKeyVersionState::PendingGeneration {
            if begun.elapsed() > MAKING_TIMEOUT {
                let why = format!("{} is not ready yet: replicas publish it once it is", version.name);
                return Err(SigningError::Unavailable(why));
            }
            tokio::time::sleep(ASK_EVERY).await;
            let ask = self.client.get_crypto_key_version().set_name(&version.name);
            version = ask.send().await.map_err(unavailable)?;
        }
        if version.state != CryptoKeyVersionState::Enabled {
            let why = format!("{} is {:?} and not enabled", version.name, version.state);
            return Err(SigningError::Unavailable(why));
        }
        Ok(version.name)
    }

    async fn disable_version(&self, name: &str) -> Result<(), SigningError> {
        let disabled = CryptoKeyVersion::new().set_name(name).set_state(CryptoKeyVersionState::Disabled);
        let version = self
            .client
            .update_crypto_key_version()
            .set_crypto_key_version(disabled)
            .set_update_mask(FieldMask::default().set_paths(["state"]))
            .with_idempotency(true)
            .with_attempt_timeout(ACT_TIMEOUT)
            .with_retry_policy(Aip194Strict.with_time_limit(2 * ACT_TIMEOUT))
            .send()
            .await
            .map_err(unavailable)?;
        if version.name == name && version.state == CryptoKeyVersionState::Disabled {
            Ok(())
        } else {
            Err(SigningError::Corrupt(format!("{} is {:?}", version.name, version.state)))
        }
    }
}

fn unavailable(error: google_cloud_kms_v1::Error) -> SigningError {
    SigningError::Unavailable(format!("KMS: {error}"))
}

impl Signer for KmsSigner {
    fn name(&self) -> &'static str {
        "kms"
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, SigningError>> {
        async move {
            let known = self.versions.load_full();
            let (mut versions, mut keys) = (HashMap::new(), Vec::new());
            for name in self.version_names().await? {
                let key = match known.values().find(|(version, _)| *version == name) {
                    Some((_, key)) => key.clone(),
                    None => self.public_key(&name).await?,
                };
                versions.insert(key.kid.clone(), (name, key.clone()));
                keys.push(key);
            }
            self.versions.store(versions.into());
            Ok(keys)
        }
        .boxed()
    }

    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SigningError>> {
        async move {
            let versions = self.versions.load_full();
            let (version, _) =
                versions.get(kid).ok_or_else(|| SigningError::Unavailable("no such version".to_owned()))?;
            self.sign_digest(version, message).await
        }
        .boxed()
    }

    fn held_by(&self, kid: &str) -> String {
        self.versions.load().get(kid).map_or_else(|| self.key.clone(), |(name, _)| name.clone())
    }

    fn create(&self) -> BoxFuture<'_, Result<PublicKey, SigningError>> {
        async {
            let name = self.new_version().await?;
            let key = self.public_key(&name).await?;
            self.keys().await?;
            Ok(key)
        }
        .boxed()
    }

    fn disable<'a>(&'a self, kid: &'a str) -> BoxFuture<'a, Result<Option<String>, SigningError>> {
        async move {
            let versions = self.versions.load_full();
            let Some((name, _)) = versions.get(kid) else { return Ok(None) };
            self.disable_version(name).await?;
            Ok(Some(format!("{name} was disabled; destroy it when nobody may want it back")))
        }
        .boxed()
    }
}
