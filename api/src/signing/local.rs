//! Signs with keys of a PEM file. aws-lc-rs does it in 2 ms; the `rsa` crate, which reads the file, would take 16.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use tokio::sync::Semaphore;

use super::{PublicKey, Signer, SigningError};

struct Held {
    public: PublicKey,
    pair: Arc<RsaKeyPair>,
}

/// RSA-4096 private keys in this process's memory.
pub struct LocalSigner {
    keys: Vec<Held>,
    /// A signature keeps a core busy: no more at a time than there are cores.
    cores: Arc<Semaphore>,
}

const END: &str = "-----END PRIVATE KEY-----";

impl LocalSigner {
    /// Reads a file of one or more PKCS#8 PEM keys, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read, or has a key that is not RSA-4096.
    pub fn from_file(path: &Path) -> Result<Self, SigningError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            SigningError::Setting(format!("SIGNING_KEY_FILE: {}: {error}", path.display()))
        })?;
        Self::from_pem(&text).map_err(|error| SigningError::Setting(format!("SIGNING_KEY_FILE: {error}")))
    }

    /// Reads one or more PKCS#8 PEM keys, oldest first.
    ///
    /// # Errors
    /// When there is none, or one is not RSA-4096.
    pub fn from_pem(text: &str) -> Result<Self, SigningError> {
        let keys = text
            .split_inclusive(END)
            .map(str::trim)
            .filter(|block| block.ends_with(END))
            .map(hold)
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(SigningError::Setting("no PKCS#8 private key in PEM".to_owned()));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { keys, cores: Arc::new(Semaphore::new(cores)) })
    }

    /// A new RSA key as PKCS#8 PEM, for development.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate_pem(size: KeySize) -> Result<String, SigningError> {
        use aws_lc_rs::encoding::AsDer;
        let failed = |what: &str| SigningError::Setting(format!("cannot make a key: {what}"));
        let pair = KeyPair::generate(size).map_err(|_| failed("no randomness"))?;
        let der =
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| failed("encoding"))?;
        let key =
            rsa::PrivateKey::from_pkcs8_der(der.as_ref()).map_err(|error| failed(&error.to_string()))?;
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(&error.to_string()))?;
        Ok(pem.to_string())
    }
}

fn hold(pem: &str) -> Result<Held, SigningError> {
    let bad = |error: &dyn std::fmt::Display| SigningError::Setting(format!("not a PKCS#8 RSA key: {error}"));
    let key = rsa::PrivateKey::from_pkcs8_pem(pem).map_err(|error| bad(&error))?;
    let public = key.to_public_key().to_public_key_pem(LineEnding::LF).map_err(|error| bad(&error))?;
    let der = key.to_pkcs8_der().map_err(|error| bad(&error))?;
    let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).map_err(|error| bad(&error))?;
    Ok(Held { public: PublicKey::from_pem(&public)?, pair: Arc::new(pair) })
}

impl Signer for LocalSigner {
    fn name(&self) -> &'static str {
        "local"
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, SigningError>> {
        async { Ok(self.keys.iter().map(|held| held.public.clone()).collect()) }.boxed()
    }

    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SigningError>> {
        async move {
            let unavailable = |why: &str| SigningError::Unavailable(why.to_owned());
            let held = self.keys.iter().find(|held| held.public.kid == kid);
            let pair = held.map(|held| held.pair.clone()).ok_or_else(|| unavailable("no such key"))?;
            let permit = self.cores.clone().acquire_owned().await.map_err(|_| unavailable("it stops"))?;
            let message = message.to_vec();
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
                    .map_err(|_| SigningError::Corrupt("the key does not sign".to_owned()))?;
                Ok(signature)
            })
            .await
            .map_err(|error| SigningError::Unavailable(error.to_string()))?
        }
        .boxed()
    }
}
