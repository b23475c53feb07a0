//! The contract's answers to bad input, foreign tenants, repeated keys: a clear error, and nothing changed.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use futures_util::future::join_all;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually, problem, start};

const ACQUIRE: &str = "/api/v1/licenses/acquire";

async fn with_key(app: &TestApp, token: &str, key: &str, body: &Value) -> Response {
    let url = format!("{}{ACQUIRE}", app.url());
    app.http.post(url).bearer_auth(token).header("Idempotency-Key", key).json(body).send().await.unwrap()
}

#[tokio::test]
async fn a_bad_body_names_the_field_and_changes_nothing() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    for (body, field) in [
        (json!({}), "hardware_id"),
        (json!({ "hardware_id": 7 }), "hardware_id"),
        (json!({ "hardware_id": null }), "hardware_id"),
        (json!({ "hardware_id": "short" }), "hardware_id"),
        (json!({ "hardware_id": "white space 1" }), "hardware_id"),
        (json!({ "hardware_id": "laptop-of-alice", "machine_name": "x".repeat(65) }), "machine_name"),
        (json!({ "hardware_id": "laptop-of-alice", "machine_name": [] }), "machine_name"),
        (json!({ "hardware_id": "laptop-of-alice", "product": 1 }), "product"),
        (json!({ "hardware_id": "laptop-of-alice", "product": "No Such" }), "product"),
        (json!({ "hardware_id": "laptop-of-alice", "user_id": 1 }), "user_id"),
        (json!({ "hardware_id": "laptop-of-alice", "jwt_token": {} }), "jwt_token"),
    ] {
        let refused = problem(app.post(ACQUIRE, &alice, &body).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], field, "{body}");
    }
    for path in ["/api/v1/licenses/heartbeat", "/api/v1/licenses/release"] {
        for body in [json!({}), json!({ "session_id": "x" }), json!({ "session_id": 7 })] {
            let refused = problem(app.post(path, &alice, &body).await, 400, "invalid_request").await;
            assert_eq!(refused["field"], "session_id");
        }
    }
    let raw = async |body: Vec<u8>, content_type: Option<&str>| {
        let request = app.http.post(format!("{}{ACQUIRE}", app.url())).bearer_auth(&alice).body(body);
        match content_type {
            Some(content_type) => request.header("Content-Type", content_type).send().await.unwrap(),
            None => request.send().await.unwrap(),
        }
    };
    for bad in ["", "{", "[]", "7", "null", "{\"hardware_id\": \"\u{fffd}", &"[".repeat(5_000)] {
        problem(raw(bad.as_bytes().to_vec(), Some("application/json")).await, 400, "invalid_request").await;
    }
    problem(raw(vec![0xff, 0xfe], None).await, 400, "invalid_request").await;
    problem(raw(b"{}".to_vec(), Some("text/plain")).await, 415, "unsupported_media_type").await;
    let large = format!("{{\"hardware_id\": \"laptop-of-alice\", \"more\": \"{}\"}}", "x".repeat(64 * 1024));
    problem(raw(large.into_bytes(), Some("application/json")).await, 413, "body_too_large").await;
    assert_eq!(app.event_types(&tenant).await, ["tenant_created", "license_issued"], "nothing changed");

    // Unknown fields are ignored; a missing Content-Type is read as JSON.
    let good = json!({ "hardware_id": "laptop-of-alice", "colour": "blue", "machine_name": null });
    assert_eq!(raw(good.to_string().into_bytes(), None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn checks_run_in_the_contracts_order() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let bad = json!({ "user_id": "somebody-else", "hardware_id": 7 });
    problem(app.post(ACQUIRE, "no-token", &bad).await, 401, "invalid_token").await;
    let nowhere = app.token(&json!({ "sub": "alice", "tenant_id": "no-such-tenant" }));
    problem(app.post(ACQUIRE, &nowhere, &bad).await, 404, "tenant_not_found").await;
    let homeless = app.token(&json!({ "sub": "alice" }));
    problem(app.post(ACQUIRE, &homeless, &bad).await, 403, "forbidden").await;
    let alice = app.user(&tenant, "alice");
    let other = json!({ "user_id": "somebody-else", "hardware_id": 7, "product": "other" });
    problem(app.post(ACQUIRE, &alice, &other).await, 404, "license_not_found").await;
    problem(app.post(ACQUIRE, &alice, &bad).await, 403, "user_mismatch").await;
    problem(app.post(ACQUIRE, &alice, &json!({ "hardware_id": 7 })).await, 400, "invalid_request").await;
}

#[tokio::test]
async fn the_token_may_come_in_the_body_and_the_header_wins() {
    let app = start().await;
    let tenant = app.tenant(2).await;
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    let body = json!({ "hardware_id": "laptop-of-alice", "jwt_token": alice, "user_id": "alice" });
    let url = format!("{}{ACQUIRE}", app.url());
    let answer = app.http.post(&url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    problem(app.post(ACQUIRE, &bob, &body).await, 403, "user_mismatch").await;
    let answer = app.http.post(&url).header("Authorization", "Basic YTpi").json(&body).send().await.unwrap();
    assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
    problem(answer, 401, "invalid_token").await;
}

#[tokio::test]
async fn an_idempotency_key_never_takes_a_second_seat() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let alice = app.user(&tenant, "alice");
    let body = json!({ "hardware_id": "laptop-of-alice" });
    let first: Value = with_key(&app, &alice, "key-1", &body).await.json().await.unwrap();
    assert_eq!(first["status"], "granted");
    let with_token = json!({ "hardware_id": "laptop-of-alice", "jwt_token": alice });
    let again: Value = with_key(&app, &alice, "key-1", &with_token).await.json().await.unwrap();
    assert_eq!((&again["status"], &again["session_id"]), (&json!("renewed"), &first["session_id"]));
    let other = json!({ "hardware_id": "desktop-of-alice" });
    problem(with_key(&app, &alice, "key-1", &other).await, 409, "conflict").await;
    // Another user's key of the same name is another key.
    let bob: Value = with_key(&app, &app.user(&tenant, "bob"), "key-1", &other).await.json().await.unwrap();
    assert_eq!(bob["status"], "granted");

    app.release(&alice, &first["session_id"]).await;
    let ended = problem(with_key(&app, &alice, "key-1", &body).await, 410, "session_ended").await;
    assert_eq!(ended["reason"], "released");
    // Also while a later session of the same user and machine lives.
    app.granted(&alice, "laptop-of-alice").await;
    problem(with_key(&app, &alice, "key-1", &body).await, 410, "session_ended").await;

    for bad in ["", &"k".repeat(129), "schl\u{fc}ssel"] {
        let refused = problem(with_key(&app, &alice, bad, &body).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], "Idempotency-Key");
    }
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_key_that_renewed_is_remembered_too() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let alice = app.user(&tenant, "alice");
    let body = json!({ "hardware_id": "laptop-of-alice" });
    let held = app.granted(&alice, "laptop-of-alice").await;
    let renewed: Value = with_key(&app, &alice, "key-2", &body).await.json().await.unwrap();
    assert_eq!((&renewed["status"], &renewed["session_id"]), (&json!("renewed"), &held["session_id"]));
    let other = json!({ "hardware_id": "desktop-of-alice" });
    problem(with_key(&app, &alice, "key-2", &other).await, 409, "conflict").await;
    app.release(&alice, &held["session_id"]).await;
    problem(with_key(&app, &alice, "key-2", &body).await, 410, "session_ended").await;
}

