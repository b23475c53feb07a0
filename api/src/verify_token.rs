//! `verify-token`: whether a license token is good, for people and scripts. Both formats; offline with a key file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use chrono::Utc;
use clap::Args;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tokens::{Token, VerifyingKey, is_batch_token};

use crate::signing::{AUDIENCE, PublicKey};

/// How far the clock of this machine may be off, in seconds.
const LEEWAY: i64 = 30;

/// Longest time of the question for the key set, and its longest answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_SET: usize = 1024 * 1024;

/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// What is verified, and with what.
#[derive(Debug, Clone, Args)]
pub struct VerifyTokenConfig {
    /// A file of public keys in PEM, one or more: nothing is asked of the network
    #[arg(long, conflicts_with = "jwks")]
    pub public_key: Option<PathBuf>,
    /// A published key set; left out: `/.well-known/jwks.json` of the issuer
    #[arg(long, value_parser = crate::config::http_url)]
    pub jwks: Option<String>,
    /// `iss` that the token must have
    #[arg(long, env, default_value = crate::config::ISSUER)]
    pub license_issuer: String,
    /// The token; `-` reads it from standard input
    pub token: String,
}

/// A public key and its name.
struct Known {
    kid: String,
    n: String,
    e: String,
}

/// Verifies, and answers the claims to print.
///
/// # Errors
/// Why the token is not good, or that no key could be had.
pub async fn run(config: &VerifyTokenConfig) -> anyhow::Result<String> {
    let token = match config.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).context("standard input")?,
        token => token.to_owned(),
    };
    let token = token.trim();
    ensure!(token.len() <= MAX_TOKEN, "the token is longer than {MAX_TOKEN} bytes");
    let keys = match &config.public_key {
        Some(file) => keys_of_file(file)?,
        None => {
            let published =
                || format!("{}/.well-known/jwks.json", config.license_issuer.trim_end_matches('/'));
            keys_of_set(&config.jwks.clone().unwrap_or_else(published)).await?
        }
    };
    let claims = if is_batch_token(token) {
        batch_claims(token, &keys, &config.license_issuer)?
    } else {
        jwt_claims(token, &keys)?
    };
    check(&claims, &config.license_issuer, Utc::now().timestamp())?;
    Ok(serde_json::to_string_pretty(&claims)?)
}

fn keys_of_file(file: &std::path::Path) -> anyhow::Result<Vec<Known>> {
    const END: &str = "-----END PUBLIC KEY-----";
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let blocks = text.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END));
    let keys = blocks.map(|pem| {
        let key = PublicKey::from_pem(pem)?;
        let (n, e) = key.components();
        Ok(Known { kid: key.kid.clone(), n: n.to_owned(), e: e.to_owned() })
    });
    let keys = keys.collect::<anyhow::Result<Vec<_>>>().with_context(|| file.display().to_string())?;
    ensure!(!keys.is_empty(), "{}: no public key in PEM", file.display());
    Ok(keys)
}

async fn keys_of_set(url: &str) -> anyhow::Result<Vec<Known>> {
    let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
    let mut answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        ensure!(body.len() <= MAX_SET, "{url}: the answer is longer than {MAX_SET} bytes");
    }
    let set: Value = serde_json::from_slice(&body).with_context(|| format!("{url}: no JWK set"))?;
    let keys = set["keys"].as_array().with_context(|| format!("{url}: no JWK set"))?;
    let text = |key: &Value, name: &str| key[name].as_str().map(str::to_owned);
    let rsa = keys.iter().filter(|key| key["kty"] == "RSA");
    Ok(rsa
        .filter_map(|key| Some(Known { kid: text(key, "kid")?, n: text(key, "n")?, e: text(key, "e")? }))
        .collect())
}

fn find<'a>(keys: &'a [Known], kid: &str) -> anyhow::Result<&'a Known> {
    keys.iter().find(|key| key.kid == kid).ok_or_else(|| anyhow!("no known key is called {kid}"))
}

fn batch_claims(token: &str, keys: &[Known], issuer: &str) -> anyhow::Result<Value> {
    let token: Token = token.parse()?;
    let key = find(keys, &token.kid)?;
    token.verify(issuer, &VerifyingKey::from_components(&key.n, &key.e)?)?;
    let claims: Value = serde_json::from_slice(&token.payload).context("the payload is no JSON")?;
    let issued = claims["iat"].as_u64().context("claim iat is no time")?;
    ensure!(issued <= token.signed_at, "the token was issued after its batch was signed");
    Ok(claims)
}

/// The signature alone: what a token says is judged the same way for both formats.
fn jwt_claims(token: &str, keys: &[Known]) -> anyhow::Result<Value> {
    let header = jsonwebtoken::decode_header(token).context("that is no license token")?;
    ensure!(header.alg == Algorithm::RS256, "a license token is signed with RS256");
    let key = find(keys, header.kid.as_deref().context("the token names no key")?)?;
    VerifyingKey::from_components(&key.n, &key.e)?;
    let mut signature_only = Validation::new(Algorithm::RS256);
    signature_only.required_spec_claims.clear();
    (signature_only.validate_exp, signature_only.validate_aud) = (false, false);
    let key = DecodingKey::from_rsa_components(&key.n, &key.e)?;
    let decoded = jsonwebtoken::decode::<Value>(token, &key, &signature_only);
    Ok(decoded.context("the signature does not verify")?.claims)
}

/// What any license token must say.
fn check(claims: &Value, issuer: &str, now: i64) -> anyhow::Result<()> {
    ensure!(claims["iss"] == issuer, "the issuer is {}, not {issuer}", claims["iss"]);
    ensure!(claims["aud"] == AUDIENCE, "the audience is {}, not {AUDIENCE}", claims["aud"]);
    let time = |name: &str| claims[name].as_i64().with_context(|| format!("claim {name} is no time"));
    let (begins, ends) = (time("nbf")?, time("exp")?);
    if now < begins.saturating_sub(LEEWAY) {
        bail!("the token is not valid yet");
    }
    if now > ends.saturating_add(LEEWAY) {
        bail!("the token has expired");
    }
    Ok(())
}
