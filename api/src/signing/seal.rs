//! Checkpoints and certificates are signed by the key that signs license tokens at that moment.

use audit::{NotarySigner, SigningKey};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::KeyRing;

impl NotarySigner for KeyRing {
    fn current(&self) -> Result<SigningKey, String> {
        let key = KeyRing::current(self).map_err(|error| error.to_string())?;
        Ok(SigningKey { kid: key.kid, public_key: key.pem })
    }

    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        async move { self.sign_bytes(kid, message).await.map_err(|error| error.to_string()) }.boxed()
    }
}
