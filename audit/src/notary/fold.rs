//! The next page of the log becomes leaves, in one transaction with how far it was read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use events::{EventLog, LogError, Position};
use merkle::{Digest, Frontier, Node};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::AuditError;
use crate::canonical::leaf_of;
use crate::personal::{SALT, Salts, subjects};
use crate::stored::{COLUMNS, StoredEvent};

/// Events of one transaction.
const PAGE: i64 = 5_000;

/// Events that are read, or hashed, before others on the same thread have their turn: some 2 ms of work.
const TURN: usize = 256;

/// Levels of subtrees whose roots are stored: every eighth.
pub(crate) const STORED_LEVELS: u8 = 8;

/// One tenant's part of a page.
#[derive(Default)]
struct Part {
    events: Vec<(StoredEvent, Position)>,
}

/// An instant, and the first transaction that had not begun then: once all before it have ended and are read, so is
/// everything that happened before the instant.
pub(super) type Instant = (DateTime<Utc>, i64);

/// Reads a page; `false`: that was the end of the log for now. `asked` is kept from call to call: a transaction that has
/// been open since before it holds back those that came after it, however short the page.
pub(super) async fn page(
    log: &EventLog,
    me: Uuid,
    asked: &Mutex<Option<Instant>>,
) -> Result<bool, AuditError> {
    let mut client = log.database().get().await?;
    let state = client
        .query_one(
            "select xid::text::bigint, position, now(), pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
               pg_snapshot_xmin(pg_current_snapshot())::text::bigint from notary",
            &[],
        )
        .await?;
    let after = Position { xid: state.get(0), position: state.get(1) };
    let (now, oldest): (Instant, i64) = ((state.get(2), state.get(3)), state.get(4));
    let sql = format!(
        "select {COLUMNS} from events
         where (xid, position) > ($1::bigint::text::xid8, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())
         order by events.xid, events.position limit $3"
    );
    let rows = crate::page::page(&mut client, &sql, &[&after.xid, &after.position, &PAGE]).await?;
    let at_end = (rows.len() as i64) < PAGE;

    let mut parts: BTreeMap<Uuid, Part> = BTreeMap::new();
    let mut last = after;
    for turn in rows.chunks(TURN) {
        for (event, position) in turn.iter().map(StoredEvent::of_row) {
            last = position;
            parts.entry(event.tenant_id).or_default().events.push((event, position));
        }
        tokio::task::yield_now().await;
    }
    let transaction = client.transaction().await?;
    // Recomputed from the log if a crash loses it; a seal, which comes after, waits for the disk for all of it.
    transaction.batch_execute("set local synchronous_commit = off").await?;
    // The lease may have gone to another replica, which has read on meanwhile.
    let mine = transaction
        .query_opt(
            "select from notary where holder = $1 and xid = $2::bigint::text::xid8 and position = $3 for update",
            &[&me, &after.xid, &after.position],
        )
        .await?;
    if mine.is_none() {
        return Ok(false);
    }
    write(&transaction, &parts).await?;
    let read_at = if at_end { read_up_to(now, oldest, asked) } else { None };
    transaction
        .execute(
            "update notary set xid = $1::bigint::text::xid8, position = $2, read_at = greatest(read_at, $3)",
            &[&last.xid, &last.position, &read_at],
        )
        .await?;
    transaction.commit().await?;
    Ok(!at_end)
}

/// The latest instant known of which all is read, now that everything before the transaction `oldest` is.
fn read_up_to(now: Instant, oldest: i64, asked: &Mutex<Option<Instant>>) -> Option<DateTime<Utc>> {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = |instant: &Instant| instant.1 <= oldest;
    let known = [Some(now), *asked].into_iter().flatten().find(ended);
    // Whoever is asked about stays until its transactions have ended.
    if asked.as_ref().is_none_or(ended) {
        *asked = Some(now);
    }
    known.map(|(at, _)| at)
}

/// Everything that a page adds: salts of new subjects, leaves, completed subtrees, the trees' new edges.
async fn write(transaction: &Transaction<'_>, parts: &BTreeMap<Uuid, Part>) -> Result<(), AuditError> {
    if parts.is_empty() {
        return Ok(());
    }
    let salts = salts_of(transaction, parts).await?;
    let mut trees = trees_of(transaction, parts.keys().copied().collect()).await?;
    let mut leaves = Leaves::default();
    let mut nodes = Nodes::default();
    let nobody = Salts::default();
    let mut hashed = 0;
    for (tenant_id, part) in parts {
        let salts = salts.get(tenant_id).unwrap_or(&nobody);
        let tree = trees.entry(*tenant_id).or_default();
        let first = tree.size();
        let (mut ids, mut hashes) = (Vec::new(), Vec::new());
        for (event, _) in &part.events {
            let leaf = leaf_of(event, salts).map_err(AuditError::unreadable)?;
            ids.extend_from_slice(event.event_id.as_bytes());
            hashes.extend_from_slice(&leaf.0);
            tree.append(leaf, |node, hash| nodes.add(*tenant_id, node, hash));
            hashed += 1;
            if hashed % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        if let Some((_, place)) = part.events.last() {
            leaves.add(*tenant_id, first, *place, ids, hashes);
        }
    }
    leaves.insert(transaction).await?;
    nodes.insert(transaction).await?;
    store_trees(transaction, &trees).await?;
    Ok(())
}

fn fresh_salt() -> Result<[u8; SALT], AuditError> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt).map_err(|_| AuditError::unreadable("the system has no randomness"))?;
    Ok(salt)
}

