//! Folds the log into the read models, exactly once, in one replica at a time.
//!
//! Who folds is a lease (`lease.rs`), so that replicas do not do the same work; what is folded is safe without it: a
//! page is committed together with its cursor, and only from the cursor that it was read after (`step.rs`). A runner
//! that is frozen in the middle of a page loses its transaction after [`FROZEN`], by Postgres's own clock, and the lease
//! with the next renewal that it misses: another replica goes on within 5 s.

mod in_the_way;
mod lag;
mod lease;
mod step;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{EventLog, LogError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::page::Tables;
use crate::projection::Projection;
use crate::query::{QueryError, ReadModels};
use lease::Lease;
pub(crate) use step::{Step, cursor_name, step};

/// Events folded in one transaction. It holds the log's readers back while it runs, so it is short.
const PAGE: i64 = 5_000;

/// Pause when there is nothing new: from the first to the last, doubling. A question that waits ends it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(150));

/// Pause after a page that was not full: what is written meanwhile goes together, for nearly the price of one event, since
/// all of it changes the same buckets of usage. A question that waits ends it.
const GATHER: Duration = Duration::from_millis(300);

/// Pause after a failure, or while another replica folds.
const RETRY: Duration = Duration::from_secs(1);

/// Longest silence of a transaction that is under way; Postgres ends it then.
pub(crate) const FROZEN: Duration = Duration::from_secs(2);

/// Longest time for one page; a connection that hangs ends it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest time that an answer waits for what was written before it was asked for, once the fold goes on.
const SETTLE: Duration = Duration::from_millis(600);

/// Longest time that an answer waits for the fold to go on: its replica may have died, then another takes over within the
/// lease's term and [`RETRY`].
const TAKE_OVER: Duration = Duration::from_secs(4);

/// How often a question that waits looks again: at first, and once it takes longer than [`SETTLE`].
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Wakes the runner of this process.
static WAKE: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Where the cursors stood when a question last gave up waiting.
static STANDS: Mutex<Option<String>> = Mutex::new(None);

/// Runs until the process ends.
pub async fn run(log: EventLog) {
    let reports = tokio::spawn(lag::report(log.clone()));
    let clears = tokio::spawn(in_the_way::end(log.clone()));
    let _ended_with_this = [AbortOnDrop(reports.abort_handle()), AbortOnDrop(clears.abort_handle())];
    let mut lease = Lease::new();
    let mut pause = PAUSE.0;
    loop {
        match timeout(PATIENCE, round(&log, &mut lease)).await {
            Ok(Ok(Some(Step::Full))) => {}
            Ok(Ok(Some(Step::Folded))) => {
                pause = PAUSE.0;
                let _ = timeout(GATHER, WAKE.notified()).await;
            }
            Ok(Ok(Some(Step::Nothing))) => {
                let _ = timeout(pause, WAKE.notified()).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Ok(Ok(Some(Step::Elsewhere) | None)) => tokio::time::sleep(RETRY).await,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a projection stands still");
                tokio::time::sleep(RETRY).await;
            }
            Err(_) => tracing::warn!("a page of a projection took too long, and is tried again"),
        }
    }
}

/// Folds all that may be read now, `page` events at a time; answers how many pages it took. For whoever wants the read
/// models now, without a runner.
///
/// # Errors
/// The database.
pub async fn fold_all(log: &EventLog, page: i64) -> Result<u64, LogError> {
    let mut pages = 0;
    for projection in Projection::ALL {
        while step(log, projection, Tables::Live, page).await? >= Step::Folded {
            pages += 1;
        }
    }
    Ok(pages)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A page of every projection; `None`: another replica folds. One that fails does not keep the others from going on.
async fn round(log: &EventLog, lease: &mut Lease) -> Result<Option<Step>, LogError> {
    if !lease.hold(log).await? {
        return Ok(None);
    }
    let mut all = Step::Nothing;
    let mut failed = None;
    for projection in Projection::ALL {
        match step(log, projection, Tables::Live, PAGE).await {
            Ok(one) => all = all.max(one),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(Some(all)), Err)
}

impl ReadModels {
    /// Waits until everything that was committed before this was called is folded, at most for `patience`; answers
    /// whether it is.
    ///
    /// # Errors
    /// The database.
    pub async fn caught_up(&self, patience: Duration) -> Result<bool, QueryError> {
        self.wait(patience, patience).await
    }

    /// What every answer that must not lag does first: waits for what was committed before, also while another replica
    /// takes over. A fold that is far behind is not waited for: the answer is as of where it stands then.
    ///
    /// # Errors
    /// The database.
    pub async fn settled(&self) -> Result<(), QueryError> {
        if !self.wait(TAKE_OVER, SETTLE).await? {
            tracing::warn!("an answer is as of where the projections stand, behind the log");
        }
        Ok(())
    }

    /// Waits for the fold: for `still` while no cursor moves, for `moving` since one did. No connection is kept meanwhile:
    /// whoever takes over needs one.
    async fn wait(&self, still: Duration, moving: Duration) -> Result<bool, QueryError> {
        let begun = Instant::now();
        let database = self.log.database();
        let client = database.get().await?;
        let statement =
            client.prepare_cached("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").await?;
        let horizon: i64 = client.query_one(&statement, &[]).await?.get(0);
        drop(client);
        let unfolded: Vec<_> = Projection::ALL.iter().map(|one| step::unfolded(*one)).collect();
        let sql = format!(
            "select {}, (select string_agg(xid || '/' || position, ' ' order by projection) from projection_cursors
                         where projection = any ($2))",
            unfolded.join(" or ")
        );
        let live = Projection::ALL.map(|one| cursor_name(one, Tables::Live));
        let mut stood: Option<String> = None;
        let mut until = begun + still;
        loop {
            let client = database.get().await?;
            let statement = client.prepare_cached(&sql).await?;
            let row = client.query_one(&statement, &[&horizon, &live.as_slice()]).await?;
            drop(client);
            if !row.get::<_, bool>(0) {
                return Ok(true);
            }
            let stands: Option<String> = row.get(1);
            let now = Instant::now();
            // Waited for in vain before, it is not waited for as long again until it has moved.
            if stood.is_some() && stood != stands || still > moving && stands == *lock(&STANDS) {
                until = until.min(now + moving);
            }
            if now >= until {
                *lock(&STANDS) = stands;
                return Ok(false);
            }
            stood = stood.or(stands);
            WAKE.notify_one();
            tokio::time::sleep(if now < begun + SETTLE { LOOK.0 } else { LOOK.1 }).await;
        }
    }
}

/// Every change under this lock is a single step.
fn lock(stands: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    stands.lock().unwrap_or_else(PoisonError::into_inner)
}
