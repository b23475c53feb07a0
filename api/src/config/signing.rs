//! What signs license tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::signing::Schedule;

/// Where the private key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignerKind {
    /// A PEM file.
    Local,
    /// Google Cloud KMS.
    Kms,
}

/// How license tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenFormat {
    /// A JWS of its own for each: any JOSE library verifies it.
    Jwt,
    /// One signature for the tokens of a moment: `docs/token-format.md`.
    Batch,
}

/// License tokens.
#[derive(Debug, Clone, Args)]
pub struct SigningConfig {
    /// Where the private key is
    #[arg(long, env, value_enum, default_value = "local")]
    pub signer: SignerKind,
    /// RSA-4096 private keys, PKCS#8 PEM, one or more in a file; a new one signs some time after it was published
    #[arg(long, env, required_if_eq("signer", "local"))]
    pub signing_key_file: Option<PathBuf>,
    /// `projects/…/cryptoKeys/…`, all enabled versions, or one of them with `/cryptoKeyVersions/n`
    #[arg(long, env, required_if_eq("signer", "kms"), value_parser = kms_key)]
    pub kms_key: Option<String>,
    /// Another endpoint than Google's; with `http://` no credentials are sent
    #[arg(long, env, value_parser = super::http_url)]
    pub kms_endpoint: Option<String>,
    /// `iss` of license tokens
    #[arg(long, env, default_value = ISSUER, value_parser = super::not_empty)]
    pub license_issuer: String,
    /// Seconds that a new key is published before it signs; under 3600 for drills only, for clients keep the published
    /// keys an hour
    #[arg(long, env, default_value_t = PUBLISHED_SECONDS, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub key_publication_seconds: u32,
    /// A signature for each token (`jwt`), or one for all of a moment (`batch`), which clients must know how to verify
    #[arg(long, env, value_enum, default_value = "jwt")]
    pub token_format: TokenFormat,
}

/// `iss` of license tokens, unless another is set.
pub(crate) const ISSUER: &str = "https://auth.coditect.ai";

/// An hour that clients keep a set, and an hour in which a replica that cannot look at the others' keys would still
/// publish an old one.
pub(super) const PUBLISHED_SECONDS: u32 = 7_200;

impl SigningConfig {
    /// The keys of a file, everything else as if left out.
    #[must_use]
    pub fn local(file: PathBuf) -> Self {
        Self {
            signer: SignerKind::Local,
            signing_key_file: Some(file),
            kms_key: None,
            kms_endpoint: None,
            license_issuer: ISSUER.to_owned(),
            key_publication_seconds: PUBLISHED_SECONDS,
            token_format: TokenFormat::Jwt,
        }
    }

    /// When keys sign, with the grace of licenses that do not say.
    #[must_use]
    pub fn schedule(&self, offline_grace_seconds: u32) -> Schedule {
        let published_before_use = Duration::from_secs(self.key_publication_seconds.into());
        Schedule { published_before_use, offline_grace_seconds, token_format: self.token_format }
    }
}

/// `projects/*/locations/*/keyRings/*/cryptoKeys/*`, and perhaps a version.
pub(super) fn kms_key(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split('/').collect();
    let named = ["projects", "locations", "keyRings", "cryptoKeys", "cryptoKeyVersions"];
    let good = matches!(parts.len(), 8 | 10)
        && parts.chunks(2).zip(named).all(|(pair, name)| pair[0] == name && !pair[1].is_empty());
    if good { Ok(text.to_owned()) } else { Err("it must be projects/…/cryptoKeys/…".to_owned()) }
}
