//! A database that is filled once and copied for every test.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::{TestDatabase, TestEngines};
use crate::postgres::Address;

/// Another process may be filling the template meanwhile.
const TURN_LIMIT: Duration = Duration::from_secs(120);

/// Takes turns with everybody else who wants this template; whoever comes first fills it.
pub(crate) async fn ensure<F>(postgres: &Address, template: &str, fill: F) -> Result<()>
where
    F: AsyncFnOnce(&TestDatabase) -> Result<()>,
{
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    const TURN: &str = "SELECT pg_advisory_lock(hashtextextended($1, 0))";

    let (client, connection) = postgres.connect().await?;
    if !client.query_one(EXISTS, &[&template]).await?.get::<_, bool>(0) {
        // The lock ends with the connection.
        timeout(TURN_LIMIT, client.query_one(TURN, &[&template]))
            .await
            .with_context(|| format!("the template {template} is not filled"))??;
        if !client.query_one(EXISTS, &[&template]).await?.get::<_, bool>(0) {
            let database = TestDatabase::create(postgres, &TestEngines::unique_name(), None).await?;
            fill(&database).await.with_context(|| format!("cannot fill the template {template}"))?;
            // A name is a promise that it is complete, so it is given last.
            postgres.turn_into_template(database.name(), template).await?;
        }
    }
    drop(client);
    let _ = connection.await;
    Ok(())
}
