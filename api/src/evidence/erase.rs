//! `erase`: a person leaves the log, the read models, and what is kept beside them.

use std::path::PathBuf;

use clap::Args;
use events::{TenantId, UserId};

use crate::config::DatabaseConfig;

/// Whom to erase.
#[derive(Debug, Clone, Args)]
pub struct EraseOptions {
    #[command(flatten)]
    database: DatabaseConfig,
    /// The tenant's id
    #[arg(long)]
    tenant: TenantId,
    /// The user's id; the user must have been removed
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// The folder of archived heartbeats: required once the tenant has any
    #[arg(long, value_name = "DIR")]
    archives: Option<PathBuf>,
}

/// Erases a person, as far as the log's form allows (docs/tamper-evidence.md). Runs as the owner of the schema, like
/// `migrate`; may be repeated.
///
/// # Errors
/// When nothing names the user or the user is still a member, when not everything is sealed yet, when the database or a
/// file fails.
pub async fn erase(options: EraseOptions) -> anyhow::Result<()> {
    let log = super::open(&options.database.database_url).await?;
    let (mut owner, driver) = events::connect_as_login(&options.database.database_url).await?;
    let user = options.user.as_str();
    let archives = options.archives.as_deref();
    let erased = audit::erase(&mut owner, options.tenant, user, archives).await?;
    // Folded anew out of what is erased: a read model says only what the log says.
    projections::rebuild(&log, "activity", true).await?;
    audit::forget(&mut owner, options.tenant, &erased).await?;
    drop(owner);
    driver.await?;
    let subjects: Vec<_> = erased.subjects.iter().map(|subject| format!("{subject:?}")).collect();
    println!(
        "{} is erased: {} events, and {} archived ones, rewritten now; the salts are deleted",
        subjects.join(" and "),
        erased.events,
        erased.archived
    );
    for other in &erased.same_email {
        println!("note: user {other:?} has the same email and was not erased");
    }
    Ok(())
}
