//! What operators and analysts do on the command line with the read models.

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};
use events::{Database, EventLog, LicenseId, TenantId, Time};
use projections::{NewLogin, Outcome, ReadModels, Rebuilt, WhatIf, WhatIfQuestion};
use serde_json::{Value, json};

use crate::config::DatabaseConfig;

/// Connections of a command.
const CONNECTIONS: usize = 4;

/// Longest time of one statement of a command.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// `rebuild`.
#[derive(Debug, Clone, Args)]
pub struct RebuildCommand {
    /// `tenants`, `licenses`, `sessions`, `denials` or `usage`: those that share a cursor (`directory`: the first two,
    /// `activity`: the others) are rebuilt together; or `users`, which is compared with the log and mended in place
    pub projection: String,
    /// Begin anew, rather than go on with what an earlier rebuild has left (of `users`, none leaves anything)
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its own type is documented")]
    pub database: DatabaseConfig,
}

/// Folds a projection anew beside the one that is being read, and switches. Answers what it did.
///
/// # Errors
/// An unknown name; the database.
pub async fn rebuild(command: &RebuildCommand) -> anyhow::Result<String> {
    let log = open(&command.database).await?;
    let rebuilt = projections::rebuild(&log, &command.projection, command.fresh).await?;
    Ok(match rebuilt {
        Rebuilt::Switched { projection, resumed, pages } => {
            let how = if resumed { "went on with an earlier rebuild" } else { "from the beginning" };
            format!("projection {projection}: switched, {how}, {pages} pages folded")
        }
        Rebuilt::Mended { tenants, users } => {
            format!(
                "users: compared with the log in {tenants} tenants, {users} were not what it says and are now"
            )
        }
    })
}

/// `what-if`.
#[derive(Debug, Clone, Args)]
#[expect(missing_docs, reason = "each is documented for the command line, or by its own type")]
pub struct WhatIfCommand {
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// The tenant's id
    #[arg(long)]
    pub tenant: TenantId,
    /// One of its licenses; left out: the first
    #[arg(long)]
    pub license: Option<LicenseId>,
    /// From this time on, RFC 3339
    #[arg(long, value_parser = Time::parse)]
    pub from: Time,
    /// Before this time
    #[arg(long, value_parser = Time::parse)]
    pub to: Time,
    /// So many seats, instead of those that there were
    #[arg(long, allow_negative_numbers = true)]
    pub seats: Option<i64>,
    /// This TTL, instead of the one that there was
    #[arg(long, allow_negative_numbers = true)]
    pub ttl_seconds: Option<i64>,
    /// How the answer is written
    #[arg(long, value_enum, default_value = "json")]
    pub format: WhatIfFormat,
}

/// How an answer to `what-if` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WhatIfFormat {
    /// One document
    Json,
    /// A line for each outcome, and for each user who waited in it
    Csv,
}

/// Plays a license's history again, with other seats or another TTL. Answers what is to be printed.
///
/// # Errors
/// A question without an answer; the database.
pub async fn what_if(command: &WhatIfCommand) -> anyhow::Result<String> {
    let log = open(&command.database).await?;
    let known = log.tenant_of(command.tenant.0).await? == Some(command.tenant);
    ensure!(known, "--tenant: there is no such tenant");
    let models = ReadModels::new(log);
    let question = WhatIfQuestion {
        license_id: command.license,
        from: command.from,
        to: command.to,
        seats: command.seats,
        ttl_seconds: command.ttl_seconds,
    };
    let answer = models.what_if(command.tenant, &question).await?;
    Ok(match command.format {
        WhatIfFormat::Json => serde_json::to_string_pretty(&what_if_json(&answer))?,
        WhatIfFormat::Csv => what_if_csv(&answer)?.trim_end().to_owned(),
    })
}

/// The answer as CSV: each outcome has a line of its own, without a user, and one for each user who waited in it.
///
/// # Errors
/// None that the memory does not give.
pub fn what_if_csv(answer: &WhatIf) -> anyhow::Result<String> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    csv.write_record([
        "outcome",
        "user_id",
        "peak",
        "peak_demand",
        "denied",
        "never_granted",
        "denial_minutes",
    ])?;
    for (name, outcome) in [("as_it_was", &answer.as_it_was), ("what_if", &answer.what_if)] {
        let Outcome { peak, peak_demand, denied, never_granted, denial_minutes, users } = outcome;
        csv.serialize((name, "", peak, peak_demand, denied, never_granted, denial_minutes))?;
        for user in users {
            csv.serialize((name, &user.user_id, "", "", user.denied, "", user.denial_minutes))?;
        }
    }
    Ok(String::from_utf8(csv.into_inner()?)?)
}

