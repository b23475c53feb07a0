//! Rebuild of read models while they are being read: new tables beside the old ones, folded from the beginning of the
//! log up to where the live ones stand, and switched in one transaction.
//!
//! A rebuild that is killed goes on where it was when it is called again: its tables and its cursor are as far as each
//! other, whatever happens. The tables that are read are untouched until the switch.
//!
//! `users` is another matter: `append` keeps it in the events' own transactions, so it is compared with the log and mended
//! in place, a tenant at a time, and is never resumed or begun anew.

use std::time::Duration;

use events::EventLog;

use crate::page::Tables;
use crate::projection::Projection;
use crate::query::QueryError;
use crate::runner::{Step, cursor_name, step};

/// Events folded in one transaction; what folds live takes turns with it.
const PAGE: i64 = 10_000;

/// Of the folds in this program: a change that writes other rows moves it on.
const FOLD: i32 = 1;

/// How often the switch is tried while long questions keep the tables busy.
const ATTEMPTS: u32 = 20;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Read models that can be asked to be rebuilt. Those of one projection are rebuilt together: they share a cursor.
pub const READ_MODELS: [&str; 8] =
    ["tenants", "licenses", "directory", "sessions", "denials", "usage", "activity", "users"];

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebuilt {
    /// A projection was folded anew and switched.
    Switched {
        /// The projection: `directory` or `activity`.
        projection: &'static str,
        /// It went on with what an earlier rebuild had left.
        resumed: bool,
        /// Pages folded by this call.
        pages: u64,
    },
    /// `users` were compared with the log.
    Mended {
        /// Tenants whose users were compared.
        tenants: u64,
        /// Users that were not what the log says, and are now.
        users: u64,
    },
}

/// Rebuilds the projection that a read model belongs to.
///
/// # Errors
/// An unknown name; the database, or tables that stay busy. What was folded so far is kept for the next call.
pub async fn rebuild(log: &EventLog, name: &str, fresh: bool) -> Result<Rebuilt, QueryError> {
    let projection = match name {
        "users" => return mend_users(log).await,
        "tenants" | "licenses" | "directory" => Projection::Directory,
        "sessions" | "denials" | "usage" | "activity" => Projection::Activity,
        _ => {
            return Err(QueryError::invalid(
                "projection",
                format!("must be one of {}", READ_MODELS.join(", ")),
            ));
        }
    };
    let client = log.database().get().await?;
    if fresh {
        client.execute("select abandon_rebuild($1)", &[&projection.name()]).await?;
    }
    let resumed =
        client.query_one("select begin_rebuild($1, $2)", &[&projection.name(), &FOLD]).await?.get(0);
    drop(client);
    let mut pages = catch_up(log, projection).await?;
    for _ in 0..ATTEMPTS {
        match switch(log, projection).await {
            Ok(more) => {
                let pages = pages + more;
                return Ok(Rebuilt::Switched { projection: projection.name(), resumed, pages });
            }
            Err(QueryError::Log(error)) if error.is_retryable() => {
                tracing::info!(%error, "the switch is tried again");
                tokio::time::sleep(PAUSE).await;
                pages += catch_up(log, projection).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(QueryError::Log(events::LogError::Unavailable(
        "the tables are busy: long questions or another rebuild keep them from being switched".to_owned(),
    )))
}

/// Makes every tenant's users what the log says.
async fn mend_users(log: &EventLog) -> Result<Rebuilt, QueryError> {
    let client = log.database().get().await?;
    let tenants = client.query("select stream_id from streams where product is null", &[]).await?;
    let mend = client.prepare_cached("select rebuild_users($1)").await?;
    let mut users = 0;
    for tenant in &tenants {
        let mended: i64 = client.query_one(&mend, &[&tenant.get::<_, uuid::Uuid>(0)]).await?.get(0);
        users += mended.unsigned_abs();
    }
    Ok(Rebuilt::Mended { tenants: tenants.len() as u64, users })
}

/// Folds into the new tables until there is nothing more.
async fn catch_up(log: &EventLog, projection: Projection) -> Result<u64, QueryError> {
    let mut pages = 0;
    loop {
        match step(log, projection, Tables::Next, PAGE).await? {
            Step::Nothing => return Ok(pages),
            Step::Elsewhere => tokio::time::sleep(PAUSE).await,
            Step::Folded | Step::Full => pages += 1,
        }
    }
}

/// Keeps the live fold still, folds what is left, and switches. Answers the pages that were left.
async fn switch(log: &EventLog, projection: Projection) -> Result<u64, QueryError> {
    let mut client = log.database().get().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local lock_timeout = '2s'").await?;
    let live = cursor_name(projection, Tables::Live);
    transaction
        .query_opt("select from projection_cursors where projection = $1 for update", &[&live])
        .await?;
    let pages = catch_up(log, projection).await?;
    let switched: bool =
        transaction.query_one("select switch_rebuild($1)", &[&projection.name()]).await?.get(0);
    if !switched {
        return Err(QueryError::Log(events::LogError::RolledBack(
            "the new tables are still behind".to_owned(),
        )));
    }
    transaction.commit().await?;
    Ok(pages)
}
