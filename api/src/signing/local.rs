//! Signs with keys of a PEM file. aws-lc-rs does it in 2 ms; the `rsa` crate, which reads the file, would take 16.
//!
//! The file is read again whenever the keys are asked for and it has changed, so that a key may be added to it or
//! taken out of it while replicas run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::{PublicKey, Signer, SigningError};

/// Signatures under way beyond one a core: a core that has made one finds the next there, without waiting for whoever
/// would start it.
const WAITING: usize = 2;

struct Held {
    public: PublicKey,
    pair: Arc<RsaKeyPair>,
}

/// The keys of a file as it was read.
struct Keys {
    text: SecretString,
    held: Vec<Held>,
}

/// RSA-4096 private keys in this process's memory.
pub struct LocalSigner {
    file: Option<PathBuf>,
    keys: ArcSwap<Keys>,
    /// A signature keeps a core busy: few more at a time than there are cores.
    cores: Arc<Semaphore>,
}

const END: &str = "-----END PRIVATE KEY-----";

impl LocalSigner {
    /// Reads a file of one or more PKCS#8 PEM keys, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read, or has a key that is not RSA-4096.
    pub fn from_file(path: &Path) -> Result<Self, SigningError> {
        let signer = Self::of(read(path)?, Some(path.to_owned()));
        signer.map_err(|error| SigningError::Setting(format!("SIGNING_KEY_FILE: {error}")))
    }

    /// Reads one or more PKCS#8 PEM keys, oldest first.
    ///
    /// # Errors
    /// When there is none, or one is not RSA-4096.
    pub fn from_pem(text: &str) -> Result<Self, SigningError> {
        Self::of(text.to_owned(), None)
    }

    fn of(text: String, file: Option<PathBuf>) -> Result<Self, SigningError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let keys = ArcSwap::from_pointee(Keys::parse(text)?);
        Ok(Self { file, keys, cores: Arc::new(Semaphore::new(cores + WAITING)) })
    }

    /// Reads the file again if it has changed. A key takes many milliseconds to read.
    async fn reload(&self) -> Result<(), SigningError> {
        let Some(file) = &self.file else { return Ok(()) };
        let text = read(file)?;
        if text != self.keys.load().text.expose_secret() {
            self.keys.store(Arc::new(blocking(|| Keys::parse(text)).await?));
        }
        Ok(())
    }

    fn file(&self) -> Result<&Path, SigningError> {
        let no_file = || SigningError::Setting("these keys are not of a file".to_owned());
        self.file.as_deref().ok_or_else(no_file)
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

impl Keys {
    fn parse(text: String) -> Result<Self, SigningError> {
        let held = blocks(&text).map(hold).collect::<Result<Vec<_>, _>>()?;
        if held.is_empty() {
            return Err(SigningError::Setting("no PKCS#8 private key in PEM".to_owned()));
        }
        Ok(Self { text: text.into(), held })
    }
}

/// The keys of a file's text, one block each.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END))
}

fn read(file: &Path) -> Result<String, SigningError> {
    std::fs::read_to_string(file)
        .map_err(|error| SigningError::Setting(format!("SIGNING_KEY_FILE: {}: {error}", file.display())))
}

/// Replaces a file whole, readable by its owner only: a reader finds the old text or the new one.
///
/// # Errors
/// When the folder cannot be written to.
pub(crate) fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let part = file.with_extension("part");
    let _ = std::fs::remove_file(&part);
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&part, file)
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
        async {
            self.reload().await?;
            Ok(self.keys.load().held.iter().map(|held| held.public.clone()).collect())
        }
        .boxed()
    }

    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SigningError>> {
        async move {
            let unavailable = |why: &str| SigningError::Unavailable(why.to_owned());
            let keys = self.keys.load_full();
            let held = keys.held.iter().find(|held| held.public.kid == kid);
            let pair = held.map(|held| held.pair.clone()).ok_or_else(|| unavailable("no such key"))?;
            let permit = self.cores.clone().acquire_owned().await.map_err(|_| unavailable("it stops"))?;
            let message = message.to_vec();
            blocking(move || {
                let _permit = permit;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
                    .map_err(|_| SigningError::Corrupt("the key does not sign".to_owned()))?;
                Ok(signature)
            })
            .await
        }
        .boxed()
    }

    fn held_by(&self, _: &str) -> String {
        "local".to_owned()
    }

    fn create(&self) -> BoxFuture<'_, Result<PublicKey, SigningError>> {
        async {
            let file = self.file()?;
            let pem = blocking(|| Self::generate_pem(KeySize::Rsa4096)).await?;
            let public = hold(&pem)?.public;
            rewrite(file, &format!("{}\n{}\n", read(file)?.trim_end(), pem.trim_end()))?;
            self.reload().await?;
            Ok(public)
        }
        .boxed()
    }

    fn disable<'a>(&'a self, kid: &'a str) -> BoxFuture<'a, Result<Option<String>, SigningError>> {
        async move {
            let (file, text) = (self.file()?, read(self.file()?)?);
            let keys = blocks(&text).map(|block| Ok((hold(block)?.public.kid, block)));
            let keys = keys.collect::<Result<Vec<_>, SigningError>>()?;
            let (gone, kept): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(found, _)| found == kid);
            if gone.is_empty() {
                return Ok(None);
            }
            if kept.is_empty() {
                return Err(SigningError::Setting("it is the only key of the file".to_owned()));
            }
            rewrite(file, &(kept.iter().map(|(_, block)| *block).collect::<Vec<_>>().join("\n") + "\n"))?;
            self.reload().await?;
            Ok(Some(format!("its private half was taken out of {}", file.display())))
        }
        .boxed()
    }
}

/// Work that keeps a core busy, away from the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SigningError> + Send + 'static,
) -> Result<T, SigningError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SigningError::Unavailable(error.to_string()))?
}

fn rewrite(file: &Path, text: &str) -> Result<(), SigningError> {
    write_private(file, text).map_err(|error| {
        SigningError::Setting(format!("SIGNING_KEY_FILE: {} cannot be rewritten: {error}", file.display()))
    })
}