/// The salts that a page needs; a subject that has none gets one.
async fn salts_of(
    transaction: &Transaction<'_>,
    parts: &BTreeMap<Uuid, Part>,
) -> Result<HashMap<Uuid, Salts>, AuditError> {
    let wanted: BTreeSet<(Uuid, &str)> = parts
        .iter()
        .flat_map(|(tenant, part)| part.events.iter().map(move |(event, _)| (tenant, event)))
        .flat_map(|(tenant, event)| subjects(event).map(move |subject| (*tenant, subject)))
        .collect();
    let (tenants, names): (Vec<Uuid>, Vec<&str>) = wanted.into_iter().unzip();
    let missing = transaction
        .query(
            "select w.n from unnest($1::uuid[], $2::text[]) with ordinality w(tenant_id, subject, n)
             where not exists (select from salts s where s.tenant_id = w.tenant_id and s.subject = w.subject)",
            &[&tenants, &names],
        )
        .await?;
    let pick = |row: &Row| usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
    let new: Vec<usize> = missing.iter().map(pick).filter(|n| *n < names.len()).collect();
    if !new.is_empty() {
        let (tenants, names): (Vec<Uuid>, Vec<&str>) = new.iter().map(|n| (tenants[*n], names[*n])).unzip();
        let fresh = names.iter().map(|_| fresh_salt()).collect::<Result<Vec<_>, _>>()?;
        let salts: Vec<&[u8]> = fresh.iter().map(|salt| salt.as_slice()).collect();
        transaction
            .execute(
                "insert into salts select * from unnest($1::uuid[], $2::text[], $3::bytea[])",
                &[&tenants, &names, &salts],
            )
            .await?;
    }
    let rows = transaction
        .query(
            "select s.tenant_id, s.subject, s.salt from unnest($1::uuid[], $2::text[]) w(tenant_id, subject)
             join salts s using (tenant_id, subject)",
            &[&tenants, &names],
        )
        .await?;
    let mut found: HashMap<Uuid, Salts> = HashMap::new();
    for row in &rows {
        found.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    Ok(found)
}

async fn trees_of(
    transaction: &Transaction<'_>,
    tenants: Vec<Uuid>,
) -> Result<BTreeMap<Uuid, Frontier>, AuditError> {
    let rows = transaction
        .query("select tenant_id, size, frontier from trees where tenant_id = any ($1)", &[&tenants])
        .await?;
    rows.iter()
        .map(|row| {
            let size = u64::try_from(row.get::<_, i64>(1)).unwrap_or_default();
            let tree = Frontier::from_bytes(size, row.get(2)).map_err(AuditError::unreadable)?;
            Ok((row.get(0), tree))
        })
        .collect()
}

async fn store_trees(
    transaction: &Transaction<'_>,
    trees: &BTreeMap<Uuid, Frontier>,
) -> Result<(), LogError> {
    let tenants: Vec<Uuid> = trees.keys().copied().collect();
    let sizes: Vec<i64> = trees.values().map(|tree| tree.size() as i64).collect();
    let edges: Vec<Vec<u8>> = trees.values().map(Frontier::to_bytes).collect();
    transaction
        .execute(
            "insert into trees (tenant_id, size, frontier) select * from unnest($1::uuid[], $2::bigint[], $3::bytea[])
             on conflict (tenant_id) do update set size = excluded.size, frontier = excluded.frontier",
            &[&tenants, &sizes, &edges],
        )
        .await?;
    Ok(())
}

/// Rows of `leaves`, by column.
#[derive(Default)]
struct Leaves {
    tenants: Vec<Uuid>,
    firsts: Vec<i64>,
    xids: Vec<i64>,
    positions: Vec<i64>,
    ids: Vec<Vec<u8>>,
    hashes: Vec<Vec<u8>>,
}

impl Leaves {
    fn add(&mut self, tenant_id: Uuid, first: u64, place: Position, ids: Vec<u8>, hashes: Vec<u8>) {
        self.tenants.push(tenant_id);
        self.firsts.push(first as i64);
        self.xids.push(place.xid);
        self.positions.push(place.position);
        self.ids.push(ids);
        self.hashes.push(hashes);
    }

    async fn insert(&self, transaction: &Transaction<'_>) -> Result<(), LogError> {
        transaction
            .execute(
                "insert into leaves (tenant_id, first, xid, position, event_ids, hashes)
                 select t, f, x::text::xid8, p, i, h
                 from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[])
                   r(t, f, x, p, i, h)",
                &[&self.tenants, &self.firsts, &self.xids, &self.positions, &self.ids, &self.hashes],
            )
            .await?;
        Ok(())
    }
}

/// Rows of `tree_nodes`, by column.
#[derive(Default)]
struct Nodes {
    tenants: Vec<Uuid>,
    levels: Vec<i16>,
    indexes: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

impl Nodes {
    fn add(&mut self, tenant_id: Uuid, node: Node, hash: Digest) {
        if node.level > 0 && node.level.is_multiple_of(STORED_LEVELS) {
            self.tenants.push(tenant_id);
            self.levels.push(node.level.into());
            self.indexes.push(node.index as i64);
            self.hashes.push(hash.0.to_vec());
        }
    }

    async fn insert(&self, transaction: &Transaction<'_>) -> Result<(), LogError> {
        if !self.tenants.is_empty() {
            transaction
                .execute(
                    "insert into tree_nodes select * from unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[])",
                    &[&self.tenants, &self.levels, &self.indexes, &self.hashes],
                )
                .await?;
        }
        Ok(())
    }
}
