//! What is asked of the notary: checkpoints, a tenant's head with its path, the proof of an event.

use events::{EventLog, TenantId};
use merkle::{Digest, Node, Span, inclusion_spans, verify_inclusion};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::blind::{Seal, Secret};
use crate::checkpoint::{Checkpoint, TenantCheckpoint, TenantHead};
use crate::export::read_parquet_of;
use crate::notary::STORED_LEVELS;
use crate::personal::Salts;
use crate::store::{self, checkpoint_of, head_of};
use crate::stored::{COLUMNS, StoredEvent};
use crate::verify::Runs;
use crate::{AuditError, Hex, leaf_of};

/// Public checkpoints after a number, at most `limit`.
///
/// # Errors
/// When the database cannot be asked.
pub async fn list_checkpoints(log: &EventLog, after: u64, limit: u32) -> Result<Vec<Checkpoint>, AuditError> {
    let client = log.database().get().await?;
    let sql = format!("{} where number > $1 order by number limit $2", store::CHECKPOINTS);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&after, &i64::from(limit)]).await?;
    rows.iter().map(checkpoint_of).collect()
}

/// The public keys, in PEM, of every key that ever signed a checkpoint, by id: also of those that were retired.
///
/// # Errors
/// When the database cannot be asked.
pub async fn checkpoint_keys(log: &EventLog) -> Result<Vec<(String, String)>, AuditError> {
    let client = log.database().get().await?;
    let rows = client.query("select kid, public_key from checkpoint_keys order by kid", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A tenant's head below a public checkpoint, with its path; the latest without a number. `None`: there is none.
///
/// # Errors
/// When the database cannot be asked.
pub async fn tenant_checkpoint(
    log: &EventLog,
    tenant_id: TenantId,
    number: Option<u64>,
) -> Result<Option<TenantCheckpoint>, AuditError> {
    let client = log.database().get().await?;
    let sql = format!(
        "{} where h.tenant_id = $1 and ($2::bigint is null or number = $2) order by number desc limit 1",
        store::HEADS
    );
    let number = number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let Some(row) = client.query_opt(&sql, &[&tenant_id.0, &number]).await? else { return Ok(None) };
    with_path(log, head_of(&row)?).await.map(Some)
}

/// A tenant's heads after a public checkpoint's number, at most `limit`, each with its path.
///
/// # Errors
/// When the database cannot be asked.
pub async fn list_tenant_checkpoints(
    log: &EventLog,
    tenant_id: TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<TenantCheckpoint>, AuditError> {
    let client = log.database().get().await?;
    let sql = format!("{} where h.tenant_id = $1 and number > $2 order by number limit $3", store::HEADS);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&tenant_id.0, &after, &i64::from(limit)]).await?;
    drop(client);
    let mut own = Vec::with_capacity(rows.len());
    for row in &rows {
        own.push(with_path(log, head_of(row)?).await?);
    }
    Ok(own)
}

async fn with_path(log: &EventLog, head: TenantHead) -> Result<TenantCheckpoint, AuditError> {
    let client = log.database().get().await?;
    let number = head.number as i64;
    let sql = format!("{} where number = $1", store::CHECKPOINTS);
    let row = client.query_one(&client.prepare_cached(&sql).await?, &[&number]).await?;
    let (checkpoint, secret) = (checkpoint_of(&row)?, Secret::new(row.get(6)));
    let sql = format!("{} where number = $1", store::HEADS);
    let rows = client.query(&client.prepare_cached(&sql).await?, &[&number]).await?;
    let blind = |head: &TenantHead| head.blinded(secret.blinding(head.tenant_id));
    let heads = rows.iter().map(|row| blind(&head_of(row)?)).collect::<Result<Vec<_>, _>>()?;
    let path = Seal::new(&secret, &heads)
        .path(&blind(&head)?)
        .ok_or_else(|| AuditError::unreadable("a stored head is not below its checkpoint"))?;
    let blinding = Hex(Digest(secret.blinding(head.tenant_id)));
    Ok(TenantCheckpoint { head, blinding, path, checkpoint })
}

/// That an event is in the log as it stands here: verifiable by itself, with the public key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventProof {
    /// The event as it is stored, with its index in the tenant's tree and the salts of its personal fields.
    pub event: StoredEvent,
    /// The leaf's hash.
    pub leaf: Hex,
    /// Siblings from the leaf to the tenant's root.
    pub path: Vec<Hex>,
    /// The head that the path leads to, with everything that proves it.
    pub checkpoint: TenantCheckpoint,
}

