//! Usage as it is asked for: one item per bucket, the empty ones included. Only buckets in which something happened are
//! stored and read; the others say what the one before them left.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{LicenseId, LogError, TenantId, Time};
use futures_util::{StreamExt, TryStreamExt};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::tally::floor;
use crate::query::{QueryError, ReadModels};

/// Most buckets of an answer: a leap year of minutes.
const MAX_BUCKETS: i64 = 366 * 24 * 60;

/// Buckets that are read, held and written at a time.
const PART: u32 = 20_000;

/// How long a bucket is. Buckets begin on whole minutes, hours and days of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Bucket {
    Minute,
    Hour,
    Day,
}

impl Bucket {
    /// How long it is.
    #[must_use]
    pub fn seconds(self) -> i32 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// The beginning of the bucket of a time.
    #[must_use]
    pub fn begin(self, time: Time) -> Time {
        at(floor(time.millis(), self.seconds()))
    }
}

impl std::str::FromStr for Bucket {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "minute" => Ok(Self::Minute),
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            _ => Err(QueryError::invalid("bucket", "must be minute, hour or day")),
        }
    }
}

/// What usage is asked for: every bucket that `[from, to)` touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct UsageRange {
    pub bucket: Bucket,
    pub from: Time,
    pub to: Time,
    /// Of one license; `None`: of the tenant as a whole.
    pub license_id: Option<LicenseId>,
}

impl UsageRange {
    /// What one answer may be asked for.
    ///
    /// # Errors
    /// `from` after `to`, or more buckets than a leap year has minutes.
    pub fn bounded(self) -> Result<Self, QueryError> {
        if self.from > self.to {
            return Err(QueryError::invalid("from", "must not be after to"));
        }
        let (from_ms, to_ms) = self.touched();
        if (to_ms - from_ms) / self.length_ms() > MAX_BUCKETS {
            return Err(QueryError::invalid(
                "to",
                format!(
                    "the range has more than {MAX_BUCKETS} buckets: choose a shorter one, or longer buckets"
                ),
            ));
        }
        Ok(self)
    }

    /// All of it, so many buckets at a time, oldest first: whoever reads it part by part holds little, and can write
    /// one while the next is read. What is over does not change, so the parts fit together.
    pub fn parts(self) -> impl Iterator<Item = Self> + Send {
        let part = Duration::from_millis(self.length_ms().unsigned_abs()) * PART;
        let mut next = (self.from < self.to).then(|| self.bucket.begin(self.from));
        std::iter::from_fn(move || {
            let from = next?;
            let to = from.after(part).min(self.to);
            next = (to < self.to).then_some(to);
            Some(Self { from, to, ..self })
        })
    }

    fn length_ms(&self) -> i64 {
        i64::from(self.bucket.seconds()) * 1_000
    }

    /// From the beginning of the first bucket to the end of the last one.
    fn touched(&self) -> (i64, i64) {
        let seconds = self.bucket.seconds();
        (floor(self.from.millis(), seconds), floor(self.to.millis() + self.length_ms() - 1, seconds))
    }
}

/// Usage in one bucket.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the contract's")]
pub struct UsageItem {
    pub from: Time,
    pub to: Time,
    pub license_id: Option<LicenseId>,
    /// The limit in force when the bucket ended, or now; of a tenant, of all its active licenses.
    pub seats_total: i64,
    pub peak: i64,
    /// Of the part of the bucket that has passed.
    pub average: f64,
    pub acquired: i64,
    pub denied: i64,
    pub released: i64,
    pub expired: i64,
    pub revoked: i64,
    pub unique_users: i64,
}

/// An answer: the stored buckets, and what fills the gaps between them.
#[derive(Debug, Clone)]
pub struct Usage {
    license_id: Option<LicenseId>,
    length_ms: i64,
    from_ms: i64,
    to_ms: i64,
    now_ms: i64,
    /// Seats held and users who hold them when the range begins.
    before: (i32, i32),
    stored: Vec<Stored>,
    limits: Vec<Limit>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    bucket: i64,
    used_after: i32,
    users_after: i32,
    peak: i32,
    seat_ms: i64,
    counts: [i32; 5],
    unique_users: i32,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    since_ms: i64,
    license_id: Uuid,
    seats_total: i64,
    active: bool,
}

impl ReadModels {
    /// A tenant's usage, or one license's, as of where the projections stand: see [`Self::settled`]. A long range is
    /// read in [`UsageRange::parts`].
    ///
    /// # Errors
    /// The database.
    pub async fn usage(&self, tenant_id: TenantId, range: &UsageRange) -> Result<Usage, QueryError> {
        let (from_ms, to_ms) = range.touched();
        let mut usage = Usage {
            license_id: range.license_id,
            length_ms: range.length_ms(),
            from_ms,
            to_ms,
            now_ms: 0,
            before: (0, 0),
            stored: Vec::new(),
            limits: Vec::new(),
        };
        usage.read(self, tenant_id, range).await?;
        Ok(usage)
    }
}

