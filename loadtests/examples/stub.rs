//! A server with the endpoints that the generator uses and nothing behind them: no signature, no database.
//!
//! Measured like the real one (`loadtests bench --server target/release/examples/stub`) it shows what the
//! generator and HTTP cost by themselves, and it stands in for the service in the generator's own tests.

use std::collections::HashMap;
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem::http::StatusCode;
use poem::listener::TcpListener;
use poem::web::{Data, Json};
use poem::{EndpointExt, Request, Route, Server, get, handler, post};
use serde_json::{Value, json};

#[derive(Default)]
struct Desk {
    ids: AtomicU64,
    /// Free seats by tenant.
    free: Mutex<HashMap<String, u64>>,
    /// The machine that holds a tenant's last seat; asking again renews.
    holders: Mutex<HashMap<String, String>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    if env::args().nth(1).as_deref() != Some("serve") {
        return Ok(());
    }
    let routes = Route::new()
        .at("/ready", get(ready))
        .at("/api/v1/tenants", post(create_tenant))
        .at("/api/v1/licenses/acquire", post(acquire))
        .at("/api/v1/licenses/heartbeat", post(heartbeat))
        .at("/api/v1/licenses/release", post(release))
        .data(Arc::new(Desk::default()));
    let address = env::var("LISTEN_ADDR").context("LISTEN_ADDR")?;
    Ok(Server::new(TcpListener::bind(address)).run(routes).await?)
}

#[handler]
fn ready() -> &'static str {
    "{}"
}

#[handler]
fn create_tenant(Data(desk): Data<&Arc<Desk>>, Json(tenant): Json<Value>) -> (StatusCode, Json<Value>) {
    let id = format!("tenant-{}", desk.ids.fetch_add(1, Ordering::Relaxed));
    let seats = tenant["max_seats"].as_u64().unwrap_or(0);
    desk.free.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), seats);
    (StatusCode::CREATED, Json(json!({"id": id})))
}

#[handler]
fn acquire(
    Data(desk): Data<&Arc<Desk>>,
    request: &Request,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let tenant = tenant_of(request).unwrap_or_default();
    let machine = body["hardware_id"].as_str().unwrap_or_default();
    let mut holders = desk.holders.lock().unwrap_or_else(PoisonError::into_inner);
    if holders.get(&tenant).is_none_or(|holder| holder != machine) {
        let mut free = desk.free.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = free.get_mut(&tenant).filter(|left| **left > 0) else {
            return (StatusCode::CONFLICT, Json(json!({"code": "no_seats_available"})));
        };
        *left -= 1;
        if *left == 0 {
            holders.insert(tenant, machine.to_owned());
        }
    }
    let id = desk.ids.fetch_add(1, Ordering::Relaxed);
    // As long as a real answer, with its token and its public key.
    let token = "x".repeat(2_000);
    (StatusCode::OK, Json(json!({"session_id": format!("session-{id}"), "license_token": token})))
}

#[handler]
fn heartbeat(Json(_): Json<Value>) -> Json<Value> {
    Json(json!({"status": "ok"}))
}

#[handler]
fn release(Json(_): Json<Value>) -> Json<Value> {
    Json(json!({"status": "released"}))
}

/// The claim, unverified: nothing depends on it here.
fn tenant_of(request: &Request) -> Option<String> {
    let payload = request.header("authorization")?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(claims["tenant_id"].as_str()?.to_owned())
}
