//! The public half of a signing key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::SigningError;

/// The only size that license tokens are signed with, in bits.
const BITS: u32 = 4096;

/// An RSA-4096 public key and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// RFC 7638 thumbprint: the same key has the same id everywhere.
    pub kid: String,
    /// SubjectPublicKeyInfo, PEM.
    pub pem: String,
    modulus: String,
    exponent: String,
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// When it is not an RSA key of 4096 bits.
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        let key = rsa::PublicKey::from_public_key_pem(pem)
            .map_err(|error| SigningError::Setting(format!("not an RSA public key: {error}")))?;
        let bytes = |number: Box<[u8]>| URL_SAFE_NO_PAD.encode(strip_zeros(&number));
        let bits = key.n().bit_width();
        if bits != BITS {
            return Err(SigningError::Setting(format!("the key has {bits} bits, not {BITS}")));
        }
        let (modulus, exponent) = (bytes(key.n_bytes()), bytes(key.e_bytes()));
        // RFC 7638, section 3.1: the required members in lexical order, no white space.
        let canonical = format!("{{\"e\":\"{exponent}\",\"kty\":\"RSA\",\"n\":\"{modulus}\"}}");
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()));
        Ok(Self { kid, pem: pem.trim_end().to_owned() + "\n", modulus, exponent })
    }

    /// `n` and `e` as a JWK has them.
    #[must_use]
    pub fn components(&self) -> (&str, &str) {
        (&self.modulus, &self.exponent)
    }

    /// The key as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": self.modulus, "e": self.exponent })
    }
}

fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
