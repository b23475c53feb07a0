//! Building: payloads become a tree, its statement is signed, and each payload gets its token.

use merkle::{Tree, leaf_hash};

use crate::{InvalidStatement, MAX_PAYLOAD, MAX_SIZE, SIGNATURE, Statement, Token};

/// Payloads that get one signature.
#[derive(Debug)]
pub struct Batch {
    payloads: Vec<Vec<u8>>,
    tree: Tree,
    size: u32,
    kid: String,
    signed_at: u64,
    statement: Vec<u8>,
}

/// Why there is no such batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// A payload is empty or too long.
    #[error("a payload has 1 to {MAX_PAYLOAD} bytes")]
    Payload,
    /// The statement cannot be made.
    #[error(transparent)]
    Statement(#[from] InvalidStatement),
    /// The signature is none of RSA-4096.
    #[error("a signature has {SIGNATURE} bytes")]
    Signature,
}

impl Batch {
    /// The batch of these payloads, in this order.
    ///
    /// # Errors
    /// When there are none or too many, or one is out of bounds.
    pub fn new(
        issuer: &str,
        kid: &str,
        signed_at: u64,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Self, InvalidBatch> {
        if payloads.iter().any(|payload| !(1..=MAX_PAYLOAD).contains(&payload.len())) {
            return Err(InvalidBatch::Payload);
        }
        let size = u32::try_from(payloads.len()).unwrap_or(MAX_SIZE + 1);
        let tree = Tree::new(payloads.iter().map(|payload| leaf_hash(payload)).collect());
        let statement = Statement { signed_at, size, root: tree.root(), kid, issuer }.to_bytes()?;
        Ok(Self { payloads, tree, size, kid: kid.to_owned(), signed_at, statement })
    }

    /// What is to be signed.
    #[must_use]
    pub fn statement(&self) -> &[u8] {
        &self.statement
    }

    /// The tokens, in the payloads' order. The signature is not verified.
    ///
    /// # Errors
    /// When the signature has a wrong length.
    pub fn tokens(self, signature: &[u8]) -> Result<Vec<String>, InvalidBatch> {
        let signature: [u8; SIGNATURE] = signature.try_into().map_err(|_| InvalidBatch::Signature)?;
        let tokens = self.payloads.into_iter().zip(0..self.size).map(|(payload, index)| {
            let path = self.tree.inclusion_proof(index.into()).unwrap_or_default();
            Token {
                payload,
                signed_at: self.signed_at,
                size: self.size,
                index,
                kid: self.kid.clone(),
                path,
                signature,
            }
            .to_string()
        });
        Ok(tokens.collect())
    }
}
