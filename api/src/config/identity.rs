//! Whom to believe.

use clap::Args;

/// The identity provider.
#[derive(Debug, Clone, Args)]
pub struct IdentityConfig {
    /// `iss` of the callers' JWTs
    #[arg(long, env, value_parser = super::http_url)]
    pub oidc_issuer: String,
    /// `aud` of the callers' JWTs
    #[arg(long, env, value_parser = super::not_empty)]
    pub oidc_audience: String,
    /// The issuer's JWK set; left out: from its discovery document
    #[arg(long, env, value_parser = super::http_url)]
    pub oidc_jwks_url: Option<String>,
    /// Claim that names the tenant; a dotted path is allowed, e.g. `firebase.tenant`
    #[arg(long, env, default_value = "tenant_id", value_parser = claim_path)]
    pub oidc_tenant_claim: String,
    /// Claim that lists the roles; a dotted path is allowed
    #[arg(long, env, default_value = "roles", value_parser = claim_path)]
    pub oidc_roles_claim: String,
}

/// Names with dots between.
fn claim_path(text: &str) -> Result<String, String> {
    if text.split('.').any(str::is_empty) {
        Err("a claim has no name".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
