//! What is signed: a statement that says of itself what it is, for whom, when, and by which key.
//!
//! It begins with 64 spaces, as the signed content of TLS 1.3 does (RFC 8446, 4.4.3), then its context and a zero byte.
//! The signing input of a JWS is base64url and a dot, a checkpoint of the log begins with its name: neither can be
//! taken for a statement, nor a statement for one of them, although one key may sign all three.

use merkle::Digest;

use crate::{MAX_ISSUER, MAX_KID, MAX_SIZE};

/// What a statement is about, before a zero byte.
pub const CONTEXT: &[u8] = b"coditect-license batch token";

/// Of the format.
const VERSION: u8 = 1;

/// Spaces in front.
const SPACES: usize = 64;

/// What the holder of a key says of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Unix seconds: no token of the batch was issued later.
    pub signed_at: u64,
    /// How many tokens it has.
    pub size: u32,
    /// The root of the tree over their payloads.
    pub root: Digest,
    /// The key that signs.
    pub kid: &'a str,
    /// `iss` of every token.
    pub issuer: &'a str,
}

/// Something that no statement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStatement {
    /// No tokens, or more than one signature serves.
    #[error("a batch has 1 to {MAX_SIZE} tokens")]
    Size,
    /// The key's name is empty, too long, or not visible ASCII.
    #[error("a key's name has 1 to {MAX_KID} visible ASCII characters")]
    Kid,
    /// The issuer is empty or too long.
    #[error("an issuer has 1 to {MAX_ISSUER} bytes")]
    Issuer,
}

impl Statement<'_> {
    /// The bytes that are signed. Every field has a fixed place or its length in front: no two statements are the
    /// same bytes.
    ///
    /// # Errors
    /// When a field is out of bounds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidStatement> {
        if !(1..=MAX_SIZE).contains(&self.size) {
            return Err(InvalidStatement::Size);
        }
        check_kid(self.kid)?;
        let kid_len = u8::try_from(self.kid.len()).map_err(|_| InvalidStatement::Kid)?;
        if !(1..=MAX_ISSUER).contains(&self.issuer.len()) {
            return Err(InvalidStatement::Issuer);
        }
        let issuer_len = u16::try_from(self.issuer.len()).map_err(|_| InvalidStatement::Issuer)?;
        let mut bytes = vec![b' '; SPACES];
        bytes.extend_from_slice(CONTEXT);
        bytes.extend_from_slice(&[0, VERSION]);
        bytes.extend_from_slice(&self.signed_at.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.root.0);
        bytes.push(kid_len);
        bytes.extend_from_slice(self.kid.as_bytes());
        bytes.extend_from_slice(&issuer_len.to_be_bytes());
        bytes.extend_from_slice(self.issuer.as_bytes());
        Ok(bytes)
    }
}

/// Visible ASCII, so that a log line can show it.
pub(crate) fn check_kid(kid: &str) -> Result<(), InvalidStatement> {
    let good = (1..=MAX_KID).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(()) } else { Err(InvalidStatement::Kid) }
}
