//! One checkpoint over every tenant whose tree grew. The signature is made before the transaction.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::EventLog;
use merkle::Frontier;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::blind::{Seal, Secret, WIDTH};
use crate::checkpoint::{Checkpoint, NotarySigner, TenantHead};
use crate::store::{self, checkpoint_of};
use crate::stored::time;
use crate::{AuditError, Hex};

/// Makes the next checkpoint; `None`: no tree grew, or another replica was faster.
pub(super) async fn seal(
    log: &EventLog,
    signer: &dyn NotarySigner,
    me: Uuid,
) -> Result<Option<u64>, AuditError> {
    let mut client = log.database().get().await?;
    let grown = client
        .query(
            "select tenant_id, size, frontier, sealed_hash from trees where sealed_size < size
             order by tenant_id limit $1",
            &[&(WIDTH as i64)],
        )
        .await?;
    if grown.is_empty() {
        return Ok(None);
    }
    let last = client.query_opt(&format!("{} order by number desc limit 1", store::CHECKPOINTS), &[]).await?;
    let last = last.as_ref().map(checkpoint_of).transpose()?;
    let now: chrono::DateTime<chrono::Utc> =
        client.query_one("select date_trunc('milliseconds', clock_timestamp())", &[]).await?.get(0);

    let number = last.as_ref().map_or(0, |last| last.number) + 1;
    let heads = grown.iter().map(|row| head(row, number, &time(now))).collect::<Result<Vec<_>, _>>()?;
    let mut secret_bytes = [0; 32];
    rand::fill(&mut secret_bytes).map_err(|_| AuditError::unreadable("the system has no randomness"))?;
    let secret = Secret::new(&secret_bytes);
    let blinded = heads
        .iter()
        .map(|head| head.blinded(secret.blinding(head.tenant_id)))
        .collect::<Result<Vec<_>, _>>()?;
    let key = signer.current().map_err(AuditError::Signer)?;
    let mut checkpoint = Checkpoint {
        number,
        previous: last.as_ref().map(Checkpoint::hash).transpose()?,
        root: Hex(Seal::new(&secret, &blinded).root()),
        sealed_at: time(now),
        kid: key.kid.clone(),
        signature: String::new(),
    };
    let signature = signer.sign(&checkpoint.kid, &checkpoint.message()?).await.map_err(AuditError::Signer)?;
    checkpoint.signature = URL_SAFE_NO_PAD.encode(signature);

    let transaction = client.transaction().await?;
    let mine = transaction.query_opt("select from notary where holder = $1 for update", &[&me]).await?;
    let newer = transaction.query_one("select coalesce(max(number), 0) from checkpoints", &[]).await?;
    if mine.is_none() || newer.get::<_, i64>(0) + 1 != number as i64 {
        return Ok(None);
    }
    store::insert_key(&transaction, &key).await?;
    store::insert_checkpoint(&transaction, &checkpoint, now, &secret_bytes).await?;
    store::insert_heads(&transaction, &heads).await?;
    transaction.execute("update notary set sealed_at = $1", &[&now]).await?;
    transaction.commit().await?;
    metrics::counter!("license_notary_tenants_sealed_total").increment(heads.len() as u64);
    Ok(Some(number))
}

/// The head of a row of `trees` below the checkpoint to come.
fn head(row: &Row, number: u64, sealed_at: &str) -> Result<TenantHead, AuditError> {
    let size = u64::try_from(row.get::<_, i64>(1)).unwrap_or_default();
    let tree = Frontier::from_bytes(size, row.get(2)).map_err(AuditError::unreadable)?;
    Ok(TenantHead {
        tenant_id: row.get(0),
        size,
        root: Hex(tree.root()),
        previous: store::hash(row.get(3))?,
        number,
        sealed_at: sealed_at.to_owned(),
    })
}
