//! Tokens that verified, remembered until they expire: a client sends the same one with each heartbeat, and checking
//! its signature costs more than all else that is done for it here.
//!
//! What is remembered hangs on the set of keys that it was verified with. When another set is fetched it is gone, so a
//! key that the issuer withdraws takes its tokens with it.

use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::caller::Caller;
use super::claims::{LEEWAY, Verified};

/// Tokens remembered with one set of keys; some 300 bytes each.
const REMEMBERED: u64 = 200_000;

/// What one set of keys has verified. Cheap to clone.
#[derive(Clone)]
pub struct VerifiedTokens(Cache<[u8; 32], Verified>);

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl VerifiedTokens {
    /// The caller of a token that verified before and has not expired.
    pub fn find(&self, token: &str, now: i64) -> Option<Caller> {
        let key = digest(token);
        let verified = self.0.get(&key)?;
        if verified.is_over(now) {
            self.0.invalidate(&key);
            return None;
        }
        Some(verified.caller)
    }

    /// Remembers a token that verified.
    pub fn keep(&self, token: &str, verified: Verified) {
        self.0.insert(digest(token), verified);
    }
}

impl Verified {
    /// Whether the token has expired at `now`, seconds of Unix time, by the rule with which it was verified.
    fn is_over(&self, now: i64) -> bool {
        self.expires_at + LEEWAY.cast_signed() <= now
    }
}

/// The whole token counts, its signature included: a token that differs in one bit was never verified.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

    use super::*;

    fn verified(expires_at: i64) -> Verified {
        let caller = Caller {
            user_id: events::UserId::new("alice").unwrap(),
            email: None,
            email_verified: false,
            tenant_claim: None,
            roles: std::collections::BTreeSet::new(),
        };
        Verified { caller, expires_at }
    }

    #[test]
    fn a_token_is_known_until_it_expires_and_no_other_is() {
        let tokens = VerifiedTokens::default();
        tokens.keep("header.claims.signature", verified(1_000));
        assert!(tokens.find("header.claims.signature", 1_029).is_some(), "within the leeway");
        assert!(tokens.find("header.claims.signaturf", 900).is_none());
        assert!(tokens.find("header.claims.signature", 1_030).is_none());
        assert!(tokens.find("header.claims.signature", 900).is_none(), "it was forgotten");
    }
}
