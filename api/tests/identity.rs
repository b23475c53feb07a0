//! Whom the service believes: a corpus of bad JWTs, rotation, an issuer that is down, claims by path.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use api::signing::LocalSigner;
use arc_swap::ArcSwap;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use poem::http::StatusCode as Code;
use poem::web::{Data, Json};
use poem::{EndpointExt, IntoResponse, Route, Server, get, handler};
use reqwest::StatusCode;
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use support::{Settings, TestApp, eventually, problem, start};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(app: &TestApp, tenant: &Value) -> Value {
    json!({
        "iss": app.issuer.url(), "aud": "coditect-license", "sub": "alice", "exp": now() + 600, "iat": now(),
        "tenant_id": tenant["id"],
    })
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair of an issuer in a test.
struct Pair {
    pem: String,
    kid: String,
}

impl Pair {
    fn new(kid: &str) -> Self {
        Self { pem: LocalSigner::generate_pem(KeySize::Rsa2048).unwrap(), kid: kid.to_owned() }
    }

    fn jwk(&self) -> Value {
        let key = rsa::PrivateKey::from_pkcs8_pem(&self.pem).unwrap();
        let number = |bytes: Box<[u8]>| b64(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]);
        json!({ "kty": "RSA", "kid": self.kid, "n": number(key.n_bytes()), "e": number(key.e_bytes()) })
    }

    fn sign(&self, header: Header, claims: &Value) -> String {
        encode(&header, claims, &EncodingKey::from_rsa_pem(self.pem.as_bytes()).unwrap()).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::RS256) }, claims)
    }
}

