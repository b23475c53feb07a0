//! A token: its text, and what it takes to believe it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use merkle::{Digest, inclusion_root, inclusion_spans, leaf_hash};

use crate::statement::check_kid;
use crate::{MAX_KID, MAX_PAYLOAD, MAX_SIZE, SIGNATURE, Statement, VerifyingKey};

/// The first part of every batch token of this format. No JWT has it: a JWT begins with a JSON object in base64url.
pub const PREFIX: &str = "clb1";

/// Longest path, in hashes.
const MAX_PATH: usize = 16;

/// Bytes of the proof before the key's name: time, size, index, the name's length.
const PROOF_HEAD: usize = 8 + 4 + 4 + 1;

/// Longest text, in characters: what the bounds of the parts come to.
const MAX_TEXT: usize =
    PREFIX.len() + 3 + (MAX_PAYLOAD + PROOF_HEAD + MAX_KID + 32 * MAX_PATH + SIGNATURE + 6) * 4 / 3;

/// A batch token, read but not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The claims, as they were signed.
    pub payload: Vec<u8>,
    /// Unix seconds: when the batch was signed.
    pub signed_at: u64,
    /// How many tokens the batch has.
    pub size: u32,
    /// This one's place among them, from 0.
    pub index: u32,
    /// The key that signed.
    pub kid: String,
    /// Siblings on the way from the leaf to the root.
    pub path: Vec<Digest>,
    /// Of the batch's statement.
    pub signature: [u8; SIGNATURE],
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not the text of a batch token.
    #[error("that is no batch token: {0}")]
    Malformed(&'static str),
    /// The signature is not the key's, over this payload in this place for this issuer.
    #[error("the signature does not verify")]
    Signature,
}

use InvalidToken::Malformed;

/// Whether a text is meant as a batch token, of any version; what it is worth is another question.
#[must_use]
pub fn is_batch_token(text: &str) -> bool {
    text.split_once('.').is_some_and(|(first, _)| {
        first
            .strip_prefix("clb")
            .is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

impl Token {
    /// What the signature must be over.
    ///
    /// # Errors
    /// When the path does not fit the place, or a field is out of bounds.
    pub fn statement(&self, issuer: &str) -> Result<Vec<u8>, InvalidToken> {
        let leaf = leaf_hash(&self.payload);
        let root = inclusion_root(&leaf, self.index.into(), self.size.into(), &self.path)
            .map_err(|_| Malformed("the path does not fit the place"))?;
        let (signed_at, size, kid) = (self.signed_at, self.size, self.kid.as_str());
        let statement = Statement { signed_at, size, root, kid, issuer };
        statement.to_bytes().map_err(|_| Malformed("a field is out of bounds"))
    }

    /// Believes the token: its payload was signed, in its place of its batch, by the key, for the issuer.
    ///
    /// # Errors
    /// When it was not.
    pub fn verify(&self, issuer: &str, key: &VerifyingKey) -> Result<(), InvalidToken> {
        let statement = self.statement(issuer)?;
        if key.verifies(&statement, &self.signature) { Ok(()) } else { Err(InvalidToken::Signature) }
    }

    fn proof(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PROOF_HEAD + self.kid.len() + 32 * self.path.len());
        bytes.extend_from_slice(&self.signed_at.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.push(u8::try_from(self.kid.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.kid.as_bytes());
        self.path.iter().for_each(|beside| bytes.extend_from_slice(&beside.0));
        bytes
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        write!(f, "{PREFIX}.{}.{}.{}", part(&self.payload), part(&self.proof()), part(&self.signature))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_TEXT {
            return Err(Malformed("it is too long"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [PREFIX, payload, proof, signature] = parts[..] else {
            return Err(Malformed("it is not clb1 and three parts"));
        };
        // Strict: no padding, no other alphabet, no bits left over. There is one text for each token.
        let decode =
            |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed("a part is not base64url"));
        let payload = decode(payload)?;
        if !(1..=MAX_PAYLOAD).contains(&payload.len()) {
            return Err(Malformed("the payload is empty or too long"));
        }
        let signature = decode(signature)?.try_into().map_err(|_| Malformed("the signature's length"))?;
        let proof = decode(proof)?;
        let (signed_at, rest) = take(&proof)?;
        let (size, rest) = take(rest)?;
        let (index, rest) = take(rest)?;
        let ([kid_len], rest) = take::<1>(rest)?;
        let (kid, path) = rest.split_at_checked(kid_len.into()).ok_or(Malformed("the proof is cut"))?;
        let kid = std::str::from_utf8(kid).map_err(|_| Malformed("the key's name"))?;
        check_kid(kid).map_err(|_| Malformed("the key's name"))?;
        let (size, index) = (u32::from_be_bytes(size), u32::from_be_bytes(index));
        if size > MAX_SIZE {
            return Err(Malformed("the batch is too large"));
        }
        let spans = inclusion_spans(index.into(), size.into()).ok_or(Malformed("there is no such place"))?;
        if path.len() != 32 * spans.len() {
            return Err(Malformed("the path does not fit the place"));
        }
        let path = path.chunks_exact(32).filter_map(|hash| Digest::try_from(hash).ok()).collect();
        let signed_at = u64::from_be_bytes(signed_at);
        Ok(Self { payload, signed_at, size, index, kid: kid.to_owned(), path, signature })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), InvalidToken> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed("the proof is cut"))?;
    Ok((*first, rest))
}
