//! Forward-only migrations of `schema/`, under a lock.
//!
//! refinery takes no lock of its own, so two migrations at once would collide: an advisory lock orders those of one
//! database. Roles belong to the whole cluster, where no advisory lock reaches: making them is repeated until it holds.

use std::time::Duration;

use tokio_postgres::Client;

use crate::LogError;
use crate::database::{Database, SERVICE_ROLE, connect_as_login};
use crate::error::chain;

mod embedded {
    refinery::embed_migrations!("../schema");
}

/// Any number, the same in every version of the program.
const LOCK: i64 = 0xc0d1_7ec7;

/// How often to try to make the role while other databases of the cluster are being migrated.
const ROLE_ATTEMPTS: u32 = 50;

/// Brings the database to this program's schema; repeating it changes nothing, and neither does a newer schema that is
/// still made for this program. Answers the version reached.
///
/// # Errors
/// When the database cannot be reached, or refuses a statement.
pub async fn migrate(url: &str) -> Result<i64, LogError> {
    let (mut client, driver) = connect_as_login(url).await?;
    make_role(&client).await?;
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
    let found = found_version(&client).await?;
    if found > known_version() {
        // A rollout that is taken back runs the older program's migrations: there is nothing to do.
        require_support(&client, found).await?;
        return Ok(found);
    }
    let done = embedded::migrations::runner()
        .set_migration_table_name("schema_history")
        .run_async(&mut client)
        .await
        .map_err(|error| LogError::Rejected(format!("migration failed: {}", chain(&error))));
    // The lock goes with the connection.
    drop(client);
    let _ = driver.await;
    done?;
    Ok(known_version())
}

/// The role, and the login's membership in it: a login with CREATEROLE cannot SET ROLE to what it made without one.
async fn make_role(client: &Client) -> Result<(), LogError> {
    // From Postgres 16 on, the maker of a role is its admin, but may not SET ROLE to it before a grant.
    let statement = format!(
        "do $$ declare member boolean; begin
           if not exists (select from pg_roles where rolname = '{SERVICE_ROLE}') then
             create role {SERVICE_ROLE} nologin;
           end if;
           execute format('select pg_has_role(current_user, %L, %L)', '{SERVICE_ROLE}',
             case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end) into member;
           if not member then
             execute format('grant {SERVICE_ROLE} to %I', current_user);
           end if;
         end $$"
    );
    let mut attempt = 0;
    loop {
        attempt += 1;
        match client.batch_execute(&statement).await {
            Ok(()) => return Ok(()),
            // Another database's migration made it at the same instant.
            Err(error) if attempt < ROLE_ATTEMPTS && error.as_db_error().is_some() => {
                tracing::debug!(%error, attempt, "the role is being made by another migration");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                return Err(LogError::Rejected(format!(
                    "cannot make role {SERVICE_ROLE}: {}",
                    chain(&error)
                )));
            }
        }
    }
}

fn known_version() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|one| i64::from(one.version()))
        .max()
        .unwrap_or(0)
}

/// Refuses a schema that is older than the one this program knows, or newer and no longer made for it.
///
/// # Errors
/// [`LogError::Schema`] with what to do; [`LogError::Unavailable`] when the database cannot be asked.
pub async fn require_current_schema(database: &Database) -> Result<(), LogError> {
    let client = database.get().await?;
    let (found, known) = (found_version(&client).await?, known_version());
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => {
            Err(LogError::Schema { found, known, advice: "run `coditect-license migrate` first" })
        }
        std::cmp::Ordering::Greater => require_support(&client, found).await,
    }
}

/// The version of the schema that the database has; 0 without one.
async fn found_version(client: &Client) -> Result<i64, LogError> {
    let exists = client.query_one("select to_regclass('public.schema_history') is not null", &[]).await?;
    if !exists.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client.query_one("select coalesce(max(version), 0)::bigint from schema_history", &[]).await?;
    Ok(row.get(0))
}

/// Refuses a newer schema that no longer works with this program.
async fn require_support(client: &Client, found: i64) -> Result<(), LogError> {
    let known = known_version();
    let row = client.query_one("select oldest_program::bigint from schema_support", &[]).await?;
    if row.get::<_, i64>(0) > known {
        return Err(LogError::Schema { found, known, advice: "run a newer program" });
    }
    tracing::warn!(found, known, "the schema is newer than this program, and still made for it");
    Ok(())
}
