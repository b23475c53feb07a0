//! A database that lives as long as its test.

use std::time::Duration;

use anyhow::Result;
use tokio::runtime;
use tokio::time::timeout;

use crate::postgres::Address;

/// A test that has ended must not wait for a server that is dead or frozen.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// A database of one test, owned by `coditect`. Dropping it removes it, with whoever is still connected.
pub struct TestDatabase {
    postgres: Address,
    name: String,
}

impl TestDatabase {
    pub(crate) async fn create(postgres: &Address, name: &str, template: Option<&str>) -> Result<Self> {
        postgres.create_database(name, template).await?;
        Ok(Self { postgres: postgres.clone(), name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL for the role `coditect`.
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// Its URL for the superuser.
    pub fn superuser_url(&self) -> String {
        self.postgres.superuser_url(&self.name)
    }
}

impl Drop for TestDatabase {
    /// Best effort, on a thread with a runtime of its own: the test's runtime may be ending.
    fn drop(&mut self) {
        let (postgres, name) = (self.postgres.clone(), std::mem::take(&mut self.name));
        let work = std::thread::Builder::new().spawn(move || {
            if let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() {
                let _ = runtime.block_on(async { timeout(DROP_LIMIT, postgres.drop_database(&name)).await });
            }
        });
        if let Ok(thread) = work {
            let _ = thread.join();
        }
    }
}
