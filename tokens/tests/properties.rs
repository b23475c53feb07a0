//! Whatever is done to a token, it is either the same or not believed; whatever is read, nothing panics.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use merkle::Digest;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use tokens::{Batch, InvalidBatch, MAX_PAYLOAD, MAX_SIZE, Statement, Token, VerifyingKey, is_batch_token};

/// Signed tokens of several trees, their issuer, and the key.
static SIGNED: LazyLock<(Vec<String>, String, VerifyingKey)> = LazyLock::new(|| {
    let vectors: Value = serde_json::from_str(include_str!("../../docs/token-format-vectors.json")).unwrap();
    let batches = vectors["good"].as_array().unwrap().iter();
    let tokens = batches.flat_map(|batch| batch["tokens"].as_array().unwrap().clone());
    let tokens = tokens.map(|token| token.as_str().unwrap().to_owned()).collect();
    let key = VerifyingKey::from_pem(vectors["public_key"].as_str().unwrap()).unwrap();
    (tokens, vectors["issuer"].as_str().unwrap().to_owned(), key)
});

fn believed(text: &str) -> bool {
    let (_, issuer, key) = &*SIGNED;
    text.parse::<Token>().is_ok_and(|token| token.verify(issuer, key).is_ok())
}

fn pick(index: Index) -> &'static str {
    index.get::<String>(&SIGNED.0)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn one_flipped_bit_anywhere(token in any::<Index>(), part in 1_usize..4, at in any::<Index>(), bit in 0_u8..8) {
        let mut parts: Vec<String> = pick(token).split('.').map(str::to_owned).collect();
        let mut bytes = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        parts[part] = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert!(!believed(&parts.join(".")));
    }

    #[test]
    fn one_other_character_anywhere(token in any::<Index>(), at in any::<Index>(), other in any::<char>()) {
        let mut text: Vec<char> = pick(token).chars().collect();
        let at = at.index(text.len());
        prop_assume!(text[at] != other);
        text[at] = other;
        prop_assert!(!believed(&text.into_iter().collect::<String>()));
    }

    #[test]
    fn truncated_or_longer(token in any::<Index>(), cut in any::<Index>(), more in "[A-Za-z0-9_.=-]{1,8}") {
        let text = pick(token);
        prop_assert!(!believed(&text[..cut.index(text.len())]));
        let longer = format!("{text}{more}");
        prop_assert!(!believed(&longer));
    }

    #[test]
    fn parts_of_two_tokens(one in any::<Index>(), two in any::<Index>(), mask in 1_u8..7) {
        let (one, two) = (pick(one), pick(two));
        let pairs = one.split('.').zip(two.split('.')).enumerate();
        let mixed = pairs.map(|(n, (a, b))| if n > 0 && mask & (1 << (n - 1)) != 0 { b } else { a });
        let mixed = mixed.collect::<Vec<_>>().join(".");
        prop_assert!(mixed == one || mixed == two || !believed(&mixed) || SIGNED.0.contains(&mixed));
    }

    #[test]
    fn forged_paths(
        token in any::<Index>(), other in any::<Index>(), path in prop::collection::vec(digest(), 0..17),
        index in 0_u32..9, size in 0_u32..9, swap in any::<bool>(),
    ) {
        let original: Token = pick(token).parse().unwrap();
        let foreign: Token = pick(other).parse().unwrap();
        for path in [path, foreign.path.clone(), original.path.iter().rev().copied().collect()] {
            let payload = if swap { foreign.payload.clone() } else { original.payload.clone() };
            let forged = Token { payload, path, index, size, ..original.clone() };
            let text = forged.to_string();
            prop_assert!(forged == original || !believed(&text) || SIGNED.0.contains(&text));
        }
    }

    #[test]
    fn any_text_and_any_bytes(text in ".{0,200}", a in any::<Vec<u8>>(), b in any::<Vec<u8>>(), c in any::<Vec<u8>>()) {
        prop_assert!(!believed(&text));
        let part = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        let shaped = format!("clb1.{}.{}.{}", part(a), part(b), part(c));
        prop_assert!(!believed(&shaped));
    }

    /// Every token of a batch leads to the batch's own statement, and back to its own text.
    #[test]
    fn batches_of_any_size(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..70),
        signed_at in any::<u64>(), kid in "[!-~]{1,255}", issuer in ".{1,200}", byte in any::<u8>(),
    ) {
        let batch = Batch::new(&issuer, &kid, signed_at, payloads.clone()).unwrap();
        let statement = batch.statement().to_vec();
        for (text, payload) in batch.tokens(&[byte; 512]).unwrap().iter().zip(&payloads) {
            let token: Token = text.parse().unwrap();
            prop_assert_eq!(&token.payload, payload);
            prop_assert_eq!(token.statement(&issuer).unwrap(), statement.clone());
            prop_assert_eq!(&token.to_string(), text);
        }
    }

    /// Two statements that differ in anything are different bytes, and none looks like anything else that is signed.
    #[test]
    fn statements_are_distinct(
        a in (any::<u64>(), 1..=MAX_SIZE, digest(), "[!-~]{1,20}", ".{1,20}"),
        b in (any::<u64>(), 1..=MAX_SIZE, digest(), "[!-~]{1,20}", ".{1,20}"),
    ) {
        let bytes = |(signed_at, size, root, kid, issuer): &(u64, u32, Digest, String, String)| {
            Statement { signed_at: *signed_at, size: *size, root: *root, kid, issuer }.to_bytes().unwrap()
        };
        prop_assert_eq!(bytes(&a) == bytes(&b), a == b);
        let text = bytes(&a);
        prop_assert!(text.starts_with(&[b' '; 64]) && text.contains(&0));
    }
}

#[test]
fn bounds() {
    let batch = |issuer: &str, kid: &str, payloads| Batch::new(issuer, kid, 1, payloads);
    assert!(batch("i", "k", vec![vec![7; MAX_PAYLOAD]]).is_ok());
    assert_eq!(batch("i", "k", vec![vec![7; MAX_PAYLOAD + 1]]).unwrap_err(), InvalidBatch::Payload);
    assert_eq!(batch("i", "k", vec![Vec::new()]).unwrap_err(), InvalidBatch::Payload);
    assert!(batch("i", "k", Vec::new()).is_err());
    assert!(batch("i", "k", vec![vec![7]; MAX_SIZE as usize + 1]).is_err());
    assert!(batch("", "k", vec![vec![7]]).is_err());
    assert!(batch("i", "", vec![vec![7]]).is_err());
    assert!(batch("i", "a b", vec![vec![7]]).is_err());
    assert!(batch("i", "k", vec![vec![7]]).unwrap().tokens(&[0; 511]).is_err());
    let largest = batch("i", "k", vec![vec![7; 100]; MAX_SIZE as usize]).unwrap().tokens(&[0; 512]).unwrap();
    assert_eq!(largest.last().unwrap().parse::<Token>().unwrap().path.len(), 16);
}

#[test]
fn a_jwt_is_not_a_batch_token() {
    for text in ["eyJhbGciOiJSUzI1NiJ9.e30.AA", "", "clb", "clb.", "clbx.a.b.c", "clb1", "CLB1.a.b.c"] {
        assert!(!is_batch_token(text), "{text}");
    }
    assert!(is_batch_token("clb1.a.b.c") && is_batch_token("clb2.of.the.future"));
}
