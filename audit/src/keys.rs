//! Public keys that checkpoints are verified with: PEM files, or a JWK set as `/.well-known/jwks.json` shows it.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::AuditError;

/// RSA keys that a signature may be of.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(Vec<Key>);

#[derive(Debug, Clone)]
enum Key {
    /// SubjectPublicKeyInfo, DER: any key id.
    Spki(Vec<u8>),
    /// Of a JWK set: signatures that name its id.
    Jwk { kid: String, n: Vec<u8>, e: Vec<u8> },
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kid: String,
    n: String,
    e: String,
}

impl PublicKeys {
    /// Reads one or more PEM blocks, or a JWK set.
    ///
    /// # Errors
    /// When there is no RSA key in it.
    pub fn parse(text: &str) -> Result<Self, AuditError> {
        let keys = if text.trim_start().starts_with('{') { jwks(text) } else { pem(text) };
        keys.filter(|keys| !keys.is_empty())
            .map(Self)
            .ok_or_else(|| AuditError::unreadable("neither public keys in PEM nor a JWK set of RSA keys"))
    }

    /// Adds other keys.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether one of the keys made this RS256 signature (base64url) of the message.
    #[must_use]
    pub fn verify(&self, kid: &str, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        self.0.iter().any(|key| match key {
            Key::Spki(der) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, &signature).is_ok()
            }
            Key::Jwk { kid: own, n, e } => {
                own == kid
                    && RsaPublicKeyComponents { n, e }
                        .verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature)
                        .is_ok()
            }
        })
    }
}

fn pem(text: &str) -> Option<Vec<Key>> {
    text.split("-----BEGIN PUBLIC KEY-----")
        .skip(1)
        .map(|block| {
            let body: String = block.split("-----END PUBLIC KEY-----").next()?.split_whitespace().collect();
            Some(Key::Spki(STANDARD.decode(body).ok()?))
        })
        .collect()
}

fn jwks(text: &str) -> Option<Vec<Key>> {
    let set: JwkSet = serde_json::from_str(text).ok()?;
    set.keys
        .into_iter()
        .map(|jwk| {
            let (n, e) = (URL_SAFE_NO_PAD.decode(&jwk.n).ok()?, URL_SAFE_NO_PAD.decode(&jwk.e).ok()?);
            Some(Key::Jwk { kid: jwk.kid, n, e })
        })
        .collect()
}