/// An issuer whose keys a test changes, and which may be down.
#[derive(Clone)]
struct Elsewhere {
    set: Arc<ArcSwap<Value>>,
    down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

#[handler]
fn jwks(elsewhere: Data<&Elsewhere>) -> poem::Response {
    elsewhere.asked.fetch_add(1, Ordering::SeqCst);
    if elsewhere.down.load(Ordering::SeqCst) {
        return Code::INTERNAL_SERVER_ERROR.into_response();
    }
    Json(elsewhere.set.load().as_ref().clone()).with_header("Cache-Control", "max-age=30").into_response()
}

/// A service that believes an issuer of the test's own.
async fn believing(keys: Value, settings: Settings) -> (TestApp, Elsewhere) {
    let elsewhere =
        Elsewhere { set: Arc::new(ArcSwap::from_pointee(keys)), down: Arc::default(), asked: Arc::default() };
    let (acceptor, address) = api::app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    tokio::spawn(
        Server::new_with_acceptor(acceptor).run(Route::new().at("/jwks", get(jwks)).data(elsewhere.clone())),
    );
    let mut app = TestApp::start(settings).await;
    app.config.identity.oidc_jwks_url = Some(format!("http://{address}/jwks"));
    app.add_replica().await;
    (app, elsewhere)
}

async fn acquire_there(app: &TestApp, token: &str) -> reqwest::Response {
    app.acquire_at(1, token, "laptop-of-alice").await
}

#[tokio::test]
async fn a_corpus_of_bad_tokens_is_refused_and_changes_nothing() {
    let pair = Pair::new("one");
    let (app, _) = believing(json!({ "keys": [pair.jwk()] }), Settings::default()).await;
    let tenant = app.tenant(1).await;
    let good = claims(&app, &tenant);
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        pair.token(&claims)
    };
    let without = |field: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(field);
        pair.token(&claims)
    };
    let raw = |header: Value, signature: &str| {
        format!("{}.{}.{signature}", b64(header.to_string()), b64(good.to_string()))
    };
    let public = rsa::PrivateKey::from_pkcs8_pem(&pair.pem).unwrap().to_public_key();
    let public = public.to_public_key_pem(LineEnding::LF).unwrap();
    let hs256 = |secret: &[u8]| {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let rs512 = pair.sign(Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::RS512) }, &good);
    let kid =
        |kid: &str| pair.sign(Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) }, &good);
    let whole = pair.token(&good);
    let (start, signature) = whole.rsplit_once('.').unwrap();
    let mut tampered: Vec<_> = whole.split('.').map(str::to_owned).collect();
    tampered[1] = b64(json!({ "sub": "root" }).to_string());

    let corpus = [
        ("empty", String::new()),
        ("words", "not a token".to_owned()),
        ("alg none", raw(json!({ "alg": "none", "kid": "one" }), "")),
        ("alg None", raw(json!({ "alg": "None", "kid": "one" }), "")),
        ("HS256 with the public key", hs256(public.as_bytes())),
        ("HS256 with the public key, trimmed", hs256(public.trim().as_bytes())),
        ("RS512 of an RS256 key", rs512),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("iss as a list", with("iss", json!([app.issuer.url()]))),
        ("iss as a number", with("iss", json!(7))),
        ("no iss", without("iss")),
        ("another audience", with("aud", json!("somebody-else"))),
        ("aud as a number", with("aud", json!(7))),
        ("no aud", without("aud")),
        ("expired", with("exp", json!(now() - 31))),
        ("exp as a text", with("exp", json!((now() + 600).to_string()))),
        ("exp as a list", with("exp", json!([now() + 600]))),
        ("exp as a bool", with("exp", json!(true))),
        ("exp negative", with("exp", json!(-1))),
        ("no exp", without("exp")),
        ("not yet", with("nbf", json!(now() + 60))),
        ("nbf as a text", with("nbf", json!("later"))),
        ("no sub", without("sub")),
        ("sub empty", with("sub", json!(""))),
        ("sub as a number", with("sub", json!(7))),
        ("sub too long", with("sub", json!("s".repeat(129)))),
        ("an unknown kid", kid("two")),
        ("a path as kid", kid("../../etc/passwd")),
        ("a long kid", kid(&"k".repeat(4_000))),
        ("kid as a number", raw(json!({ "alg": "RS256", "kid": 7 }), signature)),
        ("tampered", tampered.join(".")),
        ("no signature", format!("{start}.")),
        ("a short signature", format!("{start}.{}", &signature[..20])),
        ("one dot more", format!("{whole}.x")),
        ("a critical header", raw(json!({ "alg": "RS256", "kid": "one", "crit": ["exp"] }), signature)),
    ];
    for (what, token) in corpus {
        let answer = acquire_there(&app, &token).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{what}");
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{what}");
        problem(answer, 401, "invalid_token").await;
    }
    assert_eq!(app.event_types(&tenant).await, ["tenant_created", "license_issued"]);
    for token in
        [whole, with("aud", json!(["x", "coditect-license"])), with("exp", json!(now() - 5)), kid("one")]
    {
        assert_eq!(acquire_there(&app, &token).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_key_is_used_with_its_own_algorithm() {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    let pkcs8 = pkcs8.unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    let point = pair.public_key().as_ref();
    let ec =
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
    let rsa = Pair::new("rsa");
    let odd = json!({ "kty": "OKP", "crv": "Ed448", "kid": "odd", "x": "AA" });
    let (app, _) = believing(json!({ "keys": [odd, ec, rsa.jwk()] }), Settings::default()).await;
    let tenant = app.tenant(2).await;
    let claims = claims(&app, &tenant);
    let key = EncodingKey::from_ec_der(pkcs8.as_ref());
    let es256 = |kid: &str| {
        encode(&Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) }, &claims, &key).unwrap()
    };
    assert_eq!(acquire_there(&app, &es256("ec")).await.status(), StatusCode::OK);
    assert_eq!(acquire_there(&app, &rsa.token(&claims)).await.status(), StatusCode::OK);
    problem(acquire_there(&app, &es256("rsa")).await, 401, "invalid_token").await;
    let crossed = rsa.sign(Header { kid: Some("ec".to_owned()), ..Header::new(Algorithm::RS256) }, &claims);
    problem(acquire_there(&app, &crossed).await, 401, "invalid_token").await;
    // Without a kid there is no saying which of two keys is meant.
    problem(
        acquire_there(&app, &rsa.sign(Header::new(Algorithm::RS256), &claims)).await,
        401,
        "invalid_token",
    )
    .await;
}

