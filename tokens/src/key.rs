//! The key that verifies: RSA-4096, from a published PEM or JWK.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, Pkcs1v15Sign, PublicKey};
use sha2::{Digest, Sha256};

/// The only size that tokens are signed with, in bits.
const BITS: u32 = 4_096;

/// Text or numbers that are no RSA-4096 public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA-4096 public key: {0}")]
pub struct InvalidKey(String);

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey(PublicKey);

impl VerifyingKey {
    /// Reads SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// When it is not an RSA key of 4096 bits.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        Self::of(PublicKey::from_public_key_pem(pem).map_err(|error| InvalidKey(error.to_string()))?)
    }

    /// Reads `n` and `e` of a JWK.
    ///
    /// # Errors
    /// When it is not an RSA key of 4096 bits.
    pub fn from_components(n: &str, e: &str) -> Result<Self, InvalidKey> {
        let number = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| InvalidKey(error.to_string()))?;
            if bytes.len() > 2 * BITS as usize / 8 {
                return Err(InvalidKey("too long".to_owned()));
            }
            Ok(BoxedUint::from_be_slice_vartime(&bytes))
        };
        Self::of(PublicKey::new(number(n)?, number(e)?).map_err(|error| InvalidKey(error.to_string()))?)
    }

    fn of(key: PublicKey) -> Result<Self, InvalidKey> {
        let bits = key.n().bit_width();
        if bits == BITS { Ok(Self(key)) } else { Err(InvalidKey(format!("it has {bits} bits"))) }
    }

    /// Whether the signature (PKCS#1 v1.5, SHA-256) is this key's over the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature).is_ok()
    }
}
