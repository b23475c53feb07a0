//! Makes the tenants of a scenario, over several connections: a scenario may want 10,000 of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::http::{Call, Connection, Endpoint};
use crate::token::Issuing;

const CONNECTIONS: usize = 16;

/// Creates `count` tenants with so many seats each, and returns their ids.
pub async fn create_tenants(
    endpoint: &Endpoint,
    issuing: &Issuing,
    prefix: &str,
    count: usize,
    max_seats: u32,
) -> Result<Vec<String>> {
    let authorization = HeaderValue::from_str(&format!("Bearer {}", issuing.platform_admin()?))?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS.min(count) {
        let (mut connection, next) = (Connection::new(endpoint), next.clone());
        let (authorization, prefix) = (authorization.clone(), prefix.to_owned());
        workers.spawn(async move {
            let mut ids = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return anyhow::Ok(ids);
                }
                let subdomain = format!("{prefix}-{n}");
                let body = json!({"name": subdomain, "subdomain": subdomain, "plan": "enterprise", "max_seats": max_seats});
                let call = Call::post("/api/v1/tenants", Some(authorization.clone()), body.to_string());
                ids.push(create(&mut connection, &call).await.with_context(|| format!("create tenant {subdomain}"))?);
            }
        });
    }
    let mut ids = Vec::with_capacity(count);
    while let Some(made) = workers.join_next().await {
        ids.extend(made??);
    }
    Ok(ids)
}

async fn create(connection: &mut Connection, call: &Call) -> Result<String> {
    let answer = connection.call(call).await?;
    let body = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 201, "answered {}: {body}", answer.status);
    let tenant: Value = serde_json::from_slice(&answer.body).with_context(|| format!("not JSON: {body}"))?;
    let id = tenant["id"].as_str().with_context(|| format!("no id in {body}"))?;
    Ok(id.to_owned())
}