impl EventProof {
    /// Checks everything: the event gives the leaf, the leaf is in the tree, the head below the public checkpoint, and
    /// that one signed by one of the keys. The text says what does not hold.
    ///
    /// # Errors
    /// When something is not of its form.
    pub fn check(&self, keys: &crate::PublicKeys) -> Result<Result<(), String>, AuditError> {
        let salts = Salts::of(&self.event)?;
        let head = &self.checkpoint.head;
        let path: Vec<Digest> = self.path.iter().map(|one| one.0).collect();
        Ok(match leaf_of(&self.event, &salts) {
            Err(missing) => Err(missing.to_string()),
            Ok(leaf) if leaf != self.leaf.0 => Err("the event does not give the leaf's hash".to_owned()),
            _ if self.event.tenant_id != head.tenant_id => {
                Err("event and tree are not of one tenant".to_owned())
            }
            _ => match verify_inclusion(
                &self.leaf.0,
                self.event.index.unwrap_or(u64::MAX),
                head.size,
                &path,
                &head.root.0,
            ) {
                Err(error) => Err(format!("the leaf is not in the tree: {error}")),
                Ok(()) if !self.checkpoint.hangs_together()? => {
                    Err("the tenant's head is not below the public checkpoint".to_owned())
                }
                Ok(()) if !self.checkpoint.checkpoint.is_signed_by(keys)? => {
                    Err("the public checkpoint's signature does not verify".to_owned())
                }
                Ok(()) => Ok(()),
            },
        })
    }
}

/// The proof of an event of a tenant in its latest checkpoint. `None`: there is no such event, or it is not sealed yet.
///
/// # Errors
/// When the database cannot be asked.
pub async fn event_proof(
    log: &EventLog,
    tenant_id: TenantId,
    event_id: Uuid,
) -> Result<Option<EventProof>, AuditError> {
    let Some(checkpoint) = tenant_checkpoint(log, tenant_id, None).await? else { return Ok(None) };
    let client = log.database().get().await?;
    let sql = format!(
        "select {COLUMNS} from events
         where event_id = $1 and class in ('decision', 'denial', 'heartbeat') and tenant_id = $2"
    );
    let Some(row) = client.query_opt(&sql, &[&event_id, &tenant_id.0]).await? else { return Ok(None) };
    let (event, place) = StoredEvent::shown(&row);
    let leaves = client
        .query_opt(
            "select first, event_ids, hashes from leaves
             where tenant_id = $1 and (xid, position) >= ($2::bigint::text::xid8, $3)
             order by leaves.xid, leaves.position limit 1",
            &[&tenant_id.0, &place.xid, &place.position],
        )
        .await?;
    let Some(leaf) = leaves.and_then(|row| leaf_in(&row, event_id)) else { return Ok(None) };
    proof_of(&client, event, leaf, checkpoint).await
}

/// The proof of an archived heartbeat, out of its file in a folder. `None`: there is no such event in a leaf that is
/// archived. Reads the tenant's leaf index from its beginning, and the file.
///
/// # Errors
/// When the database cannot be asked, or the file not be read.
pub async fn archived_proof(
    log: &EventLog,
    tenant_id: TenantId,
    event_id: Uuid,
    folder: &std::path::Path,
) -> Result<Option<EventProof>, AuditError> {
    let Some(checkpoint) = tenant_checkpoint(log, tenant_id, None).await? else { return Ok(None) };
    let client = log.database().get().await?;
    let rows = client
        .query(
            "select first, event_ids, hashes from leaves where tenant_id = $1 and position($2::bytea in event_ids) > 0",
            &[&tenant_id.0, &event_id.as_bytes().as_slice()],
        )
        .await?;
    let Some(leaf) = rows.iter().find_map(|row| leaf_in(row, event_id)) else { return Ok(None) };
    let archives =
        client.query("select name, runs from archived_leaves where tenant_id = $1", &[&tenant_id.0]).await?;
    let archive = archives.iter().find(|row| Runs::from_bytes(row.get(1)).contains(leaf.0));
    let Some(name) = archive.map(|row| row.get::<_, &str>(0)) else { return Ok(None) };
    let file = folder.join(format!("{name}.parquet"));
    let event = tokio::task::spawn_blocking(move || {
        let opened = std::fs::File::open(&file).map_err(AuditError::file(&file))?;
        let mut found = None;
        read_parquet_of(opened, tenant_id.0, |event| {
            if event.event_id == event_id {
                found = Some(event);
            }
            Ok(())
        })?;
        found.ok_or_else(|| {
            AuditError::unreadable(format!("{} does not have event {event_id}: run verify", file.display()))
        })
    });
    let event = event.await.map_err(AuditError::unreadable)??;
    proof_of(&client, event, leaf, checkpoint).await
}

