//! Acquire, heartbeat, release over HTTP, on real Postgres and Redis.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually, problem, start};

#[tokio::test]
async fn a_session_from_acquire_to_release() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let alice = app.user(&tenant, "alice");

    let seat = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!(seat["status"], "granted");
    assert_eq!(seat["seats"], json!({ "used": 1, "total": 3 }));
    assert_eq!(
        (&seat["heartbeat_interval_seconds"], &seat["session_ttl_seconds"]),
        (&json!(300), &json!(360))
    );

    let beat = app.heartbeat(&alice, &seat["session_id"]).await;
    assert_eq!(beat.status(), StatusCode::OK);
    let beat: Value = beat.json().await.unwrap();
    assert_eq!(beat["status"], "ok");
    assert!(beat["expires_at"].as_str().unwrap().ends_with('Z'));

    for _ in 0..2 {
        let released = app.release(&alice, &seat["session_id"]).await;
        assert_eq!(released.status(), StatusCode::OK);
        assert_eq!(released.json::<Value>().await.unwrap(), json!({ "status": "released" }));
    }
    let ended = problem(app.heartbeat(&alice, &seat["session_id"]).await, 410, "session_ended").await;
    assert_eq!(ended["reason"], "released");
    eventually("the log", async || {
        app.event_types(&tenant).await
            == [
                "tenant_created",
                "license_issued",
                "user_added",
                "seat_acquired",
                "seat_heartbeat",
                "seat_released",
            ]
    })
    .await;
    app.assert_consistent().await;
}

#[tokio::test]
async fn the_token_verifies_offline_with_the_published_key() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let seat = app.granted(&app.user(&tenant, "alice"), "laptop-of-alice").await;
    let token = seat["license_token"].as_str().unwrap();

    let jwks = app.http.get(format!("{}/.well-known/jwks.json", app.url())).send().await.unwrap();
    assert_eq!(jwks.headers()["cache-control"], "public, max-age=3600");
    let etag = jwks.headers()["etag"].clone();
    let url = format!("{}/.well-known/jwks.json", app.url());
    let same = app.http.get(url).header("If-None-Match", etag).send().await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    let set: JwkSet = jwks.json().await.unwrap();
    let header = decode_header(token).unwrap();
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::RS256, Some("JWT")));
    let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["coditect"]);
    validation.set_issuer(&["https://auth.coditect.ai"]);
    validation.validate_nbf = true;
    let claims = decode::<Value>(token, &DecodingKey::from_jwk(jwk).unwrap(), &validation).unwrap().claims;
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["user_id"], "alice");
    assert_eq!(claims["hardware_id"], "laptop-of-alice");
    assert_eq!(claims["tenant_id"], tenant["id"]);
    assert_eq!(claims["license_id"], tenant["license_id"]);
    assert_eq!(claims["session_id"], seat["session_id"]);
    assert_eq!(
        (&claims["plan"], &claims["product"], &claims["features"]),
        (&json!("team"), &json!("coditect"), &json!([]))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
    let expires = events::Time::parse(seat["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(claims["exp"], expires.seconds());

    // The PEM of the answer and of /public-key is the same key: 4096 bits.
    let key: Value =
        app.http.get(format!("{}/api/v1/public-key", app.url())).send().await.unwrap().json().await.unwrap();
    assert_eq!((&key["public_key"], &key["alg"]), (&seat["public_key"], &json!("RS256")));
    assert_eq!(key["kid"].as_str(), header.kid.as_deref());
    let pem = DecodingKey::from_rsa_pem(seat["public_key"].as_str().unwrap().as_bytes()).unwrap();
    assert!(decode::<Value>(token, &pem, &validation).is_ok());
}

#[tokio::test]
async fn ten_users_five_seats_through_three_replicas() {
    let app = TestApp::start(Settings { replicas: 3, ..Settings::default() }).await;
    let tenant = app.tenant(5).await;
    let tokens: Vec<_> = (0..10).map(|n| app.user(&tenant, &format!("user-{n}"))).collect();
    let answers =
        join_all(tokens.iter().enumerate().map(|(n, token)| app.acquire_at(n % 3, token, "machine-1"))).await;
    let granted = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
    assert_eq!(granted, 5);
    for answer in answers.into_iter().filter(|answer| answer.status() != StatusCode::OK) {
        assert!(answer.headers().contains_key("retry-after"));
        let refused = problem(answer, 409, "no_seats_available").await;
        assert_eq!(refused["title"], "No seats available");
        assert_eq!(refused["seats"], json!({ "used": 5, "total": 5 }));
    }
    eventually("five denials", async || {
        app.event_types(&tenant).await.iter().filter(|one| *one == "seat_denied").count() == 5
    })
    .await;
    app.assert_consistent().await;
}

#[tokio::test]
async fn the_same_user_on_the_same_machine_at_once_through_two_replicas_is_one_session() {
    let app = TestApp::start(Settings { replicas: 2, ..Settings::default() }).await;
    let tenant = app.tenant(5).await;
    let alice = app.user(&tenant, "alice");
    let answers = join_all((0..8).map(|n| app.acquire_at(n % 2, &alice, "laptop-of-alice"))).await;
    let mut sessions = BTreeSet::new();
    let mut statuses = Vec::new();
    for answer in answers {
        assert_eq!(answer.status(), StatusCode::OK);
        let body: Value = answer.json().await.unwrap();
        sessions.insert(body["session_id"].as_str().unwrap().to_owned());
        statuses.push(body["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(sessions.len(), 1);
    assert_eq!(statuses.iter().filter(|status| *status == "granted").count(), 1);
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_crashed_clients_seat_is_free_again_also_when_its_replica_is_gone() {
    let mut app = TestApp::start(Settings { replicas: 2, ttl_seconds: 2, ..Settings::default() }).await;
    let tenant = app.tenant(1).await;
    app.granted(&app.user(&tenant, "alice"), "laptop-of-alice").await;
    // The replica that granted it is gone; the other has never heard of the pool.
    app.replicas.remove(0).crash().await;
    let bob = app.user(&tenant, "bob");
    problem(app.acquire(&bob, "laptop-of-bob").await, 409, "no_seats_available").await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let seat = app.granted(&bob, "laptop-of-bob").await;
    assert_eq!(seat["status"], "granted");
    assert!(app.event_types(&tenant).await.contains(&"seat_expired".to_owned()));
    app.assert_consistent().await;
}