/// The answer as the API and the command write it.
#[must_use]
pub fn what_if_json(answer: &WhatIf) -> Value {
    let outcome = |one: &Outcome| {
        let users = one.users.iter().map(|user| {
            json!({"user_id": user.user_id, "denied": user.denied, "denial_minutes": user.denial_minutes})
        });
        json!({
            "peak": one.peak,
            "peak_demand": one.peak_demand,
            "denied": one.denied,
            "never_granted": one.never_granted,
            "denial_minutes": one.denial_minutes,
            "users": users.collect::<Vec<_>>(),
        })
    };
    json!({
        "license_id": answer.license_id,
        "from": answer.from,
        "to": answer.to,
        "seats": answer.seats,
        "ttl_seconds": answer.ttl_seconds,
        "wishes": answer.wishes,
        "as_it_was": outcome(&answer.as_it_was),
        "what_if": outcome(&answer.what_if),
    })
}

/// `analyst-login`. Runs as the database's owner, as `migrate` does.
#[derive(Debug, Clone, Subcommand)]
#[expect(missing_docs, reason = "each is documented for the command line, or by its own type")]
pub enum AnalystLoginCommand {
    /// Make a read-only login that sees one tenant in schema analytics; prints its password, once
    Create {
        #[command(flatten)]
        database: DatabaseConfig,
        /// The tenant's id
        #[arg(long)]
        tenant: TenantId,
    },
    /// Give a login another password, printed once
    Rotate {
        #[command(flatten)]
        database: DatabaseConfig,
        /// Its name
        #[arg(long)]
        login: String,
    },
    /// End a login
    Drop {
        #[command(flatten)]
        database: DatabaseConfig,
        /// Its name
        #[arg(long)]
        login: String,
    },
    /// Every login, as JSON lines
    List {
        #[command(flatten)]
        database: DatabaseConfig,
        /// Of one tenant only
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

impl AnalystLoginCommand {
    fn database(&self) -> &DatabaseConfig {
        match self {
            Self::Create { database, .. }
            | Self::Rotate { database, .. }
            | Self::Drop { database, .. }
            | Self::List { database, .. } => database,
        }
    }
}

/// Answers JSON, one line a login.
///
/// # Errors
/// An unknown tenant or login; the database, e.g. when its login may not make roles.
pub async fn analyst_login(command: &AnalystLoginCommand) -> anyhow::Result<String> {
    open(command.database()).await?;
    let (mut owner, driver) = events::connect_as_login(&command.database().database_url).await?;
    let told = |login: NewLogin| {
        json!({"login": login.login, "password": login.password, "tenant_id": login.tenant_id}).to_string()
    };
    let answer = match command {
        AnalystLoginCommand::Create { tenant, .. } => {
            told(projections::create_login(&mut owner, *tenant).await?)
        }
        AnalystLoginCommand::Rotate { login, .. } => {
            told(projections::rotate_login(&mut owner, login).await?)
        }
        AnalystLoginCommand::Drop { login, .. } => {
            projections::drop_login(&mut owner, login).await?;
            json!({"dropped": login}).to_string()
        }
        AnalystLoginCommand::List { tenant, .. } => {
            let logins = projections::list_logins(&owner, *tenant).await?;
            let line = |one: &projections::AnalystLogin| {
                json!({"login": one.login, "tenant_id": one.tenant_id, "created_at": one.created_at,
                       "rotated_at": one.rotated_at})
                .to_string()
            };
            logins.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    drop(owner);
    let _ = driver.await;
    Ok(answer)
}

/// The log of a database whose schema this program knows.
async fn open(config: &DatabaseConfig) -> anyhow::Result<EventLog> {
    let database = Database::new(&config.database_url, CONNECTIONS, STATEMENT_TIMEOUT)?;
    events::require_current_schema(&database).await?;
    Ok(EventLog::new(database))
}
