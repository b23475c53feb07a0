//! What folds the log alone, and seals it where there is a key.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DatabaseConfig, NotaryConfig, SignerKind, SigningConfig, TelemetryConfig};

/// Everything that `project` needs.
#[derive(Debug, Clone, Args)]
#[expect(missing_docs, reason = "each field's own type is documented")]
pub struct ProjectConfig {
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Prometheus; `/health` says there that the process lives
    #[arg(long, env, default_value = "127.0.0.1:9000")]
    pub metrics_addr: SocketAddr,
    #[command(flatten)]
    pub seal: SealConfig,
    #[command(flatten)]
    pub notary: NotaryConfig,
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

/// Where the private key is that seals the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SealSigner {
    /// Nowhere: `serve` seals the log.
    None,
    /// A PEM file.
    Local,
    /// Google Cloud KMS.
    Kms,
}

/// The notary's keys: those of `serve`, under the same names. Without one `project` seals nothing.
#[derive(Debug, Clone, Args)]
pub struct SealConfig {
    /// Where the private key is; `none`, or `local` without a file: `serve` alone seals the log
    #[arg(long, env, value_enum, default_value = "local")]
    pub signer: SealSigner,
    /// RSA-4096 private keys, PKCS#8 PEM, as `serve` has them
    #[arg(long, env)]
    pub signing_key_file: Option<PathBuf>,
    /// `projects/…/cryptoKeys/…`, as `serve` has it
    #[arg(long, env, required_if_eq("signer", "kms"), value_parser = super::signing::kms_key)]
    pub kms_key: Option<String>,
    /// Another endpoint than Google's; with `http://` no credentials are sent
    #[arg(long, env, value_parser = super::http_url)]
    pub kms_endpoint: Option<String>,
    /// Seconds that a new key is published before it signs, as `serve` has them
    #[arg(long, env, default_value_t = super::signing::PUBLISHED_SECONDS, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub key_publication_seconds: u32,
    /// Seconds that a license token outlives its issue, as `serve` has them
    #[arg(long, env, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..=31_536_000))]
    pub offline_grace_seconds: u32,
}

impl SealConfig {
    /// The settings of the signer; `None`: there is none.
    #[must_use]
    pub fn signing(&self) -> Option<SigningConfig> {
        let file = self.signing_key_file.clone();
        let (kind, file, kms_key) = match self.signer {
            SealSigner::None => return None,
            SealSigner::Local => (SignerKind::Local, Some(file?), None),
            SealSigner::Kms => (SignerKind::Kms, None, self.kms_key.clone()),
        };
        Some(SigningConfig {
            signer: kind,
            kms_key,
            kms_endpoint: self.kms_endpoint.clone(),
            key_publication_seconds: self.key_publication_seconds,
            signing_key_file: file,
            ..SigningConfig::local(PathBuf::new())
        })
    }
}
