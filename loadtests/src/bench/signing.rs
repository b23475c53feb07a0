//! What this machine's cores can sign when they do nothing else: the ceiling of one signature per acquire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use serde::Serialize;

use crate::keys;
use crate::tally::median;

/// About the length of a license token's signing input.
const MESSAGE_BYTES: usize = 900;

/// RSA-4096 PKCS#1 SHA-256 with aws-lc-rs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Signing {
    /// All cores at once.
    pub per_second: f64,
    /// One signature while one core works and the others rest.
    pub alone_p50_ms: f64,
}

/// Keeps every core busy for `length`, then one of them for a third of it.
pub async fn measure(length: Duration) -> Result<Signing> {
    let key = Arc::new(keys::generate(KeySize::Rsa4096)?);
    let cores = std::thread::available_parallelism()?.get();
    let signers: Vec<_> = (0..cores)
        .map(|_| {
            let key = key.clone();
            tokio::task::spawn_blocking(move || sign_for(&key, length))
        })
        .collect();
    let mut per_second = 0.0;
    for signer in signers {
        let times = signer.await??;
        per_second += times.len() as f64 / times.iter().sum::<f64>() * 1_000.0;
    }
    let alone = tokio::task::spawn_blocking(move || sign_for(&key, length / 3)).await??;
    Ok(Signing { per_second, alone_p50_ms: median(alone) })
}

/// The milliseconds that each signature took.
fn sign_for(key: &KeyPair, length: Duration) -> Result<Vec<f64>> {
    let message = [b'x'; MESSAGE_BYTES];
    let mut signature = vec![0; key.public_modulus_len()];
    let mut times = Vec::new();
    let end = Instant::now() + length;
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(times);
        }
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
            .map_err(|_| anyhow!("the RSA key does not sign"))?;
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
}
