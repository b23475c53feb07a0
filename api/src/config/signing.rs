//! What signs license tokens.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where the private key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignerKind {
    /// A PEM file.
    Local,
    /// Google Cloud KMS.
    Kms,
}

/// License tokens.
#[derive(Debug, Clone, Args)]
pub struct SigningConfig {
    /// Where the private key is
    #[arg(long, env, value_enum, default_value = "local")]
    pub signer: SignerKind,
    /// RSA-4096 private keys, PKCS#8 PEM, one or more in a file; a new one signs two hours after it was published
    #[arg(long, env, required_if_eq("signer", "local"))]
    pub signing_key_file: Option<PathBuf>,
    /// `projects/…/cryptoKeys/…`, all enabled versions, or one of them with `/cryptoKeyVersions/n`
    #[arg(long, env, required_if_eq("signer", "kms"), value_parser = kms_key)]
    pub kms_key: Option<String>,
    /// Another endpoint than Google's; with `http://` no credentials are sent
    #[arg(long, env, value_parser = super::http_url)]
    pub kms_endpoint: Option<String>,
    /// `iss` of license tokens
    #[arg(long, env, default_value = "https://auth.coditect.ai", value_parser = super::not_empty)]
    pub license_issuer: String,
}

/// `projects/*/locations/*/keyRings/*/cryptoKeys/*`, and perhaps a version.
fn kms_key(text: &str) -> Result<String, String> {
    let parts: Vec<_> = text.split('/').collect();
    let named = ["projects", "locations", "keyRings", "cryptoKeys", "cryptoKeyVersions"];
    let good = matches!(parts.len(), 8 | 10)
        && parts.chunks(2).zip(named).all(|(pair, name)| pair[0] == name && !pair[1].is_empty());
    if good { Ok(text.to_owned()) } else { Err("it must be projects/…/cryptoKeys/…".to_owned()) }
}
