//! What was true of a pool at an instant, out of its decisions alone.
//!
//! Nothing is folded from the beginning: a pool's times never go back with its versions, so an instant is a version
//! that is found by halving; the terms have an index of their own; and the live sessions are found walking back from
//! that version. Each grant says how many seats were in use after it, so the walk knows when it has met them all. What
//! began long before is looked for where the read model of sessions says, and believed if the log says so too and the number
//! is right. A log whose grants contradict each other is not believed in this: then every session is looked up.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadpool_postgres::Object;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::log::EventLog;
use crate::log::read::settle;
use crate::log::terms::{LicenseRecord, license_at};
use crate::{HardwareId, InvalidValue, LicenseId, LogError, SessionId, TenantId, Time, UserId};

/// A pool as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolAt {
    /// The license.
    pub license_id: LicenseId,
    /// Of the latest decision at that instant.
    pub version: i64,
    /// The license at that version.
    pub license: LicenseRecord,
    /// The live sessions, oldest first.
    pub sessions: Vec<SessionAt>,
}

/// A session that held a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAt {
    /// The session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Its machine.
    pub hardware_id: HardwareId,
    /// When it was granted.
    pub started_at: Time,
}

/// Decisions of one step of the walk: small at first, because most pools are.
const STEPS: (i64, i64) = (500, 20_000);

/// Decisions after which the read model is asked for sessions that began before.
const HINTS_AFTER: i64 = 20_000;

/// Most sessions that it may name.
const MAX_HINTS: usize = 20_000;

/// Decisions after which walking on costs more than looking every session up.
const MAX_WALK: i64 = 400_000;

/// Decisions that are compared at least before the numbers in them are believed.
const MIN_WALK: usize = 200;

impl EventLog {
    /// What Postgres's clock shows.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn clock(&self) -> Result<Time, LogError> {
        let client = self.database.get().await?;
        let statement = client.prepare_cached("select date_trunc('milliseconds', clock_timestamp())").await?;
        Ok(client.query_one(&statement, &[]).await?.get::<_, DateTime<Utc>>(0).into())
    }

    /// Waits for a moment until what was under way when this was called is written: what is read then about an instant
    /// before is read the same ever after.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn settled(&self) -> Result<(), LogError> {
        settle(&self.database.get().await?).await
    }

    /// A tenant's pools as they were at an instant, what happened in its millisecond included; by age. A license that
    /// was not issued yet is not among them.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn pools_at(&self, tenant_id: TenantId, at: Time) -> Result<Vec<PoolAt>, LogError> {
        let mut pools = Vec::new();
        for license_id in self.licenses_of(tenant_id).await? {
            pools.extend(self.pool_at(license_id, at).await?);
        }
        Ok(pools)
    }

    /// One pool as it was; `None` before it was issued.
    ///
    /// # Errors
    /// As there.
    pub async fn pool_at(&self, license_id: LicenseId, at: Time) -> Result<Option<PoolAt>, LogError> {
        let client = self.database.get().await?;
        let version = version_at(&client, license_id, at).await?;
        let Some(license) = license_at(&client, license_id, version).await? else { return Ok(None) };
        let mut sessions = match walk_back(&client, (license.tenant_id, license_id), version).await? {
            Some(found) => found,
            None => look_up(&client, license_id, version).await?,
        };
        sessions.sort_by_key(|session| (session.started_at, session.session_id));
        Ok(Some(PoolAt { license_id, version, license, sessions }))
    }

    /// One pool at a version that it has reached, its sessions in no order; `None` before it was issued, and where a walk
    /// back gives up.
    ///
    /// # Errors
    /// When the database cannot be asked, or an event cannot be read.
    pub async fn walk_to(&self, license_id: LicenseId, version: i64) -> Result<Option<PoolAt>, LogError> {
        let client = self.database.get().await?;
        let Some(license) = license_at(&client, license_id, version).await? else { return Ok(None) };
        let sessions = walk_back(&client, (license.tenant_id, license_id), version).await?;
        Ok(sessions.map(|sessions| PoolAt { license_id, version, license, sessions }))
    }
}

/// The version of the latest decision at an instant; 0 before the first.
async fn version_at(client: &Object, license_id: LicenseId, at: Time) -> Result<i64, LogError> {
    let head = client
        .prepare_cached("select version, occurred_at from events_decision where stream_id = $1 order by version desc limit 1")
        .await?;
    let one = client
        .prepare_cached("select occurred_at from events_decision where stream_id = $1 and version = $2")
        .await?;
    let Some(row) = client.query_opt(&head, &[&license_id.0]).await? else { return Ok(0) };
    let (last, occurred_at): (i64, DateTime<Utc>) = (row.get(0), row.get(1));
    if occurred_at <= at.as_datetime() {
        return Ok(last);
    }
    // The first `low` decisions had occurred, the one at `high` had not.
    let (mut low, mut high) = (0, last);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let row = client.query_one(&one, &[&license_id.0, &middle]).await?;
        if row.get::<_, DateTime<Utc>>(0) <= at.as_datetime() { low = middle } else { high = middle }
    }
    Ok(low)
}

