//! Heartbeats older than some days leave the database, a day's partition at a time, into Parquet files.
//!
//! The file is written beside, read back and checked against the sealed leaves, and put in place; then one transaction
//! registers it, detaches the partition and drops it. So a crash at any point loses nothing, and the command may be
//! repeated. A partition that is not sealed yet is left alone. Decisions and denials are never archived; the leaf hashes
//! of what was archived stay. Memory holds a page of events and the bounds of the runs of leaves, whatever the day.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use events::Position;
use merkle::Digest;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::canonical::leaf_of;
use crate::export::{EventSink, ParquetEvents, read_parquet};
use crate::personal::Salts;
use crate::stored::{COLUMNS, StoredEvent};
use crate::verify::{Runs, leaves};
use crate::{AuditError, store};

/// Heartbeats of a page.
const PAGE: i64 = 5_000;

/// Longest time that the drop waits for readers and writers of heartbeats, who wait behind it.
const LOCK_TIMEOUT: &str = "500ms";

/// How often the drop is tried.
const ATTEMPTS: u32 = 20;

/// What became of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archived {
    /// It is in this file now, and no longer in the database.
    Moved {
        /// The file.
        file: PathBuf,
        /// Heartbeats in it.
        events: u64,
    },
    /// It stays for now.
    Left {
        /// The partition.
        partition: String,
        /// Why.
        why: String,
    },
}

/// Archives every day that ended more than `older_than_days` days ago. `client` is the owner of the schema.
///
/// # Errors
/// When the database or a file fails; what was done until then stays done.
pub async fn archive(
    client: &mut Client,
    older_than_days: u32,
    folder: &Path,
) -> Result<Vec<Archived>, AuditError> {
    std::fs::create_dir_all(folder).map_err(AuditError::file(folder))?;
    let rows = client
        .query(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
             where i.inhparent = 'public.events_heartbeat'::regclass and c.relname ~ '^events_heartbeat_[0-9]{8}$'
               and to_date(right(c.relname::text, 8), 'YYYYMMDD') < (now() at time zone 'UTC')::date - $1::integer
             order by 1",
            &[&i32::try_from(older_than_days).unwrap_or(i32::MAX)],
        )
        .await?;
    let mut days = Vec::with_capacity(rows.len());
    for row in rows {
        days.push(archive_day(client, row.get(0), folder).await?);
    }
    Ok(days)
}