#[tokio::test]
async fn one_key_at_once_from_two_machines_is_one_session() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(5).await;
    let alice = app.user(&tenant, "alice");
    let answers = join_all((0..6).map(|n| {
        let url = format!("{}{ACQUIRE}", app.replicas[n % 2].url);
        let body = json!({ "hardware_id": format!("machine-{}", n % 3) });
        app.http.post(url).bearer_auth(&alice).header("Idempotency-Key", "the-same").json(&body).send()
    }))
    .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 4, "{statuses:?}");
    let granted = app.event_types(&tenant).await.iter().filter(|one| *one == "seat_acquired").count();
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn a_refusal_stores_no_key() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    let held = app.granted(&alice, "laptop-of-alice").await;
    let body = json!({ "hardware_id": "laptop-of-bob" });
    problem(with_key(&app, &bob, "key-1", &body).await, 409, "no_seats_available").await;
    app.release(&alice, &held["session_id"]).await;
    let seat: Value = with_key(&app, &bob, "key-1", &body).await.json().await.unwrap();
    assert_eq!(seat["status"], "granted");
}

#[tokio::test]
async fn a_session_belongs_to_its_user() {
    let app = start().await;
    let (home, away) = (app.tenant(2).await, app.tenant(2).await);
    let seat = app.granted(&app.user(&home, "alice"), "laptop-of-alice").await;
    let id = &seat["session_id"];
    for stranger in [app.user(&home, "bob"), app.user(&away, "alice"), app.role(&home, "tenant_admin")] {
        problem(app.heartbeat(&stranger, id).await, 404, "session_not_found").await;
        problem(app.release(&stranger, id).await, 404, "session_not_found").await;
    }
    let nobodys = json!(uuid::Uuid::now_v7());
    problem(app.heartbeat(&app.user(&home, "alice"), &nobodys).await, 404, "session_not_found").await;
    assert_eq!(app.heartbeat(&app.user(&home, "alice"), id).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_whatever_its_roles() {
    let app = start().await;
    let (home, away) = (app.tenant(2).await, app.tenant(2).await);
    let id = |tenant: &Value| tenant["id"].as_str().unwrap().to_owned();
    let license = away["license_id"].as_str().unwrap();
    for role in ["tenant_admin", "auditor", "analyst"] {
        let token = app.role(&home, role);
        for path in [
            format!("/api/v1/tenants/{}", id(&away)),
            format!("/api/v1/tenants/{}/licenses", id(&away)),
            format!("/api/v1/tenants/{}/licenses/{license}", id(&away)),
            format!("/api/v1/tenants/{}/events", id(&away)),
            "/api/v1/tenants/not-an-id".to_owned(),
            format!("/api/v1/tenants/{}", uuid::Uuid::now_v7()),
        ] {
            problem(app.get(&path, &token).await, 404, "tenant_not_found").await;
        }
        let change = json!({ "seats_total": 9 });
        let path = format!("/api/v1/tenants/{}/licenses/{license}", id(&away));
        problem(app.put(&path, &token, &change).await, 404, "tenant_not_found").await;
        // Another tenant's license under one's own path does not exist either.
        if role == "tenant_admin" {
            let path = format!("/api/v1/tenants/{}/licenses/{license}", id(&home));
            problem(app.get(&path, &token).await, 404, "license_not_found").await;
            let list: Value = app.get("/api/v1/tenants", &token).await.json().await.unwrap();
            assert_eq!(list["items"].as_array().unwrap().len(), 1);
            assert_eq!(list["items"][0]["id"], home["id"]);
        }
    }
    let path = format!("/api/v1/tenants/{}/events", id(&home));
    problem(app.get(&path, &app.role(&home, "analyst")).await, 403, "forbidden").await;
    problem(app.get(&path, &app.user(&home, "alice")).await, 403, "forbidden").await;
    assert_eq!(app.get(&path, &app.role(&home, "auditor")).await.status(), StatusCode::OK);
    assert_eq!(app.get(&path, &app.platform()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn events_page_without_gap_or_repeat_and_filter() {
    let app = start().await;
    let tenant = app.tenant(5).await;
    let mut sessions = Vec::new();
    for n in 0..4 {
        let token = app.user(&tenant, &format!("user-{n}"));
        let seat = app.granted(&token, "some-machine").await;
        app.heartbeat(&token, &seat["session_id"]).await;
        sessions.push(seat["session_id"].clone());
    }
    eventually("all events", async || app.events(&tenant).await.len() == 14).await;
    let all = app.events(&tenant).await;
    let base = format!("/api/v1/tenants/{}/events", tenant["id"].as_str().unwrap());
    let auditor = app.role(&tenant, "auditor");
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = app.get(&format!("{base}?limit=3{after}"), &auditor).await.json().await.unwrap();
        paged.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, all);
    let count = async |query: &str| {
        let page: Value = app.get(&format!("{base}?{query}"), &auditor).await.json().await.unwrap();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(count("type=seat_acquired").await, 4);
    assert_eq!(count(&format!("session_id={}", sessions[0].as_str().unwrap())).await, 2);
    assert_eq!(count("user_id=user-1").await, 3);
    let third = all[2]["occurred_at"].as_str().unwrap();
    assert_eq!(
        count(&format!("to={third}")).await,
        all.iter().filter(|one| one["occurred_at"].as_str().unwrap() < third).count()
    );
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=zzz", "after"),
        ("after=9-1-1", "after"),
        ("from=yesterday", "from"),
        ("session_id=7", "session_id"),
    ] {
        let refused =
            problem(app.get(&format!("{base}?{query}"), &auditor).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], field, "{query}");
    }
    let acquired = all.iter().find(|one| one["type"] == "seat_acquired").unwrap();
    assert_eq!(acquired["license_id"], tenant["license_id"]);
    assert_eq!(acquired["data"]["seats_used"], 1);
    assert!(
        acquired["version"].is_i64() && acquired["request_id"].is_string() && acquired["cursor"].is_string()
    );
    let beat = all.iter().find(|one| one["type"] == "seat_heartbeat").unwrap();
    assert!(beat["version"].is_null() && beat["hardware_id"] == "some-machine");
}

#[tokio::test]
async fn a_deactivated_license_or_tenant_is_403_whatever_the_body_says() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let malformed = async || app.post(ACQUIRE, &alice, &json!({ "hardware_id": 7 })).await;
    problem(malformed().await, 400, "invalid_request").await;
    let path = format!(
        "/api/v1/tenants/{}/licenses/{}",
        tenant["id"].as_str().unwrap(),
        tenant["license_id"].as_str().unwrap()
    );
    let before = app.events(&tenant).await.len();
    assert_eq!(app.put(&path, &app.platform(), &json!({ "active": false })).await.status(), StatusCode::OK);
    problem(malformed().await, 403, "license_inactive").await;
    let client = app.superuser().await;
    client.execute("update streams set tenant_active = false", &[]).await.unwrap();
    problem(malformed().await, 403, "tenant_inactive").await;
    let no_product = json!({ "hardware_id": "laptop-of-alice", "product": "No Such" });
    problem(app.post(ACQUIRE, &alice, &no_product).await, 403, "tenant_inactive").await;
    // The change of the license is recorded, and of the malformed acquires nothing.
    assert_eq!(app.events(&tenant).await.len(), before + 1);
}
