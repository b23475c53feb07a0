//! License tokens: signed by a [`Signer`], verified offline with the published keys.

mod admin;
mod batch;
mod kms;
mod local;
mod public_key;
mod register;
mod ring;
mod seal;
mod token;

use futures_util::future::BoxFuture;

pub use admin::{KeyAdmin, KeyLine, KeyState, Retire, Retired, Rotated};
pub use kms::KmsSigner;
pub use local::LocalSigner;
pub(crate) use local::write_private;
pub use public_key::PublicKey;
pub use ring::{KeyRing, Schedule, SignedToken};
pub use token::{AUDIENCE, LicenseClaims, grace_end};

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// It may work in a moment.
    #[error("the signer is unavailable: {0}")]
    Unavailable(String),
    /// What came back is not what was asked for.
    #[error("the signer's answer is wrong: {0}")]
    Corrupt(String),
    /// A setting, or a key, cannot be used.
    #[error("{0}")]
    Setting(String),
    /// An operator asked for something that would hurt; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// Something that holds RSA-4096 private keys and signs with them, PKCS#1 v1.5 with SHA-256 (RS256).
pub trait Signer: Send + Sync + 'static {
    /// As the metrics call it.
    fn name(&self) -> &'static str;

    /// The public halves of the keys that it can sign with, oldest first.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, SigningError>>;

    /// The signature of a message with the key of an id that [`Signer::keys`] listed.
    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SigningError>>;

    /// Where the private half of a key is that [`Signer::keys`] listed: `local`, or the name of a KMS version.
    fn held_by(&self, kid: &str) -> String;

    /// Makes another key, which [`Signer::keys`] lists from now on. An operator's act: a replica never does it.
    fn create(&self) -> BoxFuture<'_, Result<PublicKey, SigningError>>;

    /// Makes a key unable to sign; answers what was done, or `None` where the key is not held. An operator's act.
    fn disable<'a>(&'a self, kid: &'a str) -> BoxFuture<'a, Result<Option<String>, SigningError>>;
}
