//! The OpenAPI document: what poem-openapi says of the code, with an example for each operation, and only those errors
//! that an operation can answer.

use serde_json::{Map, Value, json};

/// Examples of parameters, bodies and answers by operation.
const EXAMPLES: &str = include_str!("openapi/examples.json");

/// Sentences with which the document introduces itself.
pub const DESCRIPTION: &str = "Floating licenses: a tenant buys N seats, any of its people may work, at most N at a time.\n\n\
    Checks run in this order: 401, 404, 403, the body. A resource of another tenant answers as one that does not exist.\n\n\
    Lists are pages of JSON; with `Accept: application/x-ndjson` or `text/csv` they are streamed whole.";

/// The document, finished.
///
/// # Errors
/// When either text is no JSON: both are part of this program.
pub fn finish(document: &str) -> Result<Value, serde_json::Error> {
    let mut document: Value = serde_json::from_str(document)?;
    let examples: Value = serde_json::from_str(EXAMPLES)?;
    // What a server calls itself is its operator's matter.
    if let Some(document) = document.as_object_mut() {
        document.remove("servers");
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return Ok(document) };
    for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
        errors(operation);
        illustrate(operation, &examples["operations"][&name], &examples["parameters"]);
    }
    Ok(document)
}

/// Whether an operation can answer an error.
fn can_answer(operation: &Value, status: &str) -> bool {
    let name = operation["operationId"].as_str().unwrap_or_default();
    let has_body = operation.get("requestBody").is_some();
    let is_public = operation.get("security").is_none();
    let asks_in =
        |place: &str| operation["parameters"].as_array().into_iter().flatten().any(|one| one["in"] == place);
    let makes = ["create_tenant", "issue_license", "add_user"].contains(&name);
    match status {
        "503" => true,
        "401" | "404" | "403" | "429" => !is_public,
        "400" => has_body || asks_in("query"),
        "413" | "415" => has_body,
        "412" => asks_in("header") && (name.starts_with("change_") || name == "remove_user"),
        "409" => makes || name.starts_with("change_") || name == "acquire",
        "410" => ["acquire", "heartbeat"].contains(&name),
        _ => false,
    }
}

fn errors(operation: &mut Value) {
    let known = operation.clone();
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    responses.retain(|status, _| status.starts_with(['2', '3']) || can_answer(&known, status));
    for (status, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        let Some((code, title)) = first_code(status) else { continue };
        let content = response.get_mut("content").and_then(|one| one.get_mut("application/problem+json"));
        let Some(content) = content else { continue };
        content["example"] = json!({
            "type": format!("https://auth.coditect.ai/problems/{code}"), "title": title,
            "status": status.parse::<u16>().unwrap_or_default(), "detail": "For people: what went wrong.",
            "code": code, "request_id": "0192f0c9-1c1f-7000-8000-000000000001",
        });
    }
}

/// The code that an error's example shows.
fn first_code(status: &str) -> Option<(&'static str, &'static str)> {
    Some(match status {
        "400" => ("invalid_request", "Invalid request"),
        "401" => ("invalid_token", "Invalid token"),
        "403" => ("forbidden", "Forbidden"),
        "404" => ("tenant_not_found", "Tenant not found"),
        "409" => ("conflict", "Conflict"),
        "410" => ("session_ended", "Session ended"),
        "412" => ("precondition_failed", "Precondition failed"),
        "413" => ("body_too_large", "Body too large"),
        "415" => ("unsupported_media_type", "Unsupported media type"),
        "429" => ("rate_limited", "Rate limited"),
        "503" => ("unavailable", "Unavailable"),
        _ => return None,
    })
}

/// Puts an operation's examples where the document has a place for them.
fn illustrate(operation: &mut Value, examples: &Value, parameters: &Value) {
    // What is missing is looked for with `get_mut`: an index would put a null there.
    let listed = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in listed.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        if let Some(example) = parameters.get(name) {
            parameter["example"] = example.clone();
        }
    }
    if let (Some(request), Some(body)) = (examples.get("request"), operation.get_mut("requestBody")) {
        body["content"]["application/json"]["example"] = request.clone();
    }
    let Some(answer) = examples.get("answer") else { return };
    for status in ["200", "201"] {
        if let Some(content) = operation["responses"].get_mut(status).and_then(|one| one.get_mut("content")) {
            for (media, content) in content.as_object_mut().into_iter().flatten() {
                if media.starts_with("application/json") {
                    content["example"] = answer.clone();
                }
            }
        }
    }
}