/// Walks back until all live sessions are met. `None`: the numbers in the log contradict each other, or it takes too
/// long.
async fn walk_back(
    client: &Object,
    (tenant_id, license_id): (TenantId, LicenseId),
    version: i64,
) -> Result<Option<Vec<SessionAt>>, LogError> {
    let statement = client.prepare_cached(include_str!("replay_walk.sql")).await?;
    let mut walk = Walk::default();
    let (mut before, mut step) = (version, STEPS.0);
    let mut asked = false;
    while version - before < MAX_WALK {
        let rows = client.query(&statement, &[&license_id.0, &before, &step]).await?;
        for row in &rows {
            match walk.meet(row)? {
                Met::More => {}
                Met::All => return Ok(Some(walk.live)),
                Met::Contradiction => return Ok(None),
            }
        }
        before -= step;
        if before <= 0 {
            return Ok(Some(walk.live));
        }
        step = (step * 2).min(STEPS.1);
        if !asked && version - before >= HINTS_AFTER {
            asked = true;
            let found = hinted(client, (tenant_id, license_id), version, before, &walk).await?;
            if walk.missing() == i64::try_from(found.len()).ok() {
                walk.live.extend(found);
                return Ok(Some(walk.live));
            }
        }
    }
    Ok(None)
}

/// Sessions that began by version `before` and lived at `version`, as far as the read model knows of them.
async fn hinted(
    client: &Object,
    (tenant_id, license_id): (TenantId, LicenseId),
    version: i64,
    before: i64,
    walk: &Walk,
) -> Result<Vec<SessionAt>, LogError> {
    let Some((first, last)) = walk.times else { return Ok(Vec::new()) };
    let hints = client.prepare_cached(include_str!("replay_hints.sql")).await?;
    let most = i64::try_from(MAX_HINTS + 1).unwrap_or(i64::MAX);
    let rows = client.query(&hints, &[&tenant_id.0, &license_id.0, &first, &last, &most]).await?;
    if rows.len() > MAX_HINTS {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let hinted = client.prepare_cached(include_str!("replay_hinted.sql")).await?;
    let rows = client.query(&hinted, &[&ids, &license_id.0, &version, &before]).await?;
    rows.iter().map(session).collect()
}

enum Met {
    More,
    All,
    Contradiction,
}

/// Where a walk back stands.
#[derive(Default)]
struct Walk {
    ended: HashSet<Uuid>,
    live: Vec<SessionAt>,
    /// Seats in use before what was met so far; `None` before the first grant is met.
    in_use: Option<i64>,
    /// Ends met before the first grant.
    ends: i64,
    /// Seats in use where the walk began.
    total: Option<i64>,
    met: usize,
    /// When the first and the last decision that were met occurred.
    times: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Walk {
    fn meet(&mut self, row: &Row) -> Result<Met, LogError> {
        self.met += 1;
        let at = row.get("occurred_at");
        self.times = Some((self.times.map_or(at, |(first, _)| first), at));
        let Some(session_id) = row.get::<_, Option<Uuid>>("session_id") else { return Ok(self.all()) };
        if row.get::<_, &str>("type") != "seat_acquired" {
            self.ended.insert(session_id);
            match &mut self.in_use {
                Some(in_use) => *in_use += 1,
                None => self.ends += 1,
            }
            return Ok(self.all());
        }
        let Some(seats_used) = row.get::<_, Option<i64>>("seats_used") else { return Ok(Met::Contradiction) };
        match self.in_use {
            None => self.total = Some(seats_used - self.ends),
            Some(in_use) if in_use != seats_used => return Ok(Met::Contradiction),
            Some(_) => {}
        }
        self.in_use = Some(seats_used - 1);
        if !self.ended.remove(&session_id) {
            self.live.push(session(row)?);
        }
        Ok(self.all())
    }

    /// Live sessions that were not met yet.
    fn missing(&self) -> Option<i64> {
        Some(self.total? - i64::try_from(self.live.len()).ok()?)
    }

    fn all(&self) -> Met {
        let met = i64::try_from(self.live.len()).unwrap_or(i64::MAX);
        match self.total {
            Some(total) if met > total || total < 0 => Met::Contradiction,
            Some(total) if met == total && self.met >= MIN_WALK => Met::All,
            _ => Met::More,
        }
    }
}

/// Every session that had begun and not ended at a version.
async fn look_up(client: &Object, license_id: LicenseId, version: i64) -> Result<Vec<SessionAt>, LogError> {
    let statement = client.prepare_cached(include_str!("replay_sessions.sql")).await?;
    client.query(&statement, &[&license_id.0, &version]).await?.iter().map(session).collect()
}

fn session(row: &Row) -> Result<SessionAt, LogError> {
    let unreadable = |error: InvalidValue| LogError::Rejected(format!("a stored session: {error}"));
    Ok(SessionAt {
        session_id: SessionId(row.get("session_id")),
        user_id: UserId::new(row.get::<_, &str>("user_id")).map_err(unreadable)?,
        hardware_id: HardwareId::new(row.get::<_, &str>("hardware_id")).map_err(unreadable)?,
        started_at: row.get::<_, DateTime<Utc>>("occurred_at").into(),
    })
}
