//! `keys`: what operators do with the signing keys, and how they read what came of it.

use anyhow::Context;
use clap::{Args, Subcommand};
use events::{Database, EventLog, TenantId};

use crate::app;
use crate::config::{DatabaseConfig, SigningConfig};
use crate::signing::{KeyAdmin, KeyLine, KeyState, Retire, Rotated};

/// Longest reason and operator's name, in characters.
const MAX_TEXT: usize = 500;

/// Longest time of one statement: the longest grace is looked for in all decisions.
const STATEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Which keys, and who acts. The settings are those of `serve`.
#[derive(Debug, Clone, Args)]
#[expect(missing_docs, reason = "most fields' own types are documented")]
pub struct KeyPlace {
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub signing: SigningConfig,
    /// Grace of licenses that do not say, as `serve` has it
    #[arg(long, env, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..=31_536_000))]
    pub offline_grace_seconds: u32,
    /// Who acts, for the log; left out: the user of this machine
    #[arg(long, env = "KEYS_BY", value_parser = text)]
    pub by: Option<String>,
    /// One JSON document instead of lines for people
    #[arg(long)]
    pub json: bool,
}

/// The acts.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Every key: what it is good for, since when, until when
    List {
        #[command(flatten)]
        #[expect(missing_docs, reason = "its own type is documented")]
        place: KeyPlace,
        /// What was done with the keys, instead: the events of the log
        #[arg(long)]
        events: bool,
    },
    /// Make a key and publish it: it signs once every client has had the time to fetch it. May run while replicas do
    Rotate {
        #[command(flatten)]
        #[expect(missing_docs, reason = "its own type is documented")]
        place: KeyPlace,
    },
    /// Make a key unable to sign and unpublish it, on every replica within a second. Refused while a token that it
    /// signed may be alive
    Retire {
        #[command(flatten)]
        #[expect(missing_docs, reason = "its own type is documented")]
        place: KeyPlace,
        /// Its id, or the beginning of it
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// The key is compromised: at once, whatever it signed; a new key takes over if no other is left
        #[arg(long)]
        emergency: bool,
        /// Why, for the log
        #[arg(long, default_value = "", value_parser = text)]
        reason: String,
    },
}

fn text(text: &str) -> Result<String, String> {
    if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(format!("at most {MAX_TEXT} characters, none of them a control character"));
    }
    Ok(text.to_owned())
}

/// Acts, and answers what to print.
///
/// # Errors
/// When a setting cannot be used, the signer or the database cannot be asked, or the act was refused.
pub async fn run(command: KeysCommand) -> anyhow::Result<String> {
    match command {
        KeysCommand::List { place, events: true } => events_of(&place).await,
        KeysCommand::List { place, events: false } => {
            let lines = admin(&place).await?.list().await?;
            if place.json { json(&lines) } else { Ok(table(&lines)) }
        }
        KeysCommand::Rotate { place } => {
            let rotated = admin(&place).await?.rotate().await?;
            if place.json { json(&rotated) } else { Ok(said(&rotated)) }
        }
        KeysCommand::Retire { place, kid, emergency, reason } => {
            let retired = admin(&place).await?.retire(&kid, &Retire { emergency, reason }).await?;
            if place.json {
                return json(&retired);
            }
            let was = if retired.already {
                "was retired before"
            } else {
                "is retired: within a second no replica uses it"
            };
            let created = retired
                .created
                .as_ref()
                .map(|kid| format!("\n{kid} was made and signs at once, as no other key was left"));
            let none_left = retired.none_left.as_ref().map(|why| {
                format!("\n{why}: `keys list`, and `keys rotate` if there is none; without a key no token is signed")
            });
            let rest = created.or(none_left).unwrap_or_default();
            Ok(format!("{} {was}; {}{rest}", retired.kid, retired.private_half))
        }
    }
}

async fn open(place: &KeyPlace) -> anyhow::Result<EventLog> {
    let database =
        Database::new(&place.database.database_url, 2, STATEMENT_TIMEOUT).context("DATABASE_URL")?;
    events::require_current_schema(&database).await?;
    Ok(EventLog::new(database))
}

async fn admin(place: &KeyPlace) -> anyhow::Result<KeyAdmin> {
    let log = open(place).await?;
    let signer = app::signer(&place.signing).await?;
    let by = place.by.clone().unwrap_or_else(user);
    Ok(KeyAdmin::new(signer, log, place.signing.schedule(place.offline_grace_seconds), by))
}

/// The user of this machine, as far as it says.
fn user() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{}@{}", user.as_deref().unwrap_or("somebody"), host.trim());
    name.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

async fn events_of(place: &KeyPlace) -> anyhow::Result<String> {
    let events = open(place).await?.decisions(TenantId::PLATFORM.0).await?;
    let lines = events.iter().map(|recorded| {
        let mut line = serde_json::to_value(&recorded.event)?;
        line["version"] = recorded.version.into();
        line["occurred_at"] = recorded.occurred_at.to_string().into();
        Ok(line)
    });
    let lines = lines.collect::<anyhow::Result<Vec<_>>>()?;
    if place.json {
        return json(&lines);
    }
    let line = |line: &serde_json::Value| {
        let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        format!("{}  {:<22} {}", field("occurred_at"), field("type"), line["data"])
    };
    Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn said(rotated: &Rotated) -> String {
    let (line, what) = match rotated {
        Rotated::Created(line) => (line, "was made and is published"),
        Rotated::AlreadyWaits(line) => (line, "waits already, so no other was made"),
    };
    let when = line.signs_from.as_ref().map_or_else(|| "now".to_owned(), |at| format!("from {at} on"));
    format!("{} {what}; it signs {when} ({})", line.kid, line.held_by)
}

fn table(lines: &[KeyLine]) -> String {
    let mut rows =
        vec![format!("{:<43}  {:<8}  {:<24}  {:<24}  NEXT", "KID", "STATE", "PUBLISHED", "LAST USED")];
    for line in lines {
        let (state, next) = match line.state {
            KeyState::Signs => ("signs", String::new()),
            KeyState::Waits => ("waits", format!("signs from {}", line.signs_from.as_deref().unwrap_or("?"))),
            KeyState::Verifies => {
                ("verifies", format!("may be retired after {}", line.tokens_until.as_deref().unwrap_or("?")))
            }
            KeyState::Unused => ("unused", "may be retired".to_owned()),
            KeyState::Retired => ("retired", String::new()),
        };
        let used = line.last_used_at.as_deref().unwrap_or("never");
        let gone =
            if line.held || line.state == KeyState::Retired { "" } else { " (the signer does not hold it)" };
        rows.push(format!(
            "{:<43}  {state:<8}  {:<24}  {used:<24}  {next}{gone}  {}",
            line.kid, line.published_at, line.held_by
        ));
    }
    rows.join("\n")
}