impl Usage {
    /// All of it from one snapshot.
    async fn read(
        &mut self,
        from: &ReadModels,
        tenant_id: TenantId,
        range: &UsageRange,
    ) -> Result<(), QueryError> {
        let scope = range.license_id.map_or(tenant_id.0, |id| id.0);
        let mut client = from.log.database().get().await?;
        let snapshot = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        // Off the index, in its order: a tenant's buckets lie together, and the planner would rather sort the whole table.
        snapshot.batch_execute("set local enable_seqscan = off; set local enable_sort = off").await?;
        let (begin, end) = (time(self.from_ms)?, time(self.to_ms)?);
        let arguments: [&(dyn ToSql + Sync); 5] =
            [&scope, &tenant_id.0, &range.bucket.seconds(), &begin, &end];
        let rows = snapshot.query_raw(include_str!("../sql/usage.sql"), arguments).await?;
        self.stored = rows.map(|row| stored(&row?)).try_collect().await?;
        let before = snapshot
            .query_opt(
                include_str!("../sql/usage_at.sql"),
                &[&scope, &tenant_id.0, &range.bucket.seconds(), &begin],
            )
            .await?;
        self.before = before.map_or((0, 0), |row| (row.get(0), row.get(1)));
        let license = range.license_id.map(|id| id.0);
        let limits =
            snapshot.query(include_str!("../sql/limits.sql"), &[&tenant_id.0, &license, &end]).await?;
        self.limits = limits.iter().map(limit).collect();
        let now = snapshot.query_one("select date_trunc('milliseconds', clock_timestamp())", &[]).await?;
        self.now_ms = now.get::<_, DateTime<Utc>>(0).timestamp_millis();
        snapshot.commit().await?;
        Ok(())
    }

    /// How many items there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from((self.to_ms - self.from_ms) / self.length_ms).unwrap_or(0)
    }

    /// The items, oldest first, made one by one: a long answer need not be held as a whole.
    pub fn items(&self) -> impl Iterator<Item = UsageItem> + '_ {
        let mut stored = self.stored.iter().peekable();
        let mut limits = Limits { changes: self.limits.iter().peekable(), now: HashMap::new(), total: 0 };
        let mut held = self.before;
        (0..self.count()).map(move |n| {
            let bucket = self.from_ms + i64::try_from(n).unwrap_or(0) * self.length_ms;
            let end = bucket + self.length_ms;
            let row = stored.next_if(|row| row.bucket == bucket).copied();
            let row = row.unwrap_or_else(|| Stored::empty(bucket, held, self.length_ms));
            held = (row.used_after, row.users_after);
            self.item(&row, limits.until(end, self.license_id.is_some()))
        })
    }

    fn item(&self, row: &Stored, seats_total: i64) -> UsageItem {
        let end = row.bucket + self.length_ms;
        // What is not over is only told as far as it has come; what has not begun holds nothing.
        let begun = row.bucket <= self.now_ms;
        let passed = (self.now_ms.min(end) - row.bucket).max(1);
        let ahead = self.length_ms - passed;
        let seat_ms = (row.seat_ms - i64::from(row.used_after) * ahead).max(0);
        let [acquired, denied, released, expired, revoked] = row.counts.map(i64::from);
        UsageItem {
            from: at(row.bucket),
            to: at(end),
            license_id: self.license_id,
            seats_total,
            peak: if begun { i64::from(row.peak) } else { 0 },
            average: if begun { seat_ms as f64 / passed as f64 } else { 0.0 },
            acquired,
            denied,
            released,
            expired,
            revoked,
            unique_users: if begun { i64::from(row.unique_users) } else { 0 },
        }
    }
}

impl Stored {
    /// A bucket in which nothing happened.
    fn empty(bucket: i64, (used, users): (i32, i32), length_ms: i64) -> Self {
        Self {
            bucket,
            used_after: used,
            users_after: users,
            peak: used,
            seat_ms: i64::from(used) * length_ms,
            counts: [0; 5],
            unique_users: users,
        }
    }
}

/// Walks through the changes of limits as the buckets go by.
struct Limits<'a> {
    changes: std::iter::Peekable<std::slice::Iter<'a, Limit>>,
    now: HashMap<Uuid, Limit>,
    total: i64,
}

impl Limits<'_> {
    /// The limit in force just before `end`. One license's stays its number when it is switched off.
    fn until(&mut self, end: i64, of_one: bool) -> i64 {
        let counts = |limit: &Limit| if limit.active || of_one { limit.seats_total } else { 0 };
        while let Some(change) = self.changes.next_if(|change| change.since_ms < end) {
            let before = self.now.insert(change.license_id, *change);
            self.total += counts(change) - before.as_ref().map_or(0, counts);
        }
        self.total
    }
}

/// By place, not by name: a name is looked for among all of them.
fn stored(row: &Row) -> Result<Stored, tokio_postgres::Error> {
    Ok(Stored {
        bucket: row.try_get::<_, DateTime<Utc>>(0)?.timestamp_millis(),
        used_after: row.try_get(1)?,
        users_after: row.try_get(2)?,
        peak: row.try_get(3)?,
        seat_ms: row.try_get(4)?,
        counts: [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?, row.try_get(9)?],
        unique_users: row.try_get(10)?,
    })
}

fn limit(row: &Row) -> Limit {
    Limit {
        since_ms: row.get::<_, DateTime<Utc>>("since").timestamp_millis(),
        license_id: row.get("license_id"),
        seats_total: row.get("seats_total"),
        active: row.get("active"),
    }
}

fn time(millis: i64) -> Result<DateTime<Utc>, LogError> {
    DateTime::from_timestamp_millis(millis)
        .ok_or_else(|| LogError::Rejected("a time outside of the calendar".to_owned()))
}

fn at(millis: i64) -> Time {
    Time::from_millis(millis).unwrap_or_else(|| DateTime::UNIX_EPOCH.into())
}
