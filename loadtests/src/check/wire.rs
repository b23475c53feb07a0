//! One request: sent within a bounded time, its answer read as the contract has it, both kept in the history.
//!
//! 503 and every other 5xx leave open whether the request took effect, as does no answer at all. Everything
//! else that is no success is a refusal, which must have changed nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::history::{Act, Outcome};
use super::recorder::{Asked, Recorder};

/// Sends requests and keeps what they came to.
#[derive(Clone)]
pub(crate) struct Wire {
    client: reqwest::Client,
    replicas: Arc<[String]>,
    pub recorder: Arc<Recorder>,
}

/// What the sender learns.
pub(crate) struct Answered {
    pub id: u64,
    pub outcome: Outcome,
}

/// What a request is made of, besides who asks.
struct Shape {
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Wire {
    pub fn new(replicas: &[String], timeout: Duration, recorder: Arc<Recorder>) -> Result<Self> {
        // A redirect or a retry of the client's own would send what the history does not know.
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()?;
        let replicas = replicas.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { client, replicas, recorder })
    }

    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Sends it to `asked.replica`, counted round.
    pub async fn call(&self, token: &str, asked: Asked, if_match: Option<&str>) -> Answered {
        let asked = Asked { replica: asked.replica % self.replicas.len(), ..asked };
        let shape = shape(&asked);
        let url = format!("{}{}", self.replicas[asked.replica], shape.path);
        let (id, request_id, sent) = self.recorder.invoke(&asked);
        let mut request =
            self.client.request(shape.method, url).bearer_auth(token).header("X-Request-Id", &request_id);
        if let Act::Acquire { key: Some(key), .. } = &asked.act {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(if_match) = if_match {
            request = request.header("If-Match", if_match);
        }
        if let Some(body) = &shape.body {
            request = request.json(body);
        }
        let outcome = match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Outcome::Unknown { why: brief(&error) },
        };
        self.recorder.done(id, request_id, sent, asked, outcome.clone());
        Answered { id, outcome }
    }

    /// A question that changes nothing and is no part of the history.
    pub async fn get(&self, token: &str, replica: usize, path: &str) -> Result<(u16, Value, Option<String>)> {
        let url = format!("{}{path}", self.replicas[replica % self.replicas.len()]);
        let response = self.client.get(url).bearer_auth(token).send().await?;
        let (status, etag) = (response.status().as_u16(), etag(&response));
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null), etag))
    }
}

fn shape(asked: &Asked) -> Shape {
    let tenant = &asked.tenant;
    let (method, path, body) = match &asked.act {
        Act::Acquire { product, machine, .. } => (
            Method::POST,
            "/api/v1/licenses/acquire".to_owned(),
            Some(json!({"hardware_id": machine, "product": product, "user_id": asked.user})),
        ),
        Act::Heartbeat { session } => {
            (Method::POST, "/api/v1/licenses/heartbeat".to_owned(), Some(json!({"session_id": session})))
        }
        Act::Release { session } => {
            (Method::POST, "/api/v1/licenses/release".to_owned(), Some(json!({"session_id": session})))
        }
        Act::SetSeats { license, seats } => (
            Method::PUT,
            format!("/api/v1/tenants/{tenant}/licenses/{license}"),
            Some(json!({"seats_total": seats})),
        ),
        Act::SetLicenseActive { license, active } => (
            Method::PUT,
            format!("/api/v1/tenants/{tenant}/licenses/{license}"),
            Some(json!({"active": active})),
        ),
        Act::SetTenantActive { active } => {
            (Method::PUT, format!("/api/v1/tenants/{tenant}"), Some(json!({"active": active})))
        }
        Act::Revoke { session } => {
            (Method::DELETE, format!("/api/v1/tenants/{tenant}/sessions/{session}"), None)
        }
        Act::RemoveUser { removed } => {
            (Method::DELETE, format!("/api/v1/tenants/{tenant}/users/{removed}"), None)
        }
        Act::AddUser { added } => {
            (Method::POST, format!("/api/v1/tenants/{tenant}/users"), Some(json!({"user_id": added})))
        }
        Act::Trespass { method, path, session, .. } => (
            method.parse().unwrap_or(Method::GET),
            path.clone(),
            session.as_ref().map(|session| json!({"session_id": session})),
        ),
    };
    Shape { method, path, body }
}

async fn read(response: Response) -> Outcome {
    let status = response.status();
    match response.text().await {
        Ok(text) => outcome(status, &text),
        Err(error) => Outcome::Unknown { why: brief(&error) },
    }
}

/// What an answer means.
fn outcome(status: StatusCode, text: &str) -> Outcome {
    let mut body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    if let Some(fields) = body.as_object_mut() {
        // Long, and nothing that the checker asks about.
        fields.retain(|name, _| name != "license_token" && name != "public_key");
    }
    let status_code = status.as_u16();
    if status.is_success() {
        Outcome::Ok { status: status_code, body }
    } else if status.is_server_error() {
        let said = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        Outcome::Unknown { why: format!("{status_code} {}: {}", said("code"), said("detail")) }
    } else {
        let code = body["code"].as_str().unwrap_or("").to_owned();
        Outcome::Refused { status: status_code, code, body }
    }
}

fn etag(response: &Response) -> Option<String> {
    response.headers().get("etag")?.to_str().ok().map(str::to_owned)
}

/// The innermost cause: what the network said.
fn brief(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_says_that_nothing_happened() {
        let read = |status: u16, text: &str| outcome(StatusCode::from_u16(status).unwrap_or_default(), text);
        assert!(matches!(read(200, r#"{"status":"ok"}"#), Outcome::Ok { status: 200, .. }));
        assert!(matches!(read(503, r#"{"code":"unavailable"}"#), Outcome::Unknown { .. }));
        assert!(matches!(read(502, "<html>"), Outcome::Unknown { .. }));
        let Outcome::Refused { status, code, .. } = read(409, r#"{"code":"no_seats_available"}"#) else {
            unreachable!("a refusal")
        };
        assert_eq!((status, code.as_str()), (409, "no_seats_available"));
    }

    #[test]
    fn tokens_are_not_kept() {
        let Outcome::Ok { body, .. } = outcome(StatusCode::OK, r#"{"license_token":"x","session_id":"s"}"#)
        else {
            unreachable!("a success")
        };
        assert_eq!(body, serde_json::json!({"session_id": "s"}));
    }
}
