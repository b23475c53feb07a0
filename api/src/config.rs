//! Settings: one struct per concern, each read from environment variables or the same flags.

mod database;
mod identity;
mod listen;
mod notary;
mod project;
mod signing;
mod terms;

use clap::Args;

pub use database::{DatabaseConfig, RedisConfig};
pub use identity::IdentityConfig;
pub use listen::{LimitConfig, ListenConfig, LogFormat, TelemetryConfig};
pub use notary::NotaryConfig;
pub use project::{ProjectConfig, SealConfig, SealSigner};
pub(crate) use signing::ISSUER;
pub use signing::{SignerKind, SigningConfig, TokenFormat};
pub use terms::SessionConfig;

/// Everything that `serve` needs.
#[derive(Debug, Clone, Args)]
#[expect(missing_docs, reason = "each field's own type is documented")]
pub struct ServeConfig {
    #[command(flatten)]
    pub listen: ListenConfig,
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub redis: RedisConfig,
    #[command(flatten)]
    pub identity: IdentityConfig,
    #[command(flatten)]
    pub signing: SigningConfig,
    #[command(flatten)]
    pub session: SessionConfig,
    #[command(flatten)]
    pub limits: LimitConfig,
    #[command(flatten)]
    pub notary: NotaryConfig,
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

/// An absolute URL of one of these schemes.
fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let parsed = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    if schemes.contains(&parsed.scheme()) {
        Ok(text.to_owned())
    } else {
        Err(format!("its scheme must be one of {}", schemes.join(", ")))
    }
}

/// `http://` or `https://`.
pub(crate) fn http_url(text: &str) -> Result<String, String> {
    url(text, &["http", "https"])
}

/// Some text.
fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Turns clap's report into one line that names the variable.
#[must_use]
pub fn one_line(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // `--database-url <DATABASE_URL>`: the value's name is the variable's.
    let variables = |text: String| {
        let names: Vec<_> = text.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect();
        if names.is_empty() { text } else { names.join(", ") }
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing = variables(named(ContextKind::InvalidArg)?);
            Some(format!("{missing}: required, but not set"))
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let variable = variables(named(ContextKind::InvalidArg)?);
            let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
            Some(format!("{variable}: not a valid value{why}"))
        }
        _ => None,
    }
}
