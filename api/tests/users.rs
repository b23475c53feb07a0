//! Users and sessions through an admin's hands: added, invited, changed, removed, revoked; on every replica at once.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::{Settings, TestApp, problem, start};

async fn delete(app: &TestApp, path: &str, token: &str) -> Response {
    app.http.delete(format!("{}{path}", app.url())).bearer_auth(token).send().await.unwrap()
}

fn users(tenant: &Value) -> String {
    format!("/api/v1/tenants/{}/users", tenant["id"].as_str().unwrap())
}

async fn types(app: &TestApp, tenant: &Value) -> Vec<String> {
    let all = app.event_types(tenant).await;
    all.into_iter().filter(|name| name.starts_with("user_")).collect()
}

#[tokio::test]
async fn a_user_is_added_changed_and_removed_by_its_tenants_admin() {
    let app = start().await;
    let tenant = app.tenant(2).await;
    let (admin, list) = (app.role(&tenant, "tenant_admin"), users(&tenant));
    let body = json!({ "user_id": "alice", "email": "alice@example.com", "roles": ["auditor", "analyst", "auditor"] });
    problem(app.post(&list, &app.user(&tenant, "bob"), &body).await, 403, "forbidden").await;
    let added = app.post(&list, &admin, &body).await;
    assert_eq!(added.status(), StatusCode::CREATED);
    let etag = added.headers()["etag"].to_str().unwrap().to_owned();
    let added: Value = added.json().await.unwrap();
    assert_eq!(added["roles"], json!(["analyst", "auditor"]));
    assert_eq!(added["last_seen_at"], Value::Null);
    problem(app.post(&list, &admin, &body).await, 409, "conflict").await;

    // The stored role works with a token that has none.
    let events = format!("/api/v1/tenants/{}/events", tenant["id"].as_str().unwrap());
    let alice = app.user(&tenant, "alice");
    assert_eq!(app.get(&events, &alice).await.status(), StatusCode::OK);

    let own = format!("{list}/alice");
    let put = async |etag: &str, body: Value| {
        let request = app.http.put(format!("{}{own}/", app.url())).bearer_auth(&admin);
        request.header("If-Match", etag).json(&body).send().await.unwrap()
    };
    let same = put(&etag, json!({ "roles": ["auditor", "analyst"], "email": "alice@example.com" })).await;
    assert_eq!((same.status(), same.headers()["etag"].to_str().unwrap()), (StatusCode::OK, etag.as_str()));
    let changed = put(&etag, json!({ "roles": [] })).await;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"].to_str().unwrap(), etag);
    problem(put(&etag, json!({ "roles": ["auditor"] })).await, 412, "precondition_failed").await;
    problem(app.get(&events, &alice).await, 403, "forbidden").await;
    for (body, field) in [
        (json!({ "roles": ["platform_admin"] }), "roles"),
        (json!({ "roles": "auditor" }), "roles"),
        (json!({ "roles": null }), "roles"),
        (json!({ "email": "nobody" }), "email"),
        (json!({ "user_id": "bob" }), "user_id"),
    ] {
        let refused = problem(app.put(&own, &admin, &body).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], field);
    }
    problem(app.post(&list, &admin, &json!({})).await, 400, "invalid_request").await;
    for unknown in ["nobody", "%00", "a%0Ab"] {
        problem(app.get(&format!("{list}/{unknown}"), &admin).await, 404, "user_not_found").await;
        problem(delete(&app, &format!("{list}/{unknown}"), &admin).await, 404, "user_not_found").await;
    }
    let stale =
        app.http.delete(format!("{}{own}", app.url())).bearer_auth(&admin).header("If-Match", "\"0\"");
    problem(stale.send().await.unwrap(), 412, "precondition_failed").await;
    assert_eq!(delete(&app, &own, &admin).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(delete(&app, &own, &admin).await.status(), StatusCode::NO_CONTENT);
    problem(app.get(&own, &admin).await, 404, "user_not_found").await;
    problem(app.put(&own, &admin, &json!({ "roles": [] })).await, 404, "user_not_found").await;
    assert_eq!(types(&app, &tenant).await, ["user_added", "user_updated", "user_removed"]);
}

