//! `dev --check`: one acquire, heartbeat, release and a look at the log, as a client would.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Issuer;
use super::demo::Demo;

/// Runs the check.
pub(super) async fn run(url: &str, issuer: &Issuer, demo: &Demo) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let claims = json!({ "sub": "check", "tenant_id": demo.id, "roles": ["auditor"] });
    let token = issuer.token(&claims)?;
    let post = async |path: &str, body: Value| -> anyhow::Result<Value> {
        let answer = client
            .post(format!("{url}/api/v1/licenses/{path}"))
            .bearer_auth(&token)
            .json(&body)
            .send()
            .await?;
        let status = answer.status();
        let answer: Value = answer.json().await.context(path.to_owned())?;
        ensure!(status.is_success(), "{path} was answered {status}: {answer}");
        Ok(answer)
    };
    let seat = post("acquire", json!({ "hardware_id": "check-of-dev" })).await?;
    let session_id = seat["session_id"].clone();
    let parts = seat["license_token"].as_str().map(|token| token.split('.').count());
    ensure!(matches!(parts, Some(3 | 4)), "no license token in {seat}");
    post("heartbeat", json!({ "session_id": session_id })).await?;
    post("release", json!({ "session_id": session_id })).await?;
    let id = session_id.as_str().context("no session id")?;
    let events: Value = client
        .get(format!("{url}/api/v1/tenants/{}/events?session_id={id}", demo.id))
        .bearer_auth(&token)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let types: Vec<_> =
        events["items"].as_array().into_iter().flatten().map(|event| event["type"].as_str()).collect();
    let whole = types.first() == Some(&Some("seat_acquired")) && types.last() == Some(&Some("seat_released"));
    ensure!(whole, "the log says {types:?}");
    println!("check: acquired, heartbeat, released, and the log has it");
    Ok(())
}
