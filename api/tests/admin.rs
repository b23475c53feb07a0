//! Tenants and licenses: who may make and change them, under which ETag, and from when a change holds.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually, problem, start};

const ACQUIRE: &str = "/api/v1/licenses/acquire";

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

#[tokio::test]
async fn a_tenant_changes_under_its_etag_and_on_every_replica_at_once() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(2).await;
    let own = format!("/api/v1/tenants/{}", tenant["id"].as_str().unwrap());
    let license = format!("{own}/licenses/{}", tenant["license_id"].as_str().unwrap());
    let put = async |etag: &str, body: Value| {
        let request = app.http.put(format!("{}{own}", app.url())).bearer_auth(app.platform());
        request.header("If-Match", etag).json(&body).send().await.unwrap()
    };
    let etag_of = async |path: &str| app.get(path, &app.platform()).await.headers()["etag"].clone();
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    let held = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!(app.acquire_at(1, &bob, "laptop-of-bob").await.status(), StatusCode::OK);

    // What changes nothing writes nothing, and keeps the ETag.
    let etag = etag_of(&own).await.to_str().unwrap().to_owned();
    let recorded = app.event_types(&tenant).await.len();
    let shown: Value = app.get(&own, &app.platform()).await.json().await.unwrap();
    let same = put(&etag, shown).await;
    assert_eq!(same.status(), StatusCode::OK);
    assert_eq!(same.headers()["etag"].to_str().unwrap(), etag);
    let whole: Value = app.get(&license, &app.platform()).await.json().await.unwrap();
    let license_etag = etag_of(&license).await;
    assert_eq!(app.put(&license, &app.platform(), &whole).await.headers()["etag"], license_etag);
    assert_eq!(app.event_types(&tenant).await.len(), recorded);

    // max_seats are the first license's: lowered, nobody is thrown out and nobody new gets in, on either replica.
    let lowered = put(&etag, json!({ "max_seats": 1, "name": "Acme & Co" })).await;
    assert_eq!(lowered.status(), StatusCode::OK);
    let lowered: Value = lowered.json().await.unwrap();
    assert_eq!((&lowered["max_seats"], &lowered["seats"]), (&json!(1), &json!({ "used": 2, "total": 1 })));
    assert_ne!(etag_of(&license).await, license_etag);
    problem(put(&etag, json!({ "max_seats": 5 })).await, 412, "precondition_failed").await;
    let carol = app.user(&tenant, "carol");
    for replica in [0, 1] {
        problem(app.acquire_at(replica, &carol, "laptop-of-carol").await, 409, "no_seats_available").await;
    }
    assert_eq!(app.heartbeat(&alice, &held["session_id"]).await.status(), StatusCode::OK);
    app.release(&alice, &held["session_id"]).await;
    problem(app.acquire_at(1, &carol, "laptop-of-carol").await, 409, "no_seats_available").await;
    assert_eq!(put("*", json!({ "max_seats": 2 })).await.status(), StatusCode::OK);
    let held: Value = app.acquire_at(1, &carol, "laptop-of-carol").await.json().await.unwrap();

    // Deactivated: refused from the answer on, everywhere; and back again.
    assert_eq!(put("*", json!({ "active": false })).await.status(), StatusCode::OK);
    for replica in [1, 0] {
        problem(app.acquire_at(replica, &carol, "laptop-of-carol").await, 403, "tenant_inactive").await;
        let body = json!({ "session_id": held["session_id"] });
        let beat = app.post_to(replica, "/api/v1/licenses/heartbeat", &carol, &body).await;
        problem(beat, 403, "tenant_inactive").await;
    }
    assert_eq!(put("*", json!({ "active": true })).await.status(), StatusCode::OK);
    for replica in [0, 1] {
        assert_eq!(app.acquire_at(replica, &carol, "laptop-of-carol").await.status(), StatusCode::OK);
    }
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_product_that_moves_to_another_license_is_granted_on_every_replica_at_once() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(1).await;
    let licenses = format!("/api/v1/tenants/{}/licenses", tenant["id"].as_str().unwrap());
    let first = format!("{licenses}/{}", tenant["license_id"].as_str().unwrap());
    let (alice, bob) = (app.user(&tenant, "alice"), app.user(&tenant, "bob"));
    assert_eq!(app.acquire_at(1, &alice, "laptop-of-alice").await.status(), StatusCode::OK);

    let switched = app.put(&first, &app.platform(), &json!({ "active": false })).await;
    assert_eq!(switched.status(), StatusCode::OK);
    let second = json!({ "product": "coditect", "plan": "p", "seats_total": 1 });
    assert_eq!(app.post(&licenses, &app.platform(), &second).await.status(), StatusCode::CREATED);
    assert_eq!(app.acquire_at(1, &bob, "laptop-of-bob").await.status(), StatusCode::OK);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_tenants_own_admin_changes_its_name_and_no_more() {
    let app = start().await;
    let tenant = app.tenant(2).await;
    let own = format!("/api/v1/tenants/{}", tenant["id"].as_str().unwrap());
    let admin = app.role(&tenant, "tenant_admin");
    for forbidden in [
        json!({ "plan": "enterprise" }),
        json!({ "max_seats": 99 }),
        json!({ "max_seats": "many" }),
        json!({ "active": false }),
        json!({ "identity_tenant": "mine" }),
        json!({ "name": "New", "plan": "enterprise" }),
    ] {
        problem(app.put(&own, &admin, &forbidden).await, 403, "forbidden").await;
    }
    for role in ["auditor", "analyst"] {
        problem(app.put(&own, &app.role(&tenant, role), &json!({ "name": "New" })).await, 403, "forbidden")
            .await;
    }
    let renamed = app.put(&own, &admin, &json!({ "name": "New", "plan": "team" })).await;
    assert_eq!(renamed.status(), StatusCode::OK);
    assert_eq!(renamed.json::<Value>().await.unwrap()["name"], "New");
    for (body, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": null }), "name"),
        (json!({ "max_seats": 1_000_001 }), "max_seats"),
        (json!({ "active": "yes" }), "active"),
        (json!({ "subdomain": "other" }), "subdomain"),
        (json!({ "identity_tenant": tenant["id"] }), "identity_tenant"),
    ] {
        let refused = problem(app.put(&own, &app.platform(), &body).await, 400, "invalid_request").await;
        assert_eq!(refused["field"], field);
    }
    // A name that another tenant holds, and one that is let go: who claims it next gets it at once.
    let other = app.tenant(1).await;
    let others = format!("/api/v1/tenants/{}", other["id"].as_str().unwrap());
    let name = json!({ "identity_tenant": "acme-idp" });
    assert_eq!(app.put(&own, &app.platform(), &name).await.status(), StatusCode::OK);
    problem(app.put(&others, &app.platform(), &name).await, 409, "conflict").await;
    let by_name = app.token(&json!({ "sub": "carol", "tenant_id": "acme-idp", "roles": ["tenant_admin"] }));
    assert_eq!(app.get(&own, &by_name).await.status(), StatusCode::OK);
    let none = json!({ "identity_tenant": null });
    assert_eq!(app.put(&own, &app.platform(), &none).await.status(), StatusCode::OK);
    problem(app.get(&own, &by_name).await, 404, "tenant_not_found").await;
    assert_eq!(app.put(&others, &app.platform(), &name).await.status(), StatusCode::OK);
    problem(app.get(&own, &by_name).await, 404, "tenant_not_found").await;
    assert_eq!(app.get(&others, &by_name).await.status(), StatusCode::OK);
}
