//! The callers' JWTs, minted here: RS256, one per user, before anything is measured.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::keys;

/// The identity provider's key. Cheap to clone.
#[derive(Clone)]
pub struct JwtKey {
    pair: Arc<RsaKeyPair>,
    kid: String,
}

impl JwtKey {
    /// A new RSA-2048 key.
    pub fn generate() -> Result<Self> {
        Ok(Self::new(keys::generate(KeySize::Rsa2048)?))
    }

    /// A key that the server already trusts.
    pub fn from_pem(pem: &str) -> Result<Self> {
        Ok(Self::new(keys::from_pem(pem)?))
    }

    fn new(pair: RsaKeyPair) -> Self {
        Self { pair: Arc::new(pair), kid: "loadtests".into() }
    }

    /// The same key under the id that its issuer publishes it by.
    pub fn with_kid(self, kid: String) -> Self {
        Self { kid, ..self }
    }

    /// The public half, as a member of a JWK set.
    pub fn jwk(&self) -> Value {
        let public = self.pair.public_key();
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid,
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    /// A compact JWS over these claims.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.kid});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| anyhow!("the JWT could not be signed"))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

/// All that goes into a caller's token besides who the caller is.
#[derive(Clone)]
pub struct Issuing {
    /// The key that signs.
    pub key: JwtKey,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The name of the claim that carries the tenant.
    pub tenant_claim: String,
    /// How long the tokens hold; longer than the measurement.
    pub lifetime: Duration,
}

impl Issuing {
    /// A user's token.
    pub fn user(&self, subject: &str, tenant: &str) -> Result<String> {
        self.mint(subject, Some(tenant), &[])
    }

    /// The token that may create tenants.
    pub fn platform_admin(&self) -> Result<String> {
        self.mint("load-admin", None, &["platform_admin"])
    }

    /// A token of this subject with these roles; a platform admin's names no tenant.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn mint(&self, subject: &str, tenant: Option<&str>, roles: &[&str]) -> Result<String> {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
        let mut claims = json!({
            "iss": self.issuer, "aud": self.audience, "sub": subject, "iat": now,
            "exp": now + self.lifetime.as_secs(), "email": format!("{subject}@load.example"), "roles": roles,
        });
        if let (Some(tenant), Some(claims)) = (tenant, claims.as_object_mut()) {
            claims.insert(self.tenant_claim.clone(), tenant.into());
        }
        self.key.sign(&claims)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    #[test]
    fn a_minted_token_verifies_and_names_its_tenant() {
        let issuing = Issuing {
            key: JwtKey::generate().unwrap(),
            issuer: "http://issuer".into(),
            audience: "coditect".into(),
            tenant_claim: "tenant_id".into(),
            lifetime: Duration::from_secs(60),
        };
        let token = issuing.user("u1", "t1").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public =
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, issuing.key.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "u1");
        assert_eq!(claims["tenant_id"], "t1");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    }
}
