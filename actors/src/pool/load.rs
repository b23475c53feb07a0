//! A pool's state out of the log: loaded whole, or caught up with what it has not seen.

use std::time::Instant;

use events::{EventLog, LicenseId, LogError, Snapshot, TenantId};

use super::state::{PoolState, SNAPSHOT_FORMAT};
use crate::writer::Writer;

/// A pool, and where its loading began.
pub struct Loaded {
    /// The pool as it is now.
    pub state: PoolState,
    /// Of the snapshot that was found; 0 without one.
    pub snapshot_version: i64,
}

/// Decisions that are folded rather than looked for the live sessions: some 100 ms of them.
const FOLDED_AT_MOST: i64 = 10_000;

/// The pool from its snapshot, the decisions since, and the deadlines of the seats table. A long log without a snapshot is
/// not folded from its beginning: the pool as it was at its latest decision is found walking back, as an auditor's replay
/// does, so that its first client need not wait for its history; where the walk gives up, it is folded after all.
///
/// # Errors
/// When the database cannot be asked, or an event cannot be read. `Ok(None)`: there is no such pool.
pub async fn load(
    log: &EventLog,
    writer: &Writer,
    license_id: LicenseId,
) -> Result<Option<Loaded>, LogError> {
    let Some(tenant_id) = log.tenant_of(license_id.0).await? else { return Ok(None) };
    let snapshot = start(log.snapshot(license_id.0).await?, license_id, tenant_id);
    let snapshot_version = snapshot.version;
    let mut state = match log.stream_head(license_id.0).await? {
        Some(head) if snapshot_version == 0 && head.version > FOLDED_AT_MOST => {
            let found = log.walk_to(license_id, head.version).await?;
            found.map_or(snapshot, |pool| PoolState::found(pool, tenant_id))
        }
        _ => snapshot,
    };
    catch_up(log, writer, &mut state).await?;
    for seat in log.seats(license_id).await? {
        state.extend(seat.session_id, seat.deadline);
    }
    Ok(Some(Loaded { state, snapshot_version }))
}

fn start(snapshot: Option<Snapshot>, license_id: LicenseId, tenant_id: TenantId) -> PoolState {
    let thawed = snapshot
        .filter(|snapshot| snapshot.format == SNAPSHOT_FORMAT)
        .and_then(|snapshot| PoolState::thaw(license_id, tenant_id, snapshot.version, snapshot.state).ok());
    thawed.unwrap_or_else(|| PoolState::new(license_id, tenant_id))
}

/// Folds the decisions that the state has not seen, and reads whether the tenant is active. Answers how many.
///
/// # Errors
/// When the database cannot be asked, or an event cannot be read.
pub async fn catch_up(log: &EventLog, writer: &Writer, state: &mut PoolState) -> Result<usize, LogError> {
    let asked = Instant::now();
    if let Some(head) = log.stream_head(state.license_id.0).await? {
        writer.observe(asked, head.now);
        state.tenant_active = head.tenant_active;
        if head.version == state.version {
            return Ok(0);
        }
    }
    let mut folded = 0;
    loop {
        let page = log.decisions_after(state.license_id.0, state.version).await?;
        if page.is_empty() {
            return Ok(folded);
        }
        folded += page.len();
        for recorded in &page {
            state.apply(&recorded.subject, &recorded.event, recorded.occurred_at);
        }
    }
}

/// Keeps the state as a snapshot: loading starts from there.
///
/// # Errors
/// When the database cannot be asked.
pub async fn save(log: &EventLog, state: PoolState) -> Result<(), LogError> {
    let license_id = state.license_id;
    let version = state.version;
    let frozen = tokio::task::spawn_blocking(move || state.snapshot())
        .await
        .map_err(|error| LogError::Unavailable(error.to_string()))?
        .map_err(|error| LogError::Rejected(error.to_string()))?;
    log.save_snapshot(license_id.0, &Snapshot { version, format: SNAPSHOT_FORMAT, state: frozen }).await
}