/// The path of a leaf to the root of a head, and what its event is shown with.
async fn proof_of(
    client: &deadpool_postgres::Object,
    mut event: StoredEvent,
    (index, leaf): (u64, Digest),
    checkpoint: TenantCheckpoint,
) -> Result<Option<EventProof>, AuditError> {
    let tenant_id = TenantId(event.tenant_id);
    let Some(spans) = inclusion_spans(index, checkpoint.head.size) else { return Ok(None) };
    let mut path = Vec::with_capacity(spans.len());
    for span in spans {
        path.push(Hex(span_root(client, tenant_id, span).await?));
    }
    let subjects: Vec<&str> = crate::personal::subjects(&event).collect();
    let rows = client
        .query(
            "select subject, salt from salts where tenant_id = $1 and subject = any ($2)",
            &[&tenant_id.0, &subjects],
        )
        .await?;
    event.salts = rows.iter().map(|row| (row.get(0), crate::personal::salt_text(row.get(1)))).collect();
    event.index = Some(index);
    Ok(Some(EventProof { event, leaf: Hex(leaf), path, checkpoint }))
}

/// Index and hash of an event's leaf in a row of the leaf index.
fn leaf_in(row: &Row, event_id: Uuid) -> Option<(u64, Digest)> {
    let first = store::number(row.get(0));
    let mut leaves = (first..).zip(crate::verify::leaves(row.get(1), row.get(2)));
    leaves.find(|(_, (id, _))| *id == event_id).map(|(index, (_, hash))| (index, hash))
}

/// The root over a span, from stored subtrees and leaves.
async fn span_root(
    client: &deadpool_postgres::Object,
    tenant_id: TenantId,
    span: Span,
) -> Result<Digest, AuditError> {
    let mut roots = Vec::new();
    for node in span.nodes() {
        roots.push(node_root(client, tenant_id, node).await?);
    }
    Span::root(&roots).ok_or_else(|| AuditError::unreadable("an empty part of a tree"))
}

/// The root of a complete subtree: from the stored level below it, at most 256 hashes.
async fn node_root(
    client: &deadpool_postgres::Object,
    tenant_id: TenantId,
    node: Node,
) -> Result<Digest, AuditError> {
    let stored = node.level - node.level % STORED_LEVELS;
    let (first, count) = (node.index << (node.level - stored), 1_u64 << (node.level - stored));
    let hashes: Vec<Digest> = if stored == 0 {
        let rows = client
            .query(
                "select first, hashes from leaves where tenant_id = $1 and first < $3
                   and first >= (select coalesce(max(first), 0) from leaves where tenant_id = $1 and first <= $2)
                 order by first",
                &[&tenant_id.0, &(first as i64), &((first + count) as i64)],
            )
            .await?;
        let all = rows.iter().flat_map(|row| {
            let start = store::number(row.get(0));
            (start..).zip(row.get::<_, &[u8]>(1).chunks_exact(32))
        });
        all.filter(|(n, _)| (first..first + count).contains(n))
            .filter_map(|(_, hash)| Digest::try_from(hash).ok())
            .collect()
    } else {
        let rows = client
            .query(
                "select hash from tree_nodes where tenant_id = $1 and level = $2 and index >= $3 and index < $4 order by index",
                &[&tenant_id.0, &i16::from(stored), &(first as i64), &((first + count) as i64)],
            )
            .await?;
        rows.iter().filter_map(|row| Digest::try_from(row.get::<_, &[u8]>(0)).ok()).collect()
    };
    if hashes.len() as u64 != count {
        return Err(AuditError::unreadable("a part of the tree is not stored"));
    }
    Ok(merkle::Tree::new(hashes).root())
}
