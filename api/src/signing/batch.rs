//! Shared signatures: license tokens of one moment are signed together (`docs/token-format.md`).
//!
//! While one signature is being made, requests gather; then they go together. Alone, a request waits for nobody: there
//! is no timer. All tokens of a batch succeed or fail with its one signature.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokens::Batch;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::ring::{Keys, SIGN_TIMEOUT, SignedToken};
use super::{LicenseClaims, Signer, SigningError};

/// Requests that may wait: as many as the edge lets in.
const QUEUE: usize = 4_096;

/// Most tokens under one signature: their paths have ten hashes.
const MAX_BATCH: usize = 1_024;

/// A request that waits for its token.
struct Waiting {
    claims: LicenseClaims,
    reply: oneshot::Sender<Result<SignedToken, SigningError>>,
    /// The request's own span: the one of the signature, which serves several, is linked to it.
    span: tracing::Span,
}

/// Signs tokens in batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Batcher {
    queue: mpsc::Sender<Waiting>,
}

impl Batcher {
    /// Starts the task that signs; it ends with the last clone of this.
    pub(super) fn start(signer: Arc<dyn Signer>, keys: Arc<ArcSwap<Keys>>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(signer, keys, waiting));
        Self { queue }
    }

    /// A token with the key of the moment, and the tokens that others ask for meanwhile.
    pub(super) async fn sign(&self, claims: LicenseClaims) -> Result<SignedToken, SigningError> {
        let (reply, signed) = oneshot::channel();
        let waiting = Waiting { claims, reply, span: tracing::Span::current() };
        self.queue.try_send(waiting).map_err(|_| unavailable("too many tokens wait for a signature"))?;
        let signed = tokio::time::timeout(SIGN_TIMEOUT, signed).await;
        signed.map_err(|_| unavailable("no signature in time"))?.map_err(|_| unavailable("it stops"))?
    }
}

fn unavailable(why: &str) -> SigningError {
    SigningError::Unavailable(why.to_owned())
}

async fn run(signer: Arc<dyn Signer>, keys: Arc<ArcSwap<Keys>>, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some(first) = waiting.recv().await {
        // Requests that one append decided come here at the same instant, each in a task of its own: they all get on.
        tokio::task::yield_now().await;
        let mut group = vec![first];
        while group.len() < MAX_BATCH
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        group.retain(|one| !one.reply.is_closed());
        if group.is_empty() {
            continue;
        }
        let span = tracing::info_span!(parent: &group[0].span, "signature", tokens = group.len());
        group.iter().skip(1).for_each(|one| {
            one.span.follows_from(&span);
        });
        let claims: Vec<_> = group.iter().map(|one| &one.claims).collect();
        match sign(signer.as_ref(), &keys, &claims).instrument(span).await {
            Ok(signed) => group.into_iter().zip(signed).for_each(|(one, signed)| {
                let _ = one.reply.send(Ok(signed));
            }),
            Err(error) => group.into_iter().for_each(|one| {
                let _ = one.reply.send(Err(error.clone()));
            }),
        }
    }
}

/// One signature for all of them, and the token of each, in their order.
async fn sign(
    signer: &dyn Signer,
    keys: &ArcSwap<Keys>,
    claims: &[&LicenseClaims],
) -> Result<Vec<SignedToken>, SigningError> {
    let corrupt = |error: &dyn std::fmt::Display| SigningError::Corrupt(format!("the batch: {error}"));
    let key = keys.load().current()?;
    // A service has one issuer.
    let issuer = claims.first().map_or("", |one| one.iss.as_str());
    let latest = claims.iter().map(|one| one.iat).max().unwrap_or(0);
    let signed_at = u64::try_from(latest).map_err(|error| corrupt(&error))?;
    let payloads = claims.iter().map(serde_json::to_vec).collect::<Result<_, _>>();
    let payloads = payloads.map_err(|error| corrupt(&error))?;
    let batch = Batch::new(issuer, &key.kid, signed_at, payloads).map_err(|error| corrupt(&error))?;
    let begun = Instant::now();
    let signature = tokio::time::timeout(SIGN_TIMEOUT, signer.sign(&key.kid, batch.statement()))
        .await
        .unwrap_or_else(|_| Err(unavailable("no signature in time")))?;
    super::ring::measure(signer, begun, claims.len());
    let tokens = batch.tokens(&signature).map_err(|error| corrupt(&error))?;
    let signed = tokens.into_iter().zip(claims).map(|(token, claims)| SignedToken {
        token,
        public_key: key.pem.clone(),
        expires_at: claims.exp,
    });
    Ok(signed.collect())
}
