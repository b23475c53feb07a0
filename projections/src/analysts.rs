//! Logins of analysts: each may ask the views of schema `analytics`, and is shown one tenant.
//!
//! A login is a role of the whole cluster with a name that tells nothing, because every login can read the names of all.
//! Its password is made here, told once, and reaches Postgres as a SCRAM verifier: no log of statements ever holds it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{LogError, TenantId, Time};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::query::QueryError;

/// What every analyst's login is a member of; it may read the views, and nothing else.
const GROUP: &str = "license_analyst";

/// How logins begin; the rest is chance.
const PREFIX: &str = "analyst_";

/// Connections of one login at a time.
const CONNECTIONS: u32 = 5;

/// How often an act on roles is tried: they belong to the whole cluster, where another may change them.
const ATTEMPTS: u32 = 20;

/// A login that was just made, or made anew.
#[derive(Clone)]
pub struct NewLogin {
    /// Its name.
    pub login: String,
    /// Told once.
    pub password: String,
    /// Whose rows it is shown.
    pub tenant_id: TenantId,
}

/// A login as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct AnalystLogin {
    pub login: String,
    pub tenant_id: TenantId,
    pub created_at: Time,
    pub rotated_at: Option<Time>,
}

/// Makes a login for a tenant. Needs a connection of the database's owner, who may make roles.
///
/// # Errors
/// An unknown tenant; the database.
pub async fn create_login(owner: &mut Client, tenant_id: TenantId) -> Result<NewLogin, QueryError> {
    let known = owner
        .query_opt("select from streams where stream_id = $1 and product is null", &[&tenant_id.0])
        .await?;
    if known.is_none() {
        return Err(QueryError::invalid("tenant", "there is no such tenant"));
    }
    let login = format!("{PREFIX}{}", uuid::Uuid::new_v4().simple());
    let (password, verifier) = secret();
    // The function's owner is a member, or it could not end a connection of the login.
    let settings = [
        "default_transaction_read_only = on",
        "statement_timeout = '60s'",
        "idle_in_transaction_session_timeout = '60s'",
        "search_path = analytics",
    ];
    let settings: Vec<_> = settings.iter().map(|one| format!("alter role {login} set {one};")).collect();
    let make = format!(
        "create role {login} login password '{verifier}' connection limit {CONNECTIONS};
         grant {GROUP} to {login};
         do $$ begin execute format('grant {login} to %I', (select pg_get_userbyid(proowner) from pg_proc
           where oid = 'public.end_analysts_in_the_way'::regproc)); end $$;
         {}
         insert into analyst_logins (login, tenant_id) values ('{login}', '{tenant_id}');",
        settings.join(" ")
    );
    act(owner, &format!("{} {make}", group())).await?;
    Ok(NewLogin { login, password, tenant_id })
}

/// Gives a login another password; connections that are open stay open.
///
/// # Errors
/// An unknown login; the database.
pub async fn rotate_login(owner: &mut Client, login: &str) -> Result<NewLogin, QueryError> {
    let tenant_id = tenant_of(owner, login).await?;
    let (password, verifier) = secret();
    act(
        owner,
        &format!(
            "alter role {login} password '{verifier}';
             update analyst_logins set rotated_at = now() where login = '{login}';"
        ),
    )
    .await?;
    Ok(NewLogin { login: login.to_owned(), password, tenant_id })
}

/// Ends a login: its rows are gone from its views at once, also for connections that are open, and then its role.
///
/// # Errors
/// An unknown login; the database.
pub async fn drop_login(owner: &mut Client, login: &str) -> Result<(), QueryError> {
    tenant_of(owner, login).await?;
    act(owner, &format!("delete from analyst_logins where login = '{login}'; drop role {login};")).await
}

/// The logins, of all tenants or of one.
///
/// # Errors
/// The database.
pub async fn list_logins(
    owner: &Client,
    tenant_id: Option<TenantId>,
) -> Result<Vec<AnalystLogin>, QueryError> {
    let rows = owner
        .query(
            "select login::text, tenant_id, created_at, rotated_at from analyst_logins
             where $1::uuid is null or tenant_id = $1 order by created_at, login",
            &[&tenant_id.map(|id| id.0)],
        )
        .await?;
    let time = |at: chrono::DateTime<chrono::Utc>| Time::from(at);
    Ok(rows
        .iter()
        .map(|row| AnalystLogin {
            login: row.get(0),
            tenant_id: TenantId(row.get(1)),
            created_at: time(row.get(2)),
            rotated_at: row.get::<_, Option<_>>(3).map(time),
        })
        .collect())
}

/// The group and what it may, whatever views this version has; repeating it changes nothing.
fn group() -> String {
    format!(
        "do $$ begin
           if not exists (select from pg_roles where rolname = '{GROUP}') then create role {GROUP} nologin; end if;
         end $$;
         grant usage on schema analytics to {GROUP};
         grant select on all tables in schema analytics to {GROUP};
         grant execute on all functions in schema analytics to {GROUP};"
    )
}

/// Only names that this module made reach a statement.
async fn tenant_of(owner: &Client, login: &str) -> Result<TenantId, QueryError> {
    let ours = login
        .strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    let unknown = || QueryError::invalid("login", "there is no such login");
    if !ours {
        return Err(unknown());
    }
    let row = owner
        .query_opt("select tenant_id from analyst_logins where login::text = $1", &[&login])
        .await?
        .ok_or_else(unknown)?;
    Ok(TenantId(row.get(0)))
}

/// All of it or nothing, again while another act on roles is in the way.
async fn act(owner: &mut Client, statements: &str) -> Result<(), QueryError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let transaction = owner.transaction().await?;
        let done = transaction.batch_execute(statements).await;
        match done {
            Ok(()) => return Ok(transaction.commit().await?),
            Err(error) if attempt < ATTEMPTS && in_the_way(&error) => {
                drop(transaction);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => return Err(QueryError::Log(LogError::from(error))),
        }
    }
}

/// "Tuple concurrently updated" has no code of its own; making the same group at once is a duplicate.
fn in_the_way(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    [
        &SqlState::INTERNAL_ERROR,
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::DUPLICATE_OBJECT,
        &SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .iter()
    .any(|one| code == Some(*one))
}

/// A password of 244 random bits, and what Postgres keeps of it.
fn secret() -> (String, String) {
    let bytes = [*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()].concat();
    let password = URL_SAFE_NO_PAD.encode(bytes);
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    (password, verifier)
}