async fn archive_day(client: &mut Client, partition: &str, folder: &Path) -> Result<Archived, AuditError> {
    let left = |why: String| Archived::Left { partition: partition.to_owned(), why };
    if let Some(why) = not_yet(client, partition).await? {
        return Ok(left(why));
    }
    let checkpoint = client
        .query_opt(&format!("{} order by number desc limit 1", store::CHECKPOINTS), &[])
        .await?
        .map(|row| store::checkpoint_of(&row))
        .transpose()?;
    let file = folder.join(format!("{partition}.parquet"));
    let beside = folder.join(format!("{partition}.parquet.part"));
    let written = write(client, partition, &beside).await?;
    let events = check(client, &beside, &written).await?;
    if let Some(checkpoint) = &checkpoint {
        let beside = folder.join(format!("{partition}.checkpoint.json"));
        let text = serde_json::to_vec(checkpoint).map_err(AuditError::unreadable)?;
        std::fs::write(&beside, text).map_err(AuditError::file(&beside))?;
    }
    std::fs::rename(&beside, &file).map_err(AuditError::file(&file))?;
    let opened = File::open(folder).and_then(|folder| folder.sync_all());
    opened.map_err(AuditError::file(folder))?;
    let sha256 = hash_of(&file)?;
    let number = checkpoint.map(|checkpoint| checkpoint.number as i64);
    for _ in 0..ATTEMPTS {
        if drop_day(client, partition, &written, events, &sha256, number).await? {
            return Ok(Archived::Moved { file, events });
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    Ok(left("its table is in use all the time: the file is written, the next run drops the table".to_owned()))
}

/// Why a partition must stay: the notary still needs its rows. No projection reads heartbeats: how far one has come says
/// nothing.
async fn not_yet(client: &Client, partition: &str) -> Result<Option<String>, AuditError> {
    let row = client
        .query_one(
            &format!(
                "select (select count(*) from {partition} e, notary n where (e.xid, e.position) > (n.xid, n.position)),
                   (select count(*) from trees t where t.sealed_size < t.size
                      and exists (select from {partition} e where e.tenant_id = t.tenant_id))"
            ),
            &[],
        )
        .await?;
    let (unread, unsealed): (i64, i64) = (row.get(0), row.get(1));
    Ok((unread > 0 || unsealed > 0).then(|| "not all of it is sealed yet".to_owned()))
}

/// What was written, by tenant: the leaves that the events are.
type Written = BTreeMap<Uuid, Runs>;

/// Writes a partition's events by tenant and in order, each with its leaf index.
async fn write(client: &Client, partition: &str, file: &Path) -> Result<Written, AuditError> {
    let output = File::create(file).map_err(AuditError::file(file))?;
    let mut sink = ParquetEvents::new(output)?;
    let mut written = Written::new();
    let tenants =
        client.query(&format!("select distinct tenant_id from {partition} order by 1"), &[]).await?;
    let sql = format!(
        "select {COLUMNS} from {partition} e
         where tenant_id = $1 and (xid, position) > ($2::bigint::text::xid8, $3) order by e.xid, e.position limit $4"
    );
    for tenant in &tenants {
        let tenant_id: Uuid = tenant.get(0);
        let mut index: Option<Index> = None;
        let mut after = Position::default();
        let runs = written.entry(tenant_id).or_default();
        loop {
            let rows = client.query(&sql, &[&tenant_id, &after.xid, &after.position, &PAGE]).await?;
            if rows.is_empty() {
                break;
            }
            for (mut event, place) in rows.iter().map(StoredEvent::shown) {
                let index = match &mut index {
                    Some(index) => index,
                    None => index.insert(Index::before(client, tenant_id, place).await?),
                };
                let leaf = index.find(client, event.event_id).await?;
                runs.push(leaf);
                event.index = Some(leaf);
                sink.event(&event)?;
                after = place;
            }
        }
    }
    let output = sink.finish()?;
    output.sync_all().map_err(AuditError::file(file))?;
    Ok(written)
}

/// A tenant's leaf index, read forward.
struct Index {
    tenant_id: Uuid,
    next: u64,
    ahead: std::collections::VecDeque<Uuid>,
}

impl Index {
    /// At the row of leaves that covers a place.
    async fn before(client: &Client, tenant_id: Uuid, place: Position) -> Result<Self, AuditError> {
        let row = client
            .query_opt(
                "select first from leaves where tenant_id = $1 and (xid, position) >= ($2::bigint::text::xid8, $3)
                 order by leaves.xid, leaves.position limit 1",
                &[&tenant_id, &place.xid, &place.position],
            )
            .await?;
        let next = row.map_or(0, |row| store::number(row.get(0)));
        Ok(Self { tenant_id, next, ahead: std::collections::VecDeque::new() })
    }

    /// The leaf of the next event that is asked for.
    async fn find(&mut self, client: &Client, event_id: Uuid) -> Result<u64, AuditError> {
        loop {
            while let Some(id) = self.ahead.pop_front() {
                self.next += 1;
                if id == event_id {
                    return Ok(self.next - 1);
                }
            }
            let row = client
                .query_opt(
                    "select event_ids, hashes from leaves where tenant_id = $1 and first = $2",
                    &[&self.tenant_id, &(self.next as i64)],
                )
                .await?
                .ok_or_else(|| {
                    AuditError::unreadable(format!(
                        "heartbeat {event_id} is not among the sealed leaves: run verify, nothing was archived"
                    ))
                })?;
            self.ahead.extend(leaves(row.get(0), row.get(1)).map(|(id, _)| id));
        }
    }
}

/// A row of leaves: tenant, index of the first, ids and hashes.
type LeafRow = (Uuid, u64, Vec<(Uuid, Digest)>);

/// Reads a file back: each event must give the leaf that was sealed. Answers how many there are.
async fn check(client: &Client, file: &Path, written: &Written) -> Result<u64, AuditError> {
    let opened = File::open(file).map_err(AuditError::file(file))?;
    let mut salts: BTreeMap<Uuid, Salts> = BTreeMap::new();
    for tenant_id in written.keys() {
        let own = salts.entry(*tenant_id).or_default();
        for row in client.query("select subject, salt from salts where tenant_id = $1", &[tenant_id]).await? {
            own.insert(row.get(0), row.get(1));
        }
    }
    let (sender, mut found) = tokio::sync::mpsc::channel::<(Uuid, u64, Digest)>(PAGE as usize);
    let reader = tokio::task::spawn_blocking(move || {
        let nobody = Salts::default();
        read_parquet(opened, |event| {
            let leaf = leaf_of(&event, salts.get(&event.tenant_id).unwrap_or(&nobody))
                .map_err(AuditError::unreadable)?;
            let index =
                event.index.ok_or_else(|| AuditError::unreadable("an archived event without its index"))?;
            // Nobody listens any more when an event before was wrong.
            sender.blocking_send((event.tenant_id, index, leaf)).map_err(AuditError::unreadable)
        })
    });
    let mut count = 0;
    let mut row: Option<LeafRow> = None;
    while let Some((tenant_id, index, leaf)) = found.recv().await {
        let covers =
            |row: &LeafRow| row.0 == tenant_id && (row.1..row.1 + row.2.len() as u64).contains(&index);
        if !row.as_ref().is_some_and(covers) {
            let stored = client
                .query_one(
                    "select first, event_ids, hashes from leaves where tenant_id = $1 and first <= $2
                     order by first desc limit 1",
                    &[&tenant_id, &(index as i64)],
                )
                .await?;
            let all = leaves(stored.get(1), stored.get(2)).collect();
            row = Some((tenant_id, store::number(stored.get(0)), all));
        }
        let sealed = row.as_ref().and_then(|(_, first, all)| all.get(usize::try_from(index - first).ok()?));
        if sealed.is_none_or(|(_, hash)| *hash != leaf) {
            return Err(AuditError::unreadable(format!(
                "leaf {index} of tenant {tenant_id} is not what was sealed: run verify, nothing was archived"
            )));
        }
        count += 1;
    }
    reader.await.map_err(AuditError::unreadable)??;
    let expected: u64 = written.values().map(Runs::len).sum();
    if count != expected {
        return Err(AuditError::unreadable(format!("{count} heartbeats were written, {expected} are there")));
    }
    Ok(expected)
}

fn hash_of(file: &Path) -> Result<Vec<u8>, AuditError> {
    let mut opened = File::open(file).map_err(AuditError::file(file))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = opened.read(&mut buffer).map_err(AuditError::file(file))?;
        if read == 0 {
            return Ok(context.finish().as_ref().to_vec());
        }
        context.update(&buffer[..read]);
    }
}

/// Registers the file and drops the partition, in one transaction; `false`: somebody held the table, or it has grown.
async fn drop_day(
    client: &mut Client,
    partition: &str,
    written: &Written,
    events: u64,
    sha256: &[u8],
    checkpoint: Option<i64>,
) -> Result<bool, AuditError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("set local lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    let detached = transaction
        .batch_execute(&format!("alter table events_heartbeat detach partition {partition}"))
        .await;
    match detached {
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
            return Ok(false);
        }
        other => other?,
    }
    let count = transaction.query_one(&format!("select count(*) from {partition}"), &[]).await?;
    if store::number(count.get(0)) != events {
        return Err(AuditError::unreadable("heartbeats came while the day was archived: run it again"));
    }
    transaction
        .execute(
            "insert into archives (name, sha256, events, checkpoint) values ($1, $2, $3, $4)",
            &[&partition, &sha256, &(events as i64), &checkpoint],
        )
        .await?;
    for (tenant_id, runs) in written {
        transaction
            .execute(
                "insert into archived_leaves (name, tenant_id, events, runs) values ($1, $2, $3, $4)",
                &[&partition, tenant_id, &(runs.len() as i64), &runs.to_bytes()],
            )
            .await?;
    }
    transaction.batch_execute(&format!("drop table {partition}")).await?;
    transaction.commit().await?;
    Ok(true)
}
