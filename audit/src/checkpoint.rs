//! Checkpoints: what is signed, what is published, and what a tenant is given beside it.
//!
//! A seal makes one public [`Checkpoint`] over the tenants that changed since the one before, and a
//! [`TenantCheckpoint`] for each of them. One signature covers all: a tenant's own hangs below the public root by a
//! path that shows nothing of the others (see [`crate::blind`]).

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::BoxFuture;
use merkle::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::blind::{Blinded, Path};
use crate::canonical::canonical;
use crate::keys::PublicKeys;
use crate::{AuditError, Hex};

/// What stands in front of the signed bytes of a checkpoint: no token and no certificate begins so.
const CHECKPOINT: &[u8] = b"coditect-license checkpoint v1\n";

/// The public half of the key that signs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id.
    pub kid: String,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key: String,
}

/// What signs checkpoints and certificates: the signer of the license tokens (RS256).
pub trait NotarySigner: Send + Sync + 'static {
    /// The key that signs now; the text says why there is none.
    ///
    /// # Errors
    /// When no key may sign.
    fn current(&self) -> Result<SigningKey, String>;

    /// The signature of a message with that key; the text says why there is none.
    fn sign<'a>(&'a self, kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, String>>;
}

/// A public checkpoint: anybody may read and keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// From 1, without a gap.
    pub number: u64,
    /// SHA-256 of the canonical bytes of the checkpoint before, signature included; `None` on the first.
    pub previous: Option<Hex>,
    /// Over the blinded checkpoints of the tenants that changed.
    pub root: Hex,
    /// Postgres's clock.
    pub sealed_at: String,
    /// The key that signed.
    pub kid: String,
    /// base64url, RSASSA-PKCS1-v1_5 with SHA-256, over [`Checkpoint::message`].
    pub signature: String,
}

impl Checkpoint {
    /// The bytes that are signed: a line that names the purpose, and everything but the signature.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn message(&self) -> Result<Vec<u8>, AuditError> {
        let Self { number, previous, root, sealed_at, kid, signature: _ } = self;
        let body = serde_json::json!({
            "kid": kid, "number": number, "previous": previous, "root": root, "sealed_at": sealed_at,
        });
        Ok([CHECKPOINT, &canonical(&body)?].concat())
    }

    /// What the next checkpoint names as `previous`.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn hash(&self) -> Result<Hex, AuditError> {
        Ok(Hex(sha256(&canonical(self)?)))
    }

    /// Whether one of the keys signed it.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn is_signed_by(&self, keys: &PublicKeys) -> Result<bool, AuditError> {
        Ok(keys.verify(&self.kid, &self.message()?, &self.signature))
    }
}

/// The state of one tenant's tree at a seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantHead {
    /// Whose tree.
    pub tenant_id: Uuid,
    /// Events in it.
    pub size: u64,
    /// Its RFC 6962 root.
    pub root: Hex,
    /// SHA-256 of the canonical bytes of this tenant's head before; `None` on the first.
    pub previous: Option<Hex>,
    /// The public checkpoint that it hangs below.
    pub number: u64,
    /// When that one was sealed.
    pub sealed_at: String,
}

impl TenantHead {
    /// What the next head names as `previous`.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn hash(&self) -> Result<Hex, AuditError> {
        Ok(Hex(sha256(&canonical(self)?)))
    }

    /// The head as it hangs below the public root.
    pub(crate) fn blinded(&self, blinding: [u8; 32]) -> Result<Blinded, AuditError> {
        Ok(Blinded::new(blinding, &canonical(self)?))
    }
}

/// A tenant's head with everything that proves it: for the tenant alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantCheckpoint {
    /// What is proved.
    #[serde(flatten)]
    pub head: TenantHead,
    /// What hides it from everybody else.
    pub blinding: Hex,
    /// How it hangs below the public root.
    pub path: Path,
    /// The public checkpoint with the signature.
    pub checkpoint: Checkpoint,
}

impl TenantCheckpoint {
    /// Whether the head hangs below its public checkpoint. Signature and chain are the public checkpoint's own affair.
    ///
    /// # Errors
    /// Never for these fields.
    pub fn hangs_together(&self) -> Result<bool, AuditError> {
        let blinded = self.head.blinded(self.blinding.0.0)?;
        Ok(self.head.number == self.checkpoint.number
            && self.head.sealed_at == self.checkpoint.sealed_at
            && self.path.leads_to(&blinded, &self.checkpoint.root.0))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest(hash)
}
