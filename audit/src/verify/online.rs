//! A whole log in its database.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadpool_postgres::Object;
use events::{EventLog, Position};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::archives::Archives;
use super::chain::{Chain, Heads, about, against_kept, signatures};
use super::files::{Kept, leaves};
use super::merge::{Merge, Parting, Runs, Sealed, hash_all};
use super::places::check_places;
use super::state::check_state;
use super::{Finding, Report, Wrong};
use crate::AuditError;
use crate::blind::{Seal, Secret};
use crate::keys::PublicKeys;
use crate::page::page;
use crate::personal::Salts;
use crate::store::{self, checkpoint_of, head_of};
use crate::stored::{COLUMNS, StoredEvent};

/// Events of a page.
const PAGE: i64 = 10_000;

/// Checkpoints of a page.
const CHECKPOINTS: i64 = 1_000;

/// What to verify, and against what.
#[derive(Debug, Clone, Default)]
pub struct OnlineOptions {
    /// Only this tenant's events; the chain is checked in any case.
    pub tenant: Option<Uuid>,
    /// Keys from elsewhere; without any those of the same database are used, and the report says so.
    pub keys: Option<PublicKeys>,
    /// Checkpoints that somebody kept.
    pub kept: Vec<Kept>,
    /// Where archived heartbeats are.
    pub archives: Option<std::path::PathBuf>,
}

/// Verifies the log of a database.
///
/// # Errors
/// When it cannot be read. What is wrong with it is in the report.
pub async fn verify_database(log: &EventLog, options: &OnlineOptions) -> Result<Report, AuditError> {
    let mut report = Report::default();
    let keys = match &options.keys {
        Some(keys) => keys.clone(),
        None => {
            report.notes.push(
                "the public keys were read from the same database: give --public-key to trust nothing in it"
                    .to_owned(),
            );
            keys_of(log).await?
        }
    };
    if options.kept.is_empty() {
        report.notes.push(
            "no kept checkpoint was given (--kept): a chain that was rewound as a whole looks shorter, not wrong"
                .to_owned(),
        );
    }
    let mut known = BTreeMap::new();
    check_chain(log, options, &keys, &mut known, &mut report).await?;
    report.findings.extend(check_places(log, options.tenant).await?);
    for (tenant_id, heads) in tenants(log, options, known).await? {
        let finding = check_tenant(log, tenant_id, heads, options, &mut report).await?;
        report.tenants += 1;
        report.findings.extend(finding);
    }
    Ok(report)
}

async fn keys_of(log: &EventLog) -> Result<PublicKeys, AuditError> {
    let client = log.database().get().await?;
    let mut keys = PublicKeys::default();
    for row in client.query("select public_key from checkpoint_keys", &[]).await? {
        keys.extend(PublicKeys::parse(row.get(0))?);
    }
    Ok(keys)
}

/// The heads of the tenants to check: all that were ever sealed, and all that have a stream.
async fn tenants(
    log: &EventLog,
    options: &OnlineOptions,
    mut known: BTreeMap<Uuid, TenantHeads>,
) -> Result<BTreeMap<Uuid, TenantHeads>, AuditError> {
    let client = log.database().get().await?;
    let rows = client.query("select tenant_id from streams union select tenant_id from trees", &[]).await?;
    for row in &rows {
        known.entry(row.get(0)).or_default();
    }
    known.retain(|tenant, _| options.tenant.is_none_or(|only| only == *tenant));
    Ok(known)
}

/// What the chain says about one tenant.
#[derive(Default)]
struct TenantHeads {
    chain: Heads,
    sealed: Vec<Sealed>,
    finding: Option<Finding>,
}

