//! The published vectors, which the SDK's tests read too: what must be believed, and what must not.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use serde::Deserialize;
use tokens::{Batch, Token, VerifyingKey, is_batch_token};

const VECTORS: &str = include_str!("../../docs/token-format-vectors.json");

#[derive(Deserialize)]
struct Vectors {
    issuer: String,
    kid: String,
    public_key: String,
    jwk: Jwk,
    good: Vec<Good>,
    bad: Vec<Bad>,
}

#[derive(Deserialize)]
struct Jwk {
    n: String,
    e: String,
}

#[derive(Deserialize)]
struct Good {
    size: usize,
    signed_at: u64,
    root: String,
    statement: String,
    payloads: Vec<String>,
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct Bad {
    why: String,
    token: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn good_tokens_are_believed_with_either_form_of_the_key() {
    let vectors = vectors();
    let pem = VerifyingKey::from_pem(&vectors.public_key).unwrap();
    let jwk = VerifyingKey::from_components(&vectors.jwk.n, &vectors.jwk.e).unwrap();
    assert_eq!(pem, jwk);
    for batch in &vectors.good {
        assert_eq!(batch.tokens.len(), batch.size);
        for (index, text) in batch.tokens.iter().enumerate() {
            let token: Token = text.parse().unwrap();
            token.verify(&vectors.issuer, &pem).unwrap();
            assert!(is_batch_token(text));
            assert_eq!(token.to_string(), *text, "there is one text for each token");
            assert_eq!(token.payload, batch.payloads[index].as_bytes());
            assert_eq!((token.index as usize, token.size as usize), (index, batch.size));
            assert_eq!((token.signed_at, &token.kid), (batch.signed_at, &vectors.kid));
            assert_eq!(hex(&token.statement(&vectors.issuer).unwrap()), batch.statement);
            assert!(token.verify("https://evil.example", &pem).is_err(), "a statement is for one issuer");
        }
    }
}

#[test]
fn batches_are_built_as_they_were() {
    let vectors = vectors();
    for good in &vectors.good {
        let payloads = good.payloads.iter().map(|one| one.clone().into_bytes()).collect();
        let batch = Batch::new(&vectors.issuer, &vectors.kid, good.signed_at, payloads).unwrap();
        assert_eq!(hex(batch.statement()), good.statement);
        assert!(good.statement.contains(&good.root));
        let signature = good.tokens[0].parse::<Token>().unwrap().signature;
        assert_eq!(batch.tokens(&signature).unwrap(), good.tokens);
    }
}

#[test]
fn bad_tokens_are_not_believed() {
    let vectors = vectors();
    let key = VerifyingKey::from_pem(&vectors.public_key).unwrap();
    assert!(vectors.bad.len() >= 20);
    for Bad { why, token } in &vectors.bad {
        let believed = token.parse::<Token>().and_then(|token| token.verify(&vectors.issuer, &key));
        assert!(believed.is_err(), "{why}");
    }
}

#[test]
fn other_keys_are_none() {
    let vectors = vectors();
    for (n, e) in [("", "AQAB"), ("AQAB", "AQAB"), ("!", "AQAB"), (vectors.jwk.n.as_str(), "")] {
        assert!(VerifyingKey::from_components(n, e).is_err(), "{n} {e}");
    }
    assert!(VerifyingKey::from_components(&"A".repeat(100_000), "AQAB").is_err());
    assert!(VerifyingKey::from_pem("-----BEGIN PUBLIC KEY-----").is_err());
}
