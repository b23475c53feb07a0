//! Batch tokens: license tokens of one moment are leaves of an RFC 6962 tree, and one RSA-4096 signature over a typed
//! statement of its root serves them all. Each token carries its payload, its path and the signature, and is verified
//! offline with one RSA verification. `docs/token-format.md` specifies the format byte by byte.
//!
//! Pure: no I/O, no clock; whoever builds a batch signs its statement elsewhere. What a payload says is not looked at.
//!
//! Guarantee: a token that verifies has the payload, in the place, of the batch that the key's holder signed for that
//! issuer, and there is one text only that says so. Text from strangers is bounded, and makes nothing panic.

mod batch;
mod key;
mod statement;
mod token;

pub use batch::{Batch, InvalidBatch};
pub use key::{InvalidKey, VerifyingKey};
pub use statement::{CONTEXT, InvalidStatement, Statement};
pub use token::{InvalidToken, PREFIX, Token, is_batch_token};

/// Most tokens under one signature, and so the most hashes of a path: 16.
pub const MAX_SIZE: u32 = 1 << 16;

/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 8 * 1024;

/// Longest name of a key, in bytes.
pub const MAX_KID: usize = 255;

/// Longest issuer, in bytes.
pub const MAX_ISSUER: usize = 1_024;

/// An RSA-4096 signature, in bytes.
pub const SIGNATURE: usize = 512;