/// The public chain, the heads below each checkpoint, and the heads' own chains.
async fn check_chain(
    log: &EventLog,
    options: &OnlineOptions,
    keys: &PublicKeys,
    known: &mut BTreeMap<Uuid, TenantHeads>,
    report: &mut Report,
) -> Result<(), AuditError> {
    let client = log.database().get().await?;
    let mut chain = Chain::new(keys, &options.kept);
    loop {
        let sql = format!("{} where number > $1 order by number limit $2", store::CHECKPOINTS);
        let rows = client.query(&sql, &[&(chain.count as i64), &CHECKPOINTS]).await?;
        let Some(last) = rows.last() else { break };
        let through: i64 = last.get(0);
        let sql = format!("{} where number > $1 and number <= $2 order by number", store::HEADS);
        let heads = client.query(&sql, &[&(chain.count as i64), &through]).await?;
        let mut heads = heads.iter().map(head_of).collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
        let page = rows.iter().map(checkpoint_of).collect::<Result<Vec<_>, _>>()?;
        let signed = signatures(&page, keys)?;
        for ((row, checkpoint), signed) in rows.iter().zip(&page).zip(signed) {
            let secret = Secret::new(row.get(6));
            let mut blinded = Vec::new();
            while let Some(head) = heads.next_if(|head| head.number == checkpoint.number) {
                blinded.push(head.blinded(secret.blinding(head.tenant_id))?);
                let tenant = known.entry(head.tenant_id).or_default();
                let wrong = tenant.chain.next(&head)?;
                tenant.finding =
                    tenant.finding.take().or(wrong).or_else(|| against_kept(&options.kept, &head));
                tenant.sealed.push(Sealed { size: head.size, root: head.root.0, number: head.number });
            }
            let mut wrong = chain.next(checkpoint, signed)?;
            if wrong.is_none() && Seal::new(&secret, &blinded).root() != checkpoint.root.0 {
                let detail = "the heads below it do not give its root: one was changed, added or removed";
                wrong = Some(about(Wrong::CheckpointChanged, checkpoint.number, detail.to_owned()));
            }
            if wrong.is_some() {
                report.findings.extend(wrong);
                report.checkpoints = chain.count;
                return Ok(());
            }
        }
    }
    report.checkpoints = chain.count;
    report.findings.extend(chain.finish()?);
    Ok(())
}

/// One tenant's heads, leaves and events.
async fn check_tenant(
    log: &EventLog,
    tenant_id: Uuid,
    heads: TenantHeads,
    options: &OnlineOptions,
    report: &mut Report,
) -> Result<Option<Finding>, AuditError> {
    let client = log.database().get().await?;
    if heads.finding.is_some() {
        return Ok(heads.finding);
    }
    let last = heads.sealed.last().copied();
    // In one statement: the notary may be sealing.
    let tree = client
        .query_one(
            "select coalesce((select sealed_size from trees where tenant_id = $1), 0),
               coalesce((select size from tenant_checkpoints where tenant_id = $1 order by number desc limit 1), 0)",
            &[&tenant_id],
        )
        .await?;
    let (sealed_size, head_size) = (store::number(tree.get(0)), store::number(tree.get(1)));
    if sealed_size != head_size {
        let detail = format!("the tree was sealed with {sealed_size} events, the last head says {head_size}");
        let number = last.map_or(0, |last| last.number) + 1;
        return Ok(Some(Finding {
            tenant_id: Some(tenant_id),
            ..about(Wrong::CheckpointMissing, number, detail)
        }));
    }
    let salts = Arc::new(salts_of(&client, tenant_id).await?);
    let cursor = client.query_one("select xid::text::bigint, position from notary", &[]).await?;
    let read = Position { xid: cursor.get(0), position: cursor.get(1) };
    let archives = archived(&client, tenant_id, &salts, options).await?;
    let mut merge = Merge::new(tenant_id, heads.sealed, archives);
    let mut source = Source::start(log, tenant_id);
    let mut next_leaf = 0_i64;
    loop {
        if merge.wants_leaves() {
            let rows = client
                .query(
                    "select event_ids, hashes, first from leaves where tenant_id = $1 and first >= $2
                       and (xid, position) <= ($3::bigint::text::xid8, $4) order by first limit 20",
                    &[&tenant_id, &next_leaf, &read.xid, &read.position],
                )
                .await?;
            merge.no_more_leaves = rows.is_empty();
            for row in &rows {
                if row.get::<_, i64>(2) != next_leaf {
                    merge.no_more_leaves = true;
                    break;
                }
                let before = merge.leaves.len();
                merge.leaves.extend(leaves(row.get(0), row.get(1)));
                next_leaf += (merge.leaves.len() - before) as i64;
            }
        }
        if merge.wants_events() {
            match source.next().await? {
                Some(page) => {
                    let salts = salts.clone();
                    // Events beyond what the notary has read are not in the index yet.
                    let known = page.partition_point(|(_, place)| place.is_none_or(|place| place <= read));
                    report.unsealed += (page.len() - known) as u64;
                    let hashed = tokio::task::spawn_blocking(move || {
                        let events: Vec<_> = page.into_iter().take(known).map(|(event, _)| event).collect();
                        hash_all(&events, &salts)
                    });
                    let hashed = hashed.await.map_err(AuditError::unreadable)?;
                    merge.events.extend(hashed);
                }
                None => merge.no_more_events = true,
            }
        }
        merge.advance();
        let waiting = merge.wants_leaves() || merge.wants_events();
        if merge.is_done() || !waiting && (merge.leaves.is_empty() || merge.events.is_empty()) {
            break;
        }
    }
    merge.finish();
    report.events += merge.recomputed;
    report.not_recomputed += merge.skipped;
    report.erased += merge.erased;
    report.unsealed += merge.size().saturating_sub(sealed_size);
    if let Some(finding) = merge.finding.take() {
        return Ok(Some(finding));
    }
    if let Some(parting) = merge.parting.take() {
        return explain(&client, &merge, &parting).await.map(Some);
    }
    if let Some(extra) = merge.events.front() {
        let detail =
            "it was never sealed, and stands before the place up to which the log was sealed".to_owned();
        return Ok(Some(merge.about(Wrong::Inserted, Some(extra.event_id), Some(merge.size()), detail)));
    }
    check_state(&client, tenant_id, report).await
}

