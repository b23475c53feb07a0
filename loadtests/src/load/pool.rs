//! A bounded number of keep-alive connections, handed out in the order of asking.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;

use crate::http::{Answer, Call, Connection, Endpoint};

/// Shared by all virtual clients.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// At most so many connections.
    pub fn new(endpoint: &Endpoint, connections: usize) -> Self {
        let permits = Semaphore::new(connections);
        Self(Arc::new(Inner { endpoint: endpoint.clone(), permits, idle: Mutex::default() }))
    }

    /// Opens every connection before the first request, as clients that have been there for a while.
    pub async fn connect(&self) -> Result<()> {
        let mut opened = Vec::new();
        for _ in 0..self.0.permits.available_permits() {
            let mut connection = Connection::new(&self.0.endpoint);
            connection.connect().await.context("the server is not there")?;
            opened.push(connection);
        }
        self.idle().append(&mut opened);
        Ok(())
    }

    /// Sends over a free connection; waits for one if all are taken.
    pub async fn call(&self, call: &Call) -> Result<Answer> {
        let _permit = self.0.permits.acquire().await?;
        let free = self.idle().pop();
        let mut connection = free.unwrap_or_else(|| Connection::new(&self.0.endpoint));
        let answer = connection.call(call).await;
        self.idle().push(connection);
        answer
    }

    /// Pushing and popping leave the list whole even if a holder panicked.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
