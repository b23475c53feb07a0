//! Evidence over HTTP: who is shown what, and that it verifies with the published keys.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use audit::{Checkpoint, EventProof, PublicKeys, TenantCheckpoint};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{TestApp, eventually, problem, start};

async fn read(app: &TestApp, path: &str, token: &str) -> Value {
    let answer = app.get(path, token).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn evidence_is_shown_to_those_it_concerns_and_verifies() {
    let app = start().await;
    let (tenant, other) = (app.tenant(2).await, app.tenant(3).await);
    app.granted(&app.user(&tenant, "ada"), "laptop-of-ada").await;
    let base = format!("/api/v1/tenants/{}", tenant["id"].as_str().unwrap());
    let auditor = app.role(&tenant, "auditor");
    let grant = app.events(&tenant).await.into_iter().find(|event| event["type"] == "seat_acquired").unwrap();
    let proof_path = format!("{base}/events/{}/proof", grant["event_id"].as_str().unwrap());
    eventually("the grant is sealed", async || {
        app.get(&proof_path, &auditor).await.status() == StatusCode::OK
    })
    .await;

    let keys =
        reqwest::get(format!("{}/.well-known/jwks.json", app.url())).await.unwrap().text().await.unwrap();
    let keys = PublicKeys::parse(&keys).unwrap();
    let proof: EventProof = serde_json::from_value(read(&app, &proof_path, &auditor).await).unwrap();
    assert_eq!(proof.check(&keys).unwrap(), Ok(()));
    let own = read(&app, &format!("{base}/checkpoints"), &auditor).await;
    let own: TenantCheckpoint = serde_json::from_value(own["items"][0].clone()).unwrap();
    assert!(own.hangs_together().unwrap());

    // Anybody may read the public chain, page by page, and it names no tenant.
    let url = |query: &str| format!("{}/api/v1/checkpoints{query}", app.url());
    let first: Value = reqwest::get(url("?limit=1")).await.unwrap().json().await.unwrap();
    assert!(!first.to_string().contains(tenant["id"].as_str().unwrap()));
    let first: Checkpoint = serde_json::from_value(first["items"][0].clone()).unwrap();
    assert!(first.number == 1 && first.is_signed_by(&keys).unwrap());
    // The keys of checkpoints outlive those of tokens.
    let ever = reqwest::get(url("/keys")).await.unwrap().text().await.unwrap();
    assert!(first.is_signed_by(&PublicKeys::parse(&ever).unwrap()).unwrap(), "{ever}");
    let rest: Value = reqwest::get(url("?after=1")).await.unwrap().json().await.unwrap();
    assert!(rest["items"].as_array().unwrap().iter().all(|one| one["number"] != 1));
    for bad in ["?after=x", "?after=-1", "?after=99999999999999999999", "?limit=0"] {
        problem(reqwest::get(url(bad)).await.unwrap(), 400, "invalid_request").await;
    }

    // Roles, tenants, ranges.
    for path in [&format!("{base}/checkpoints"), &proof_path, &format!("{base}/certificate?from=x&to=y")] {
        problem(app.get(path, &app.role(&tenant, "analyst")).await, 403, "forbidden").await;
        problem(app.get(path, &app.role(&other, "auditor")).await, 404, "tenant_not_found").await;
        problem(app.get(path, "nonsense").await, 401, "invalid_token").await;
    }
    let foreign = format!(
        "/api/v1/tenants/{}/events/{}/proof",
        other["id"].as_str().unwrap(),
        grant["event_id"].as_str().unwrap()
    );
    problem(app.get(&foreign, &app.role(&other, "auditor")).await, 404, "not_found").await;
    problem(app.get(&format!("{base}/events/none/proof"), &auditor).await, 404, "not_found").await;
    for range in [
        "",
        "?from=2026-01-01T00:00:00Z",
        "?from=x&to=2026-01-01T00:00:00Z",
        "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?from=2026-01-02T00:00:00Z&to=2999-01-01T00:00:00Z",
    ] {
        problem(app.get(&format!("{base}/certificate{range}"), &auditor).await, 400, "invalid_request").await;
    }
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let range = format!("{base}/certificate?from=2026-01-01T00:00:00Z&to={now}");
    let settling = app.get(&range, &auditor).await;
    assert!([400, 503].contains(&settling.status().as_u16()), "its clock may be behind ours");
    the_commands_agree(&app, &tenant, &grant, &range).await;
    let past = read(
        &app,
        &format!("{base}/certificate?from=2025-01-01T00:00:00Z&to=2025-02-01T00:00:00Z"),
        &auditor,
    )
    .await;
    assert_eq!(past["certificate"]["licenses"], json!([]), "the license was not there yet");
}

/// What the API handed out, and what the commands write, verify by the commands; without a server, and with one forged
/// letter not.
async fn the_commands_agree(app: &TestApp, tenant: &Value, grant: &Value, range: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let run = async |arguments: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"));
        command.args(arguments.split(' ')).current_dir(folder.path());
        command.env("DATABASE_URL", app.database.url()).output().await.unwrap()
    };
    let keys = reqwest::get(format!("{}/api/v1/checkpoints/keys", app.url())).await.unwrap();
    std::fs::write(file("keys"), keys.text().await.unwrap()).unwrap();
    let tenant_id = tenant["id"].as_str().unwrap();

    let proof =
        run(&format!("prove --tenant {tenant_id} --event {}", grant["event_id"].as_str().unwrap())).await;
    assert!(proof.status.success(), "{proof:?}");
    let proof = String::from_utf8(proof.stdout).unwrap();
    std::fs::write(file("proof"), &proof).unwrap();
    std::fs::write(file("forged"), proof.replace("\"ada\"", "\"eve\"")).unwrap();
    assert_eq!(run("verify --proof proof --public-key keys").await.status.code(), Some(0));
    assert_eq!(run("verify --proof forged --public-key keys").await.status.code(), Some(3));
    let nobody = run(&format!("prove --tenant {tenant_id} --event {}", uuid::Uuid::now_v7())).await;
    assert_eq!(nobody.status.code(), Some(1));

    let auditor = app.role(tenant, "auditor");
    let mut certificate = app.get(range, &auditor).await;
    for _ in 0..60 {
        if certificate.status() == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        certificate = app.get(range, &auditor).await;
    }
    let certificate = certificate.text().await.unwrap();
    assert!(certificate.contains("\"peak\":1"), "{certificate}");
    std::fs::write(file("certificate"), &certificate).unwrap();
    std::fs::write(file("forged"), certificate.replace("\"peak\":1", "\"peak\":2")).unwrap();
    for what in ["events", "checkpoints"] {
        let exported = run(&format!("export --tenant {tenant_id} --what {what} --to {what}")).await;
        assert!(exported.status.success(), "{exported:?}");
    }
    let offline = "--export events --checkpoints checkpoints --public-key keys";
    let verified = run(&format!("verify --certificate certificate {offline}")).await;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert_eq!(run(&format!("verify --certificate forged {offline}")).await.status.code(), Some(3));
    assert_eq!(run(&format!("verify {offline}")).await.status.code(), Some(0));
}
