//! The documentation works: every command of docs/api.md runs, and docs/openapi.json is what the service serves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use support::start;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[tokio::test]
async fn every_command_of_the_api_walkthrough_runs() {
    let app = start().await;
    let output = tokio::process::Command::new("bash")
        .arg(docs().join("api-walkthrough.sh"))
        .env("API", app.url())
        .env("ISSUER", app.issuer.url())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let (said, ran) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{}", &ran[ran.len().saturating_sub(3_000)..]);
}

/// `UPDATE_OPENAPI=1` writes the file anew.
#[tokio::test]
async fn the_checked_in_openapi_document_is_the_served_one() {
    let app = start().await;
    let served = app.get("/openapi.json", "").await.text().await.unwrap();
    let document: Value = serde_json::from_str(&served).unwrap();
    let file = docs().join("openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &served).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert!(
        golden == served,
        "docs/openapi.json is old: UPDATE_OPENAPI=1 cargo test -p api --test docs writes it"
    );
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let named = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{named} has no summary");
            if let Some(body) = operation.get("requestBody") {
                assert!(
                    !body["content"]["application/json"]["example"].is_null(),
                    "{named}: no example of a request"
                );
            }
            let responses = operation["responses"].as_object().unwrap();
            let Some((_, good)) = responses.iter().find(|(status, _)| status.starts_with('2')) else {
                panic!("{named} never succeeds")
            };
            let contents = good["content"].as_object().into_iter().flatten();
            for (_, content) in contents.filter(|(media, _)| media.starts_with("application/json")) {
                assert!(!content["example"].is_null(), "{named} has no example of an answer");
            }
        }
    }
}