#[tokio::test]
async fn keys_rotate_and_stale_ones_serve_while_the_issuer_is_down() {
    let (old, new) = (Pair::new("old"), Pair::new("new"));
    let (app, issuer) = believing(json!({ "keys": [old.jwk()] }), Settings::default()).await;
    let tenant = app.tenant(1).await;
    let claims = claims(&app, &tenant);
    assert_eq!(acquire_there(&app, &old.token(&claims)).await.status(), StatusCode::OK);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);

    issuer.down.store(true, Ordering::SeqCst);
    assert_eq!(
        acquire_there(&app, &old.token(&claims)).await.status(),
        StatusCode::OK,
        "known keys serve on"
    );
    issuer.down.store(false, Ordering::SeqCst);

    issuer.set.store(Arc::new(json!({ "keys": [old.jwk(), new.jwk()] })));
    for _ in 0..50 {
        problem(acquire_there(&app, &Pair::new("nobody").token(&claims)).await, 401, "invalid_token").await;
    }
    assert!(
        issuer.asked.load(Ordering::SeqCst) <= 2,
        "unknown key ids do not make us a burden for the issuer"
    );
}

#[tokio::test]
async fn an_issuer_that_was_never_there_is_503_and_its_return_is_noticed() {
    let pair = Pair::new("one");
    let (app, issuer) = believing(json!({ "keys": [pair.jwk()] }), Settings::default()).await;
    issuer.down.store(true, Ordering::SeqCst);
    let tenant = app.tenant(1).await;
    let token = pair.token(&claims(&app, &tenant));
    let answer = acquire_there(&app, &token).await;
    assert!(answer.headers().contains_key("retry-after"));
    problem(answer, 503, "unavailable").await;
    issuer.down.store(false, Ordering::SeqCst);
    eventually("the issuer's keys", async || acquire_there(&app, &token).await.status() == StatusCode::OK)
        .await;
}

#[tokio::test]
async fn the_tenant_claim_may_be_a_path() {
    let app =
        TestApp::start(Settings { tenant_claim: "firebase.tenant".to_owned(), ..Settings::default() }).await;
    let tenant = app.tenant(1).await;
    let token = app.token(&json!({ "sub": "alice", "firebase": { "tenant": tenant["id"] } }));
    app.granted(&token, "laptop-of-alice").await;
    let flat = app.token(&json!({ "sub": "alice", "tenant_id": tenant["id"] }));
    problem(app.acquire(&flat, "laptop-of-alice").await, 403, "forbidden").await;
}

#[tokio::test]
async fn a_user_is_added_once_with_the_reason_and_a_removed_one_is_refused() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let claims = json!({ "sub": "alice", "tenant_id": tenant["id"], "email": "alice@example.com" });
    let alice = app.token(&claims);
    app.granted(&alice, "laptop-of-alice").await;
    app.granted(&alice, "desktop-of-alice").await;
    let events = app.events(&tenant).await;
    let added: Vec<_> = events.iter().filter(|one| one["type"] == "user_added").collect();
    assert_eq!(added.len(), 1);
    assert_eq!(
        added[0]["data"],
        json!({ "email": "alice@example.com", "roles": [], "reason": "first_acquire" })
    );
    assert_eq!((&added[0]["user_id"], &added[0]["license_id"]), (&json!("alice"), &Value::Null));

    let client = app.superuser().await;
    client.execute("update users set removed = true", &[]).await.unwrap();
    problem(app.acquire(&alice, "third-machine").await, 403, "forbidden").await;
    problem(app.acquire(&alice, "short").await, 403, "forbidden").await;
}
