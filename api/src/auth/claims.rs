//! A token and its key: signature, issuer, audience, times; then the claims that matter here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::Value;

use super::caller::{Caller, Role};
use crate::config::IdentityConfig;
use crate::problem::Problem;

/// How far the issuer's clock may be off, in seconds.
pub const LEEWAY: u64 = 30;

/// Longest email, in characters (RFC 5321: 64 before the @, 255 after it).
const MAX_EMAIL: usize = 320;

/// A key of the issuer and the one algorithm that it is for.
#[derive(Clone)]
pub struct VerifyingKey {
    /// The key.
    pub key: DecodingKey,
    /// As the key says, never as a token says.
    pub algorithm: Algorithm,
}

/// What a token said that verified.
#[derive(Clone)]
pub struct Verified {
    /// Whom it speaks for.
    pub caller: Caller,
    /// `exp`, seconds of Unix time.
    pub expires_at: i64,
}

/// Verifies a token with its issuer's key.
///
/// # Errors
/// 401 with the reason in words that name no secret.
pub fn verify(config: &IdentityConfig, key: &VerifyingKey, token: &str) -> Result<Verified, Problem> {
    refuse_critical(token)?;
    let mut validation = Validation::new(key.algorithm);
    // The library's defaults are lax: 60 s of leeway, nbf unchecked, only exp required.
    validation.leeway = LEEWAY;
    validation.validate_exp = true;
    validation.validate_nbf = true;
    validation.validate_aud = true;
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&config.oidc_issuer]);
    validation.set_audience(&[&config.oidc_audience]);
    let claims = decode::<Value>(token, &key.key, &validation).map_err(|error| refused(error.kind()))?.claims;

    // The library also takes a list of issuers; RFC 7519, section 4.1.1, knows one.
    if claims.get("iss").and_then(Value::as_str) != Some(config.oidc_issuer.as_str()) {
        return Err(refused(&jsonwebtoken::errors::ErrorKind::InvalidIssuer));
    }
    let not_before = claims.get("nbf");
    if not_before.is_some_and(|time| !time.is_number()) {
        return Err(Problem::InvalidToken { why: "The token's nbf is not a time.".to_owned() });
    }
    let user_id =
        claims.get("sub").and_then(Value::as_str).and_then(|sub| events::UserId::new(sub).ok()).ok_or_else(
            || Problem::InvalidToken { why: "The token's sub must have 1 to 128 characters.".to_owned() },
        )?;
    let caller = Caller {
        user_id,
        email: printable(claims.get("email"), MAX_EMAIL),
        email_verified: !matches!(claims.get("email_verified"), Some(Value::Bool(false)))
            && claims.get("email_verified").and_then(Value::as_str) != Some("false"),
        tenant_claim: at_path(&claims, &config.oidc_tenant_claim).and_then(Value::as_str).map(str::to_owned),
        roles: roles(at_path(&claims, &config.oidc_roles_claim)),
    };
    // A fraction of a second is dropped: the token ends a little sooner.
    let expires_at = claims.get("exp").and_then(Value::as_f64).unwrap_or(0.0) as i64;
    Ok(Verified { caller, expires_at })
}

/// RFC 7515, section 4.1.11: a header that says something critical must be understood, and none is here. The library
/// does not look.
fn refuse_critical(token: &str) -> Result<(), Problem> {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let header: Option<Value> = header.and_then(|header| serde_json::from_slice(&header).ok());
    match header {
        Some(Value::Object(header)) if !header.contains_key("crit") => Ok(()),
        _ => Err(Problem::InvalidToken { why: "The token does not verify.".to_owned() }),
    }
}

/// A text that can be stored and shown; none otherwise.
fn printable(claim: Option<&Value>, most: usize) -> Option<String> {
    let text = claim?.as_str()?;
    let good = text.chars().count() <= most && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

fn refused(kind: &jsonwebtoken::errors::ErrorKind) -> Problem {
    use jsonwebtoken::errors::ErrorKind as K;
    let why = match kind {
        K::ExpiredSignature => "The token has expired.",
        K::ImmatureSignature => "The token is not valid yet.",
        K::InvalidIssuer => "The token is of another issuer.",
        K::InvalidAudience => "The token is for another audience.",
        K::MissingRequiredClaim(_) => "The token lacks a claim, or has one of a wrong type.",
        _ => "The token does not verify.",
    };
    Problem::InvalidToken { why: why.to_owned() }
}

/// A claim by its name, or by a dotted path if no claim has the whole name.
fn at_path<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, part| value.get(part)))
}

/// A list of texts, or one text with spaces between; unknown roles are nobody's.
fn roles(claim: Option<&Value>) -> std::collections::BTreeSet<Role> {
    match claim {
        Some(Value::Array(roles)) => roles.iter().filter_map(|role| role.as_str()?.parse().ok()).collect(),
        Some(Value::String(roles)) => roles.split_whitespace().filter_map(|role| role.parse().ok()).collect(),
        _ => std::collections::BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{at_path, roles};
    use crate::auth::Role;
    use serde_json::json;

    #[test]
    fn finds_claims_by_name_and_by_path() {
        let claims = json!({ "tenant_id": "a", "firebase": { "tenant": "b" }, "https://x.y/tenant": "c" });
        assert_eq!(at_path(&claims, "tenant_id"), Some(&json!("a")));
        assert_eq!(at_path(&claims, "firebase.tenant"), Some(&json!("b")));
        assert_eq!(at_path(&claims, "https://x.y/tenant"), Some(&json!("c")));
        assert_eq!(at_path(&claims, "firebase.other"), None);
    }

    #[test]
    fn reads_roles_of_either_form_and_ignores_the_rest() {
        let expected = [Role::TenantAdmin, Role::Auditor].into();
        assert_eq!(roles(Some(&json!(["auditor", "tenant_admin", "emperor", 7]))), expected);
        assert_eq!(roles(Some(&json!("tenant_admin auditor"))), expected);
        assert!(roles(Some(&json!(7))).is_empty() && roles(None).is_empty());
    }
}
