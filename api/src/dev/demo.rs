//! The demo tenant with five seats, made through the API like any other, and the lines to try it with.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Issuer;

/// Seats of the demo tenant.
const SEATS: u32 = 5;

/// What the identity provider calls the demo tenant: so tokens need no id.
const IDENTITY_TENANT: &str = "demo";

/// The demo tenant.
pub(super) struct Demo {
    pub id: String,
}

/// Finds the demo tenant of yesterday, or makes it.
pub(super) async fn tenant(url: &str, issuer: &Issuer) -> anyhow::Result<Demo> {
    let client = reqwest::Client::new();
    let admin = issuer.token(&json!({ "sub": "platform", "roles": ["platform_admin"] }))?;
    let body = json!({
        "name": "Demo", "subdomain": "demo", "plan": "team", "max_seats": SEATS, "identity_tenant": IDENTITY_TENANT,
    });
    let answer = client.post(format!("{url}/api/v1/tenants")).bearer_auth(&admin).json(&body).send().await?;
    let status = answer.status();
    let made: Value = answer.json().await?;
    if status.as_u16() == 201 {
        return Ok(Demo { id: made["id"].as_str().context("a tenant without an id")?.to_owned() });
    }
    ensure!(status.as_u16() == 409, "the demo tenant was not made: {made}");
    let own =
        issuer.token(&json!({ "sub": "admin", "tenant_id": IDENTITY_TENANT, "roles": ["tenant_admin"] }))?;
    let list: Value = client
        .get(format!("{url}/api/v1/tenants"))
        .bearer_auth(own)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let id = list["items"][0]["id"].as_str().context("the demo tenant was not found")?;
    Ok(Demo { id: id.to_owned() })
}

/// Lines that can be pasted into a shell.
pub(super) fn print(url: &str, issuer: &Issuer, demo: &Demo) {
    let issuer = issuer.url();
    let tenant = &demo.id;
    println!(
        r#"
CODITECT License Management   {url}   docs: {url}/docs   metrics: see METRICS_ADDR
Demo tenant {tenant}, {SEATS} seats. Ctrl-C stops everything; the data stay.

# a token for alice (any name works), and one for an auditor
TOKEN=$(curl -s '{issuer}/token?sub=alice&tenant_id={IDENTITY_TENANT}')
AUDITOR=$(curl -s '{issuer}/token?sub=iris&tenant_id={IDENTITY_TENANT}&roles=auditor')

# acquire a seat
SESSION=$(curl -s {url}/api/v1/licenses/acquire -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d '{{"hardware_id":"laptop-of-alice"}}' | tee /dev/stderr | sed 's/.*"session_id":"\([^"]*\)".*/\1/')

# heartbeat, release
curl -s {url}/api/v1/licenses/heartbeat -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d "{{\"session_id\":\"$SESSION\"}}"
curl -s {url}/api/v1/licenses/release -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d "{{\"session_id\":\"$SESSION\"}}"

# what happened
curl -s {url}/api/v1/tenants/{tenant}/events -H "Authorization: Bearer $AUDITOR"
"#
    );
}