#[tokio::test]
async fn an_id_of_any_form_is_found_by_its_path() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let (admin, list) = (app.role(&tenant, "tenant_admin"), users(&tenant));
    for (user_id, in_path) in [
        ("google-oauth2|123", "google-oauth2%7C123"),
        ("a/b", "a%2Fb"),
        ("a b+c", "a%20b+c"),
        ("100%", "100%25"),
        ("ünï", "%C3%BCn%C3%AF"),
    ] {
        let added = app.post(&list, &admin, &json!({ "user_id": user_id })).await;
        assert_eq!(added.status(), StatusCode::CREATED);
        let found: Value = app.get(&format!("{list}/{in_path}"), &admin).await.json().await.unwrap();
        assert_eq!(found["user_id"], user_id, "{found}");
        assert_eq!(delete(&app, &format!("{list}/{in_path}"), &admin).await.status(), StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn an_invited_email_becomes_the_user_who_first_signs_in_with_it() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let (admin, list) = (app.role(&tenant, "tenant_admin"), users(&tenant));
    let invite = json!({ "email": "Carol@Example.com", "roles": ["auditor"] });
    let invited: Value = app.post(&list, &admin, &invite).await.json().await.unwrap();
    let placeholder = format!("{list}/{}", invited["user_id"].as_str().unwrap());
    problem(app.post(&list, &admin, &json!({ "email": "carol@example.com" })).await, 409, "conflict").await;
    let token = |sub: &str, verified: Value| {
        let claims = json!({ "sub": sub, "tenant_id": tenant["id"], "email": "carol@example.com", "email_verified": verified });
        app.token(&claims)
    };
    // An unverified email takes nothing, and its user joins without the roles.
    app.granted(&token("mallory", json!(false)), "laptop-of-mallory").await;
    assert_eq!(app.get(&placeholder, &admin).await.status(), StatusCode::OK);
    // Her first request of whatever kind signs her in: an auditor may never acquire.
    let events = format!("/api/v1/tenants/{}/events", tenant["id"].as_str().unwrap());
    assert_eq!(app.get(&events, &token("carol", json!(true))).await.status(), StatusCode::OK);
    problem(app.get(&placeholder, &admin).await, 404, "user_not_found").await;
    let carol: Value = app.get(&format!("{list}/carol"), &admin).await.json().await.unwrap();
    assert_eq!((&carol["roles"], &carol["email"]), (&json!(["auditor"]), &json!("carol@example.com")));
    let again = app.post(&list, &admin, &json!({ "email": "carol@example.com" })).await;
    problem(again, 409, "conflict").await;
    assert_eq!(types(&app, &tenant).await, ["user_added", "user_added", "user_removed", "user_added"]);

    // An invitation that is taken back leads nowhere, and its email may be invited again.
    let dave = json!({ "email": "dave@example.com", "roles": ["tenant_admin"] });
    let invited: Value = app.post(&list, &admin, &dave).await.json().await.unwrap();
    let path = format!("{list}/{}", invited["user_id"].as_str().unwrap());
    assert_eq!(app.put(&path, &admin, &json!({ "email": "d@example.com" })).await.status(), StatusCode::OK);
    assert_eq!(delete(&app, &path, &admin).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(app.post(&list, &admin, &dave).await.status(), StatusCode::CREATED);
    let claims = json!({ "sub": "dave", "tenant_id": tenant["id"], "email": "dave@example.com" });
    app.granted(&app.token(&claims), "laptop-of-dave").await;
    let dave: Value = app.get(&format!("{list}/dave"), &admin).await.json().await.unwrap();
    assert_eq!(dave["roles"], json!(["tenant_admin"]));
    assert!(dave["last_seen_at"].is_string());
}

#[tokio::test]
async fn a_removed_user_loses_its_seats_on_every_replica_until_it_is_added_again() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(2).await;
    let (admin, list) = (app.role(&tenant, "tenant_admin"), users(&tenant));
    let alice = app.token(&json!({ "sub": "alice", "tenant_id": tenant["id"], "email": "a@example.com" }));
    let held = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!(app.acquire_at(1, &alice, "desktop-of-alice").await.status(), StatusCode::OK);
    assert_eq!(delete(&app, &format!("{list}/alice"), &admin).await.status(), StatusCode::NO_CONTENT);
    for replica in [0, 1] {
        let path = "/api/v1/licenses/heartbeat";
        let body = json!({ "session_id": held["session_id"] });
        let ended = problem(app.post_to(replica, path, &alice, &body).await, 410, "session_ended").await;
        assert_eq!(ended["reason"], "revoked");
        problem(app.acquire_at(replica, &alice, "laptop-of-alice").await, 403, "forbidden").await;
        // The seats are free.
        let bob = app.user(&tenant, &format!("bob-{replica}"));
        assert_eq!(app.acquire_at(replica, &bob, "laptop-of-bob").await.status(), StatusCode::OK);
        let session: Value = app.acquire_at(replica, &bob, "laptop-of-bob").await.json().await.unwrap();
        app.release(&bob, &session["session_id"]).await;
    }
    // Invited again by her email alone, she is herself again at her next acquire.
    assert_eq!(
        app.post(&list, &admin, &json!({ "email": "a@example.com" })).await.status(),
        StatusCode::CREATED
    );
    for replica in [1, 0] {
        assert_eq!(app.acquire_at(replica, &alice, "laptop-of-alice").await.status(), StatusCode::OK);
    }
    assert_eq!(delete(&app, &format!("{list}/alice"), &admin).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(app.post(&list, &admin, &json!({ "user_id": "alice" })).await.status(), StatusCode::CREATED);
    assert_eq!(app.acquire_at(1, &alice, "laptop-of-alice").await.status(), StatusCode::OK);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_revoked_session_is_gone_on_every_replica() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let (tenant, other) = (app.tenant(1).await, app.tenant(1).await);
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    let session: Value = app.acquire_at(1, &alice, "laptop-of-alice").await.json().await.unwrap();
    let id = session["session_id"].as_str().unwrap();
    let path = format!("/api/v1/tenants/{}/sessions/{id}", tenant["id"].as_str().unwrap());
    problem(delete(&app, &path, &alice).await, 403, "forbidden").await;
    problem(delete(&app, &path, &app.role(&tenant, "analyst")).await, 403, "forbidden").await;
    problem(delete(&app, &path, &app.role(&other, "tenant_admin")).await, 404, "tenant_not_found").await;
    let elsewhere = format!("/api/v1/tenants/{}/sessions/{id}", other["id"].as_str().unwrap());
    problem(delete(&app, &elsewhere, &app.role(&other, "tenant_admin")).await, 404, "session_not_found")
        .await;
    problem(delete(&app, &elsewhere, &app.platform()).await, 404, "session_not_found").await;
    let admin = app.role(&tenant, "tenant_admin");
    let reason = format!("{path}?reason=left%20the%20company");
    assert_eq!(delete(&app, &reason, &admin).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(delete(&app, &path, &admin).await.status(), StatusCode::NO_CONTENT);
    let beat = app.post_to(1, "/api/v1/licenses/heartbeat", &alice, &json!({ "session_id": id })).await;
    assert_eq!(problem(beat, 410, "session_ended").await["reason"], "revoked");
    assert_eq!(app.acquire_at(1, &bob, "laptop-of-bob").await.status(), StatusCode::OK);
    for malformed in ["x", "0190f7c0e1d07c31a6d1a0f0a0f0a0f0"] {
        let path = format!("/api/v1/tenants/{}/sessions/{malformed}", tenant["id"].as_str().unwrap());
        problem(delete(&app, &path, &admin).await, 404, "session_not_found").await;
    }
    let recorded = app.events(&tenant).await;
    let revoked: Vec<_> = recorded.iter().filter(|one| one["type"] == "seat_revoked").collect();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0]["data"], json!({ "by": "tenant_admin", "reason": "left the company" }));
    app.assert_consistent().await;
}
