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
async fn tenants_and_licenses_are_made_by_the_platform_only() {
    let app = start().await;
    let tenant = app.tenant(2).await;
    let admin = app.role(&tenant, "tenant_admin");
    let body = json!({ "name": "Beta", "subdomain": "beta", "plan": "team", "max_seats": 7, "identity_tenant": "beta-idp" });
    problem(app.post("/api/v1/tenants", &admin, &body).await, 403, "forbidden").await;
    let made = app.post("/api/v1/tenants/", &app.platform(), &body).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert!(made.headers().contains_key("etag"));
    let made: Value = made.json().await.unwrap();
    assert_eq!((&made["max_seats"], &made["seats"]), (&json!(7), &json!({ "used": 0, "total": 7 })));
    problem(app.post("/api/v1/tenants", &app.platform(), &body).await, 409, "conflict").await;
    for (field, value) in [
        ("subdomain", json!("Not A Label")),
        ("max_seats", json!(-1)),
        ("max_seats", json!("7")),
        ("name", json!("")),
        ("identity_tenant", made["id"].clone()),
    ] {
        let mut bad = json!({ "name": "C", "subdomain": "c", "plan": "team", "max_seats": 1 });
        bad[field] = value;
        let refused =
            problem(app.post("/api/v1/tenants", &app.platform(), &bad).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], field);
    }
    // The identity provider's name of the tenant leads to it.
    let carol = app.token(&json!({ "sub": "carol", "tenant_id": "beta-idp" }));
    assert_eq!(app.granted(&carol, "laptop-of-carol").await["seats"]["total"], 7);

    let licenses = format!("/api/v1/tenants/{}/licenses", made["id"].as_str().unwrap());
    let second = json!({ "product": "coditect", "plan": "team", "seats_total": 1 });
    problem(app.post(&licenses, &app.platform(), &second).await, 409, "conflict").await;
    let other = json!({ "product": "coditect-pro", "plan": "pro", "seats_total": 1, "features": ["a"], "offline_grace_seconds": 600_000 });
    problem(app.post(&licenses, &app.role(&made, "tenant_admin"), &other).await, 403, "forbidden").await;
    let issued = app.post(&licenses, &app.platform(), &other).await;
    assert_eq!(issued.status(), StatusCode::CREATED);
    let issued: Value = issued.json().await.unwrap();
    assert_eq!(issued["features"], json!(["a"]));
    let seat = app
        .post(ACQUIRE, &carol, &json!({ "hardware_id": "laptop-of-carol", "product": "coditect-pro" }))
        .await;
    assert_eq!(seat.status(), StatusCode::OK);
    let list: Value = app.get(&licenses, &app.role(&made, "tenant_admin")).await.json().await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    eventually("the list of tenants", async || {
        let list: Value = app.get("/api/v1/tenants?limit=1000", &app.platform()).await.json().await.unwrap();
        list["items"].as_array().unwrap().len() == 2
    })
    .await;
}