async fn explain(client: &Object, merge: &Merge, parting: &Parting) -> Result<Finding, AuditError> {
    let exists = client
        .query_one(
            "select exists (select from events where event_id = $1 and class in ('decision', 'denial', 'heartbeat'))",
            &[&parting.expected],
        )
        .await?;
    let sealed = match &parting.found {
        Some(found) => client
            .query_one(
                "select exists (select from leaves where tenant_id = $1 and position($2::bytea in event_ids) > 0)",
                &[&merge.tenant_id, &found.as_bytes().as_slice()],
            )
            .await?
            .get(0),
        None => false,
    };
    Ok(merge.explain(parting, exists.get(0), sealed))
}

async fn salts_of(client: &Object, tenant_id: Uuid) -> Result<Salts, AuditError> {
    let mut salts = Salts::default();
    for row in client.query("select subject, salt from salts where tenant_id = $1", &[&tenant_id]).await? {
        salts.insert(row.get(0), row.get(1));
    }
    Ok(salts)
}

async fn archived(
    client: &Object,
    tenant_id: Uuid,
    salts: &Arc<Salts>,
    options: &OnlineOptions,
) -> Result<Archives, AuditError> {
    let sql = "select name, runs from archived_leaves where tenant_id = $1 order by name";
    let mut archives = Archives::default();
    for row in client.query(sql, &[&tenant_id]).await? {
        let file =
            options.archives.as_ref().map(|folder| folder.join(format!("{}.parquet", row.get::<_, &str>(0))));
        archives.add(tenant_id, Runs::from_bytes(row.get(1)), salts.clone(), file);
    }
    Ok(archives)
}

/// A page of events with their places; archived ones have none.
type Page = Vec<(StoredEvent, Option<Position>)>;

/// Reads a tenant's events ahead of whoever hashes them.
struct Source {
    pages: mpsc::Receiver<Result<Page, AuditError>>,
}

impl Source {
    fn start(log: &EventLog, tenant_id: Uuid) -> Self {
        let (sender, pages) = mpsc::channel(2);
        let log = log.clone();
        tokio::spawn(async move {
            if let Err(error) = read(&log, tenant_id, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Self { pages }
    }

    async fn next(&mut self) -> Result<Option<Page>, AuditError> {
        self.pages.recv().await.transpose()
    }
}

async fn read(
    log: &EventLog,
    tenant_id: Uuid,
    sender: &mpsc::Sender<Result<Page, AuditError>>,
) -> Result<(), AuditError> {
    let mut client = log.database().get().await?;
    let sql = format!(
        "select {COLUMNS} from events where tenant_id = $1 and (xid, position) > ($2::bigint::text::xid8, $3)
           and xid < pg_snapshot_xmin(pg_current_snapshot())
         order by events.xid, events.position limit $4"
    );
    let mut after = Position::default();
    loop {
        let rows = page(&mut client, &sql, &[&tenant_id, &after.xid, &after.position, &PAGE]).await?;
        let page: Page = rows.iter().map(StoredEvent::of_row).map(|(event, at)| (event, Some(at))).collect();
        let Some((_, Some(last))) = page.last() else { return Ok(()) };
        after = *last;
        if sender.send(Ok(page)).await.is_err() {
            return Ok(());
        }
    }
}
