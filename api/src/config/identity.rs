//! Whom to believe.

use clap::Args;

/// The identity provider.
#[derive(Debug, Clone, Args)]
pub struct IdentityConfig {
    /// `iss` of the callers' JWTs
    #[arg(long, env)]
    pub oidc_issuer: String,
    /// `aud` of the callers' JWTs
    #[arg(long, env)]
    pub oidc_audience: String,
    /// The issuer's JWK set; left out: from its discovery document
    #[arg(long, env)]
    pub oidc_jwks_url: Option<String>,
    /// Claim that names the tenant; a dotted path is allowed, e.g. `firebase.tenant`
    #[arg(long, env, default_value = "tenant_id")]
    pub oidc_tenant_claim: String,
    /// Claim that lists the roles; a dotted path is allowed
    #[arg(long, env, default_value = "roles")]
    pub oidc_roles_claim: String,
}