#[tokio::test]
async fn a_license_changes_under_its_etag_and_takes_effect_at_once() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(1).await;
    let path = format!(
        "/api/v1/tenants/{}/licenses/{}",
        tenant["id"].as_str().unwrap(),
        tenant["license_id"].as_str().unwrap()
    );
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    let held = app.granted(&alice, "laptop-of-alice").await;
    problem(app.acquire_at(1, &bob, "laptop-of-bob").await, 409, "no_seats_available").await;
    let etag = app.get(&path, &app.platform()).await.headers()["etag"].to_str().unwrap().to_owned();
    let change = async |etag: &str, body: Value| {
        let request = app.http.put(format!("{}{path}", app.url())).bearer_auth(app.platform());
        request.header("If-Match", etag).json(&body).send().await.unwrap()
    };
    let changed = change(&etag, json!({ "seats_total": 2 })).await;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_eq!(app.acquire_at(1, &bob, "laptop-of-bob").await.status(), StatusCode::OK);
    problem(change(&etag, json!({ "seats_total": 3 })).await, 412, "precondition_failed").await;
    problem(change("\"nonsense\"", json!({ "seats_total": 3 })).await, 412, "precondition_failed").await;
    assert_eq!(change("*", json!({ "valid_until": "2020-01-01T00:00:00Z" })).await.status(), StatusCode::OK);
    problem(app.heartbeat(&alice, &held["session_id"]).await, 403, "license_expired").await;
    problem(app.acquire_at(1, &alice, "laptop-of-alice").await, 403, "license_expired").await;
    assert_eq!(change("*", json!({ "valid_until": null, "active": false })).await.status(), StatusCode::OK);
    problem(app.acquire_at(1, &alice, "laptop-of-alice").await, 403, "license_inactive").await;
    assert_eq!(change("*", json!({ "active": true })).await.status(), StatusCode::OK);
    assert_eq!(app.heartbeat(&alice, &held["session_id"]).await.status(), StatusCode::OK);
    let refused =
        problem(app.put(&path, &app.platform(), &json!({ "product": "x" })).await, 400, "invalid_request")
            .await;
    assert_eq!(refused["field"], "product");
    problem(
        app.put(&path, &app.role(&tenant, "tenant_admin"), &json!({ "seats_total": 9 })).await,
        403,
        "forbidden",
    )
    .await;
    let denials = app.events(&tenant).await;
    let reasons: Vec<_> = denials
        .iter()
        .filter(|one| one["type"] == "seat_denied")
        .map(|one| one["data"]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["no_seats_available", "license_expired", "license_inactive"]);
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
async fn a_deactivated_license_is_403_whatever_the_body_says() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let malformed = async || app.post("/api/v1/licenses/acquire", &alice, &json!({ "hardware_id": 7 })).await;
    problem(malformed().await, 400, "invalid_request").await;
    let path = format!(
        "/api/v1/tenants/{}/licenses/{}",
        tenant["id"].as_str().unwrap(),
        tenant["license_id"].as_str().unwrap()
    );
    let before = app.events(&tenant).await.len();
    assert_eq!(app.put(&path, &app.platform(), &json!({ "active": false })).await.status(), StatusCode::OK);
    problem(malformed().await, 403, "license_inactive").await;
    // The change of the license is recorded, and of the malformed acquires nothing.
    assert_eq!(app.events(&tenant).await.len(), before + 1);
}

#[tokio::test]
async fn a_tenant_shows_the_seats_of_its_first_license_under_a_new_etag() {
    let app = start().await;
    let tenant = app.tenant(5).await;
    let own = format!("/api/v1/tenants/{}", tenant["id"].as_str().unwrap());
    let etag = async || app.get(&own, &app.platform()).await.headers()["etag"].clone();
    let license = format!("{own}/licenses/{}", tenant["license_id"].as_str().unwrap());
    let before = etag().await;
    assert_eq!(
        app.put(&license, &app.platform(), &json!({ "plan": "other" })).await.status(),
        StatusCode::OK
    );
    assert_eq!(etag().await, before, "the plan of a license is not its tenant's");
    assert_eq!(
        app.put(&license, &app.platform(), &json!({ "seats_total": 7 })).await.status(),
        StatusCode::OK
    );
    assert_ne!(etag().await, before);
    let shown: Value = app.get(&own, &app.platform()).await.json().await.unwrap();
    assert_eq!((&shown["max_seats"], &shown["seats"]["total"]), (&json!(7), &json!(7)));
    let second = json!({ "product": "other", "plan": "p", "seats_total": 1 });
    let second: Value =
        app.post(&format!("{own}/licenses"), &app.platform(), &second).await.json().await.unwrap();
    let path = format!("{own}/licenses/{}", second["license_id"].as_str().unwrap());
    let before = etag().await;
    assert_eq!(app.put(&path, &app.platform(), &json!({ "seats_total": 3 })).await.status(), StatusCode::OK);
    assert_eq!(etag().await, before, "max_seats are the first license's alone");
    let recorded = app.events(&tenant).await;
    let tenant_updated: Vec<_> = recorded.iter().filter(|one| one["type"] == "tenant_updated").collect();
    assert_eq!(tenant_updated.len(), 1);
    assert_eq!(tenant_updated[0]["data"], json!({ "max_seats": 7 }));
}
