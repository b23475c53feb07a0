//! A tenant's events and checkpoints for files: in pages, so that memory stays bounded however long the log is.

mod csv;
mod parquet;

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::{EventLog, Position, TenantId};

use crate::page::page;
use crate::personal::{salt_text, subjects};
use crate::read::{list_checkpoints, list_tenant_checkpoints};
use crate::stored::{COLUMNS, StoredEvent};
use crate::verify::{ArchivedLine, LeafLine, Runs};
use crate::{AuditError, store};

pub use csv::CsvEvents;
pub use parquet::ParquetEvents;
pub(crate) use parquet::{read_parquet, read_parquet_of};

/// Events of a page.
const PAGE: i64 = 5_000;

/// Checkpoints of a page.
const CHECKPOINTS: u32 = 500;

/// Takes events one by one, in order.
pub trait EventSink: Send {
    /// The next event.
    ///
    /// # Errors
    /// When it cannot be written.
    fn event(&mut self, event: &StoredEvent) -> Result<(), AuditError>;
}

/// Hands a tenant's events to a sink, oldest first, with leaf index and salts; answers how many there were.
///
/// # Errors
/// When the log cannot be read or the sink fails.
pub async fn export_events(
    log: &EventLog,
    tenant_id: TenantId,
    sink: &mut dyn EventSink,
) -> Result<u64, AuditError> {
    let mut client = log.database().get().await?;
    let sealed = client
        .query_one(
            "select coalesce((select sealed_size from trees where tenant_id = $1), 0)",
            &[&tenant_id.0],
        )
        .await?;
    let sealed = store::number(sealed.get(0));
    let rows = client.query("select runs from archived_leaves where tenant_id = $1", &[&tenant_id.0]).await?;
    let archived = rows.iter().map(|row| Runs::from_bytes(row.get(0))).fold(Runs::default(), Runs::join);
    let sql = format!(
        "select {COLUMNS} from events where tenant_id = $1 and (xid, position) > ($2::bigint::text::xid8, $3)
           and xid < pg_snapshot_xmin(pg_current_snapshot())
         order by events.xid, events.position limit $4"
    );
    let (mut after, mut index, mut count) = (Position::default(), 0, 0);
    loop {
        let rows = page(&mut client, &sql, &[&tenant_id.0, &after.xid, &after.position, &PAGE]).await?;
        if rows.is_empty() {
            return Ok(count);
        }
        let salts = salts_of(&client, tenant_id, &rows).await?;
        for (mut event, place) in rows.iter().map(StoredEvent::shown) {
            after = place;
            while archived.contains(index) {
                index += 1;
            }
            let own = subjects(&event)
                .filter_map(|subject| Some((subject.to_owned(), salts.get(subject)?.clone())))
                .collect();
            event.salts = own;
            event.index = (index < sealed).then_some(index);
            sink.event(&event)?;
            index += 1;
            count += 1;
        }
    }
}

/// The salts of a page's subjects, as text.
async fn salts_of(
    client: &deadpool_postgres::Object,
    tenant_id: TenantId,
    rows: &[tokio_postgres::Row],
) -> Result<BTreeMap<String, String>, AuditError> {
    let events: Vec<StoredEvent> = rows.iter().map(|row| StoredEvent::of_row(row).0).collect();
    let wanted: std::collections::BTreeSet<&str> = events.iter().flat_map(subjects).collect();
    let wanted: Vec<&str> = wanted.into_iter().collect();
    let rows = client
        .query(
            "select subject, salt from salts where tenant_id = $1 and subject = any ($2)",
            &[&tenant_id.0, &wanted],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), salt_text(row.get(1)))).collect())
}

/// Writes events as NDJSON: what `verify --export` reads.
pub struct Ndjson<W>(pub W);

impl<W: Write + Send> EventSink for Ndjson<W> {
    fn event(&mut self, event: &StoredEvent) -> Result<(), AuditError> {
        serde_json::to_writer(&mut self.0, event).map_err(AuditError::unreadable)?;
        self.0.write_all(b"\n").map_err(writing)
    }
}

/// Writes what `verify --checkpoints` reads: the public chain, the tenant's heads, its leaf index.
///
/// # Errors
/// When the log cannot be read or the file not be written.
pub async fn export_checkpoints(
    log: &EventLog,
    tenant_id: TenantId,
    to: &mut (dyn Write + Send),
) -> Result<(), AuditError> {
    let mut after = 0;
    loop {
        let page = list_checkpoints(log, after, CHECKPOINTS).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        page.iter().try_for_each(|one| line(to, one))?;
    }
    let through = after;
    let (mut after, mut size) = (0, 0);
    loop {
        let page = list_tenant_checkpoints(log, tenant_id, after, CHECKPOINTS).await?;
        let page: Vec<_> = page.into_iter().filter(|own| own.head.number <= through).collect();
        let Some(last) = page.last() else { break };
        (after, size) = (last.head.number, last.head.size);
        page.iter().try_for_each(|one| line(to, one))?;
    }
    export_archived(log, tenant_id, to).await?;
    export_leaves(log, tenant_id, size, to).await
}

/// Which leaves are archived, by file.
async fn export_archived(
    log: &EventLog,
    tenant_id: TenantId,
    to: &mut (dyn Write + Send),
) -> Result<(), AuditError> {
    let client = log.database().get().await?;
    let sql = "select name, runs from archived_leaves where tenant_id = $1 order by name";
    for row in client.query(sql, &[&tenant_id.0]).await? {
        line(to, &ArchivedLine { archived: row.get(0), runs: STANDARD.encode(row.get::<_, &[u8]>(1)) })?;
    }
    Ok(())
}

/// The leaf index up to a sealed size.
async fn export_leaves(
    log: &EventLog,
    tenant_id: TenantId,
    size: u64,
    to: &mut (dyn Write + Send),
) -> Result<(), AuditError> {
    let client = log.database().get().await?;
    let mut next = 0_u64;
    while next < size {
        let rows = client
            .query(
                "select event_ids, hashes from leaves where tenant_id = $1 and first >= $2 order by first limit 20",
                &[&tenant_id.0, &(next as i64)],
            )
            .await?;
        if rows.is_empty() {
            return Err(AuditError::unreadable("the leaf index is shorter than what was sealed"));
        }
        for row in &rows {
            let (ids, hashes): (&[u8], &[u8]) = (row.get(0), row.get(1));
            let count = (ids.len() / 16).min(usize::try_from(size - next).unwrap_or(usize::MAX));
            let leaves = LeafLine {
                first: next,
                event_ids: STANDARD.encode(&ids[..count * 16]),
                hashes: STANDARD.encode(hashes.get(..count * 32).unwrap_or_default()),
            };
            if count > 0 {
                line(to, &leaves)?;
            }
            next += count as u64;
        }
    }
    Ok(())
}

fn line(to: &mut (dyn Write + Send), value: &impl serde::Serialize) -> Result<(), AuditError> {
    let mut text = serde_json::to_vec(value).map_err(AuditError::unreadable)?;
    text.push(b'\n');
    to.write_all(&text).map_err(writing)
}

/// An output that failed.
pub(crate) fn writing(source: std::io::Error) -> AuditError {
    AuditError::File { file: "the output".to_owned(), source }
}
