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
    /// RSA-4096 private keys, PKCS#8 PEM, one or more in a file; a new one signs an hour after it was published
    #[arg(long, env, required_if_eq("signer", "local"))]
    pub signing_key_file: Option<PathBuf>,
    /// `projects/…/cryptoKeys/…`, all enabled versions, or one of them with `/cryptoKeyVersions/n`
    #[arg(long, env, required_if_eq("signer", "kms"))]
    pub kms_key: Option<String>,
    /// Another endpoint than Google's; with `http://` no credentials are sent
    #[arg(long, env)]
    pub kms_endpoint: Option<String>,
    /// `iss` of license tokens
    #[arg(long, env, default_value = "https://auth.coditect.ai")]
    pub license_issuer: String,
}
