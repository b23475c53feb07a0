//! Checkpoints and heads in Postgres.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use merkle::Digest;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, SigningKey, TenantHead};
use crate::stored::time;
use crate::{AuditError, Hex};

/// What [`checkpoint_of`] reads; a condition and an order follow.
pub(crate) const CHECKPOINTS: &str =
    "select number, previous, root, sealed_at, kid, signature, secret from checkpoints";

/// What [`head_of`] reads; a condition and an order follow.
pub(crate) const HEADS: &str = "select h.tenant_id, h.size, h.root, h.previous, h.number, c.sealed_at
     from tenant_checkpoints h join checkpoints c using (number)";

/// A checkpoint out of a row of [`CHECKPOINTS`].
pub(crate) fn checkpoint_of(row: &Row) -> Result<Checkpoint, AuditError> {
    Ok(Checkpoint {
        number: number(row.get(0)),
        previous: hash(row.get(1))?,
        root: required(row.get(2))?,
        sealed_at: time(row.get(3)),
        kid: row.get(4),
        signature: row.get(5),
    })
}

/// A head out of a row of [`HEADS`].
pub(crate) fn head_of(row: &Row) -> Result<TenantHead, AuditError> {
    Ok(TenantHead {
        tenant_id: row.get(0),
        size: number(row.get(1)),
        root: required(row.get(2))?,
        previous: hash(row.get(3))?,
        number: number(row.get(4)),
        sealed_at: time(row.get(5)),
    })
}

/// Keeps a key that signs, unless it is kept already.
pub(crate) async fn insert_key(transaction: &Transaction<'_>, key: &SigningKey) -> Result<(), AuditError> {
    transaction
        .execute(
            "insert into checkpoint_keys (kid, public_key) values ($1, $2) on conflict do nothing",
            &[&key.kid, &key.public_key],
        )
        .await?;
    Ok(())
}

pub(crate) async fn insert_checkpoint(
    transaction: &Transaction<'_>,
    checkpoint: &Checkpoint,
    sealed_at: DateTime<Utc>,
    secret: &[u8],
) -> Result<(), AuditError> {
    let Checkpoint { number, previous, root, kid, signature, .. } = checkpoint;
    let previous = previous.as_ref().map(|hash| hash.0.0.as_slice());
    transaction
        .execute(
            "insert into checkpoints (number, previous, root, sealed_at, kid, signature, secret)
             values ($1, $2, $3, $4, $5, $6, $7)",
            &[&(*number as i64), &previous, &root.0.0.as_slice(), &sealed_at, kid, signature, &secret],
        )
        .await?;
    Ok(())
}

/// Stores the heads, and notes on each tree that it is sealed so far.
pub(crate) async fn insert_heads(
    transaction: &Transaction<'_>,
    heads: &[TenantHead],
) -> Result<(), AuditError> {
    let tenants: Vec<Uuid> = heads.iter().map(|head| head.tenant_id).collect();
    let numbers: Vec<i64> = heads.iter().map(|head| head.number as i64).collect();
    let sizes: Vec<i64> = heads.iter().map(|head| head.size as i64).collect();
    let roots: Vec<&[u8]> = heads.iter().map(|head| head.root.0.0.as_slice()).collect();
    let previous: Vec<Option<&[u8]>> =
        heads.iter().map(|head| head.previous.as_ref().map(|hash| hash.0.0.as_slice())).collect();
    let hashes =
        heads.iter().map(|head| Ok(head.hash()?.0.0.to_vec())).collect::<Result<Vec<_>, AuditError>>()?;
    transaction
        .execute(
            "insert into tenant_checkpoints (tenant_id, number, size, root, previous)
             select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])",
            &[&tenants, &numbers, &sizes, &roots, &previous],
        )
        .await?;
    transaction
        .execute(
            "update trees t set sealed_size = h.size, sealed_hash = h.hash
             from unnest($1::uuid[], $2::bigint[], $3::bytea[]) h(tenant_id, size, hash)
             where t.tenant_id = h.tenant_id",
            &[&tenants, &sizes, &hashes],
        )
        .await?;
    Ok(())
}

/// A number that is not negative in the schema.
pub(crate) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

pub(crate) fn hash(stored: Option<&[u8]>) -> Result<Option<Hex>, AuditError> {
    stored.map(required).transpose()
}

pub(crate) fn required(stored: &[u8]) -> Result<Hex, AuditError> {
    Digest::try_from(stored).map(Hex).map_err(AuditError::unreadable)
}
