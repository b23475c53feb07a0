//! The license token: a JWS in compact form (RFC 7515) that any JOSE library verifies.

use std::time::Duration;

use actors::Grant;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{LicenseTerms, TenantId, Time};
use serde::Serialize;

/// `aud` of every license token.
pub const AUDIENCE: &str = "coditect";

/// What a license token says.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the claims of the contract, by their own names")]
pub struct LicenseClaims {
    pub iss: String,
    pub aud: &'static str,
    pub sub: String,
    pub jti: String,
    pub user_id: String,
    pub tenant_id: String,
    pub license_id: String,
    pub session_id: String,
    pub hardware_id: String,
    pub plan: String,
    pub product: String,
    pub features: Vec<String>,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
}

/// When a token issued at `now` ends: the license's own grace or the default, never past the license's end.
#[must_use]
pub fn grace_end(license: &LicenseTerms, now: Time, default_grace: Duration) -> i64 {
    let grace =
        license.offline_grace_seconds.map_or(default_grace, |seconds| Duration::from_secs(seconds.into()));
    let end = now.after(grace).seconds();
    license.valid_until.map_or(end, |until| end.min(until.seconds()))
}

impl LicenseClaims {
    /// The claims of a grant, issued at `now`.
    #[must_use]
    pub fn of(
        grant: &Grant,
        tenant_id: TenantId,
        license_id: events::LicenseId,
        issuer: &str,
        now: Time,
        default_grace: Duration,
    ) -> Self {
        let license = &grant.license;
        Self {
            iss: issuer.to_owned(),
            aud: AUDIENCE,
            sub: grant.user_id.to_string(),
            jti: uuid::Uuid::now_v7().to_string(),
            user_id: grant.user_id.to_string(),
            tenant_id: tenant_id.to_string(),
            license_id: license_id.to_string(),
            session_id: grant.session_id.to_string(),
            hardware_id: grant.hardware_id.to_string(),
            plan: license.plan.clone(),
            product: license.product.to_string(),
            features: license.features.clone(),
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: grace_end(license, now, default_grace),
        }
    }

    /// What is signed: header and claims, each base64url, joined by a dot.
    ///
    /// # Errors
    /// Never for these claims.
    pub fn signing_input(&self, kid: &str) -> Result<String, serde_json::Error> {
        let header = format!("{{\"alg\":\"RS256\",\"kid\":\"{kid}\",\"typ\":\"JWT\"}}");
        let claims = serde_json::to_vec(self)?;
        Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    }
}
