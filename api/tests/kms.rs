//! Signing with Google Cloud KMS, against a stand-in that speaks its REST protocol and can be told to answer wrongly.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

#[path = "kms/stand_in.rs"]
mod stand_in;
mod support;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use api::config::SignerKind;
use api::signing::{
    KeyAdmin, KeyState, KmsSigner, LocalSigner, PublicKey, Retire, Rotated, Signer, SigningError,
};
use aws_lc_rs::rsa::KeySize;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest::StatusCode;
use rsa::Pkcs1v15Sign;
use rsa::pkcs8::DecodePublicKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stand_in::{Asked, KEY, Kms, RSA_SIGN_PKCS1_4096_SHA256, RSA_SIGN_PSS_4096_SHA256, Wrong};
use support::{Settings, TestApp, eventually, problem, signing_key};

const MESSAGE: &[u8] = b"what a license token says";

/// Every answer comes within this, whatever KMS does: the key ring waits for 3 s, a busy machine gets one more.
const BOUND: Duration = Duration::from_secs(4);

static SECOND_KEY: LazyLock<String> = LazyLock::new(|| LocalSigner::generate_pem(KeySize::Rsa4096).unwrap());

/// What all tests of this process count.
static METRICS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// What was left without a signature so far.
fn failures() -> u64 {
    let line = "license_signature_failures_total{signer=\"kms\"} ";
    METRICS.render().lines().find_map(|one| one.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

/// A stand-in with one good version, and a signer that knows it.
async fn ready() -> (Kms, KmsSigner, PublicKey) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kms = Kms::start().await;
    kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    let signer = KmsSigner::connect(KEY, Some(&kms.url)).await.unwrap();
    let key = signer.keys().await.unwrap().remove(0);
    (kms, signer, key)
}

fn verifies(key: &PublicKey, signature: &[u8]) -> bool {
    let public = rsa::PublicKey::from_public_key_pem(&key.pem).unwrap();
    public.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(MESSAGE), signature).is_ok()
}

#[tokio::test]
async fn a_signature_verifies_with_the_published_key() {
    let (kms, signer, key) = ready().await;
    let signature = signer.sign(&key.kid, MESSAGE).await.unwrap();
    assert!(verifies(&key, &signature));
    assert!(!verifies(&key, &signature.iter().rev().copied().collect::<Vec<_>>()));
    let local = LocalSigner::from_pem(signing_key()).unwrap();
    assert_eq!(local.keys().await.unwrap()[0], key, "the same key has the same id everywhere");
    assert_eq!(kms.asked(), Asked { lists: 1, public_keys: 1, signatures: 1 });
    assert!(matches!(signer.sign("another", MESSAGE).await, Err(SigningError::Unavailable(_))));
}

#[tokio::test]
async fn a_signature_that_may_be_damaged_is_refused() {
    let (kms, signer, key) = ready().await;
    for wrong in [Wrong::SignatureCrc, Wrong::NoSignatureCrc, Wrong::Unverified, Wrong::OtherName] {
        kms.next(&[wrong]);
        let refused = signer.sign(&key.kid, MESSAGE).await;
        assert!(matches!(refused, Err(SigningError::Corrupt(_))), "{wrong:?}: {refused:?}");
    }
    assert!(verifies(&key, &signer.sign(&key.kid, MESSAGE).await.unwrap()));
}

#[tokio::test]
async fn a_public_key_that_may_be_damaged_is_not_published() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kms = Kms::start().await;
    let name = kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    // A single version is not listed first: the next request is for its public key.
    let signer = KmsSigner::connect(&name, Some(&kms.url)).await.unwrap();
    for wrong in [Wrong::PemCrc, Wrong::NoPemCrc, Wrong::OtherName] {
        kms.next(&[wrong]);
        let refused = signer.keys().await;
        assert!(matches!(refused, Err(SigningError::Corrupt(_))), "{wrong:?}: {refused:?}");
    }
    kms.next(&[Wrong::Algorithm]);
    let refused = signer.keys().await;
    assert!(matches!(&refused, Err(SigningError::Setting(why)) if why.contains(&name)), "{refused:?}");
    assert_eq!(signer.keys().await.unwrap().len(), 1);
    assert_eq!(kms.asked().lists, 0);
}

#[tokio::test]
async fn all_enabled_versions_are_published_and_fetched_once() {
    let (kms, signer, first) = ready().await;
    let second = kms.add(&SECOND_KEY, RSA_SIGN_PKCS1_4096_SHA256);
    kms.add(signing_key(), RSA_SIGN_PSS_4096_SHA256);
    let disabled = kms.add(&SECOND_KEY, RSA_SIGN_PKCS1_4096_SHA256);
    kms.disable(&disabled);

    let keys = signer.keys().await.unwrap();
    assert_eq!(keys.len(), 2, "neither the disabled one nor the one for PSS");
    assert_eq!(keys[0], first, "oldest first");
    assert_ne!(keys[0].kid, keys[1].kid);
    for key in &keys {
        assert!(verifies(key, &signer.sign(&key.kid, MESSAGE).await.unwrap()));
    }
    let again = signer.keys().await.unwrap();
    assert_eq!(again, keys);
    // Four versions, a page each: one list before the second was added, two since.
    assert_eq!(kms.asked(), Asked { lists: 1 + 4 + 4, public_keys: 2, signatures: 2 });

    kms.disable(&second);
    assert_eq!(signer.keys().await.unwrap(), [first]);
    let gone = signer.sign(&keys[1].kid, MESSAGE).await;
    assert!(matches!(gone, Err(SigningError::Unavailable(_))), "{gone:?}");
}

#[tokio::test]
async fn a_moment_of_unavailability_is_bridged() {
    let (kms, signer, key) = ready().await;
    let before = kms.asked().signatures;
    kms.next(&[Wrong::Status(503); 2]);
    let begun = Instant::now();
    assert!(verifies(&key, &signer.sign(&key.kid, MESSAGE).await.unwrap()));
    assert_eq!(kms.asked().signatures - before, 3);
    kms.next(&[Wrong::Status(503); 2]);
    assert_eq!(signer.keys().await.unwrap().len(), 1);
    assert!(begun.elapsed() < 2 * BOUND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_outage_is_an_error_within_bounds() {
    let (kms, signer, key) = ready().await;
    for wrong in [Wrong::Status(503), Wrong::Hang, Wrong::Status(429), Wrong::Status(403)] {
        kms.always(Some(wrong));
        let (before, begun) = (kms.asked().signatures, Instant::now());
        let failed = signer.sign(&key.kid, MESSAGE).await;
        assert!(matches!(failed, Err(SigningError::Unavailable(_))), "{wrong:?}: {failed:?}");
        assert!(begun.elapsed() < BOUND, "{wrong:?}: {:?}", begun.elapsed());
        let attempts = kms.asked().signatures - before;
        assert!((1..=3).contains(&attempts), "{wrong:?}: {attempts} attempts");
        if wrong == Wrong::Status(429) {
            assert_eq!(attempts, 1, "a quota that is used up is not asked harder");
        }
    }
    kms.always(None);
    assert!(verifies(&key, &signer.sign(&key.kid, MESSAGE).await.unwrap()));
}

#[tokio::test]
async fn a_kms_that_is_not_there_is_an_error() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let signer = KmsSigner::connect(KEY, Some("http://127.0.0.1:1")).await.unwrap();
    let begun = Instant::now();
    let failed = signer.keys().await;
    assert!(matches!(failed, Err(SigningError::Unavailable(_))), "{failed:?}");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

/// One replica that signs with the stand-in.
async fn service(kms: &Kms) -> TestApp {
    let mut app = TestApp::start(Settings { replicas: 0, ..Settings::default() }).await;
    app.config.signing.signer = SignerKind::Kms;
    app.config.signing.signing_key_file = None;
    app.config.signing.kms_key = Some(KEY.to_owned());
    app.config.signing.kms_endpoint = Some(kms.url.clone());
    app.add_replica().await;
    app
}

async fn seats_used(app: &TestApp) -> i64 {
    app.superuser().await.query_one("select count(*) from seats", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_token_signed_by_kms_verifies_with_the_published_set() {
    let kms = Kms::start().await;
    kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    let app = service(&kms).await;
    let tenant = app.tenant(1).await;
    let seat = app.granted(&app.user(&tenant, "alice"), "laptop-of-alice").await;

    let token = seat["license_token"].as_str().unwrap();
    let set = app.http.get(format!("{}/.well-known/jwks.json", app.url())).send().await.unwrap();
    let set: JwkSet = set.json().await.unwrap();
    let jwk = set.find(decode_header(token).unwrap().kid.as_deref().unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["coditect"]);
    let claims = decode::<Value>(token, &DecodingKey::from_jwk(jwk).unwrap(), &validation).unwrap().claims;
    assert_eq!(claims["session_id"], seat["session_id"]);
    assert_eq!(kms.asked().public_keys, 1);
}

#[tokio::test]
async fn a_seat_without_a_token_is_given_back() {
    LazyLock::force(&METRICS);
    let kms = Kms::start().await;
    kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    let app = service(&kms).await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let failed_before = failures();
    let with_key = || {
        let url = format!("{}/api/v1/licenses/acquire", app.url());
        let request = app.http.post(url).bearer_auth(&alice).header("Idempotency-Key", "monday");
        request.json(&json!({ "hardware_id": "laptop-of-alice" })).send()
    };

    for wrong in [Wrong::Status(503), Wrong::SignatureCrc, Wrong::Hang] {
        kms.always(Some(wrong));
        problem(with_key().await.unwrap(), 503, "unavailable").await;
        assert_eq!(seats_used(&app).await, 0, "{wrong:?}");
    }
    assert!(failures() >= failed_before + 3, "each of them is counted");
    eventually("the log", async || {
        let types = app.event_types(&tenant).await;
        let seats: Vec<_> = types.iter().filter(|one| one.starts_with("seat_")).collect();
        seats == ["seat_acquired", "seat_released"].repeat(3)
    })
    .await;

    // The key was forgotten with the seat: the same request gets a seat, not the end of one that it never had.
    kms.always(None);
    let answer = with_key().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "granted");
    app.assert_consistent().await;
}

#[tokio::test]
async fn a_renewed_session_outlives_a_token_that_cannot_be_signed() {
    let kms = Kms::start().await;
    kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    let app = service(&kms).await;
    let tenant = app.tenant(1).await;
    let alice = app.user(&tenant, "alice");
    let seat = app.granted(&alice, "laptop-of-alice").await;

    kms.always(Some(Wrong::Status(503)));
    problem(app.acquire(&alice, "laptop-of-alice").await, 503, "unavailable").await;
    assert_eq!(seats_used(&app).await, 1);
    assert_eq!(app.heartbeat(&alice, &seat["session_id"]).await.status(), StatusCode::OK);

    kms.always(None);
    let renewed = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!((&renewed["status"], &renewed["session_id"]), (&json!("renewed"), &seat["session_id"]));
    assert!(!app.event_types(&tenant).await.contains(&"seat_released".to_owned()));
}

#[tokio::test]
async fn versions_are_made_published_and_retired_while_replicas_run() {
    let kms = Kms::start().await;
    let first = kms.add(signing_key(), RSA_SIGN_PKCS1_4096_SHA256);
    let app = service(&kms).await;
    let signer = Arc::new(KmsSigner::connect(KEY, Some(&kms.url)).await.unwrap());
    let log = app.replicas[0].app.log().clone();
    let schedule = app.config.signing.schedule(86_400);
    let admin = KeyAdmin::new(signer, log, schedule, "ada@ops".to_owned());

    // Without the right to make versions nothing changes.
    assert!(matches!(admin.rotate().await, Err(SigningError::Unavailable(_))));
    assert_eq!(admin.list().await.unwrap().len(), 1);

    kms.prepare(&SECOND_KEY);
    let Rotated::Created(second) = admin.rotate().await.unwrap() else { panic!("a key waits already") };
    assert_eq!((second.state, &second.held_by), (KeyState::Waits, &format!("{KEY}/cryptoKeyVersions/2")));
    assert!(matches!(admin.rotate().await.unwrap(), Rotated::AlreadyWaits(line) if line.kid == second.kid));
    let published = async || -> Vec<String> {
        let set = app.http.get(format!("{}/.well-known/jwks.json", app.url())).send().await.unwrap();
        let set: JwkSet = set.json().await.unwrap();
        set.keys.iter().filter_map(|jwk| jwk.common.key_id.clone()).collect()
    };
    eventually("the new version in the set", async || published().await.contains(&second.kid)).await;

    let old = admin.list().await.unwrap().into_iter().find(|line| line.kid != second.kid).unwrap();
    assert_eq!((old.state, &old.held_by), (KeyState::Signs, &first));
    let refused = admin.retire(&old.kid, &Retire::default()).await;
    assert!(matches!(refused, Err(SigningError::Refused(why)) if why.contains("signs now")));

    let how = Retire { emergency: true, reason: "a laptop was stolen".to_owned() };
    let retired = admin.retire(&old.kid, &how).await.unwrap();
    assert!(retired.created.is_none() && retired.private_half.contains(&first), "{retired:?}");
    assert_eq!(published().await, std::slice::from_ref(&second.kid));
    let tenant = app.tenant(2).await;
    let alice = app.user(&tenant, "alice");
    // KMS refuses the old version at once, and the replica learns within a second that another one signs.
    let acquire = async || app.acquire(&alice, "laptop-of-alice").await;
    eventually("a token of the second version", async || acquire().await.status() == StatusCode::OK).await;
    let seat = app.granted(&alice, "laptop-of-alice").await;
    assert_eq!(decode_header(seat["license_token"].as_str().unwrap()).unwrap().kid, Some(second.kid));
    let again = admin.retire(&old.kid, &how).await.unwrap();
    assert!(again.already);

    // A KMS that does not answer keeps no compromised key alive; without a key there is no token, and no seat is lost.
    kms.always(Some(Wrong::Status(503)));
    let last = published().await.remove(0);
    assert!(matches!(admin.retire(&last, &Retire::default()).await, Err(SigningError::Unavailable(_))));
    let retired = admin.retire(&last, &how).await.unwrap();
    assert!(retired.private_half.contains("STILL THERE"), "{retired:?}");
    assert!(retired.none_left.is_some_and(|why| why.contains("not known")));
    let fresh = Arc::new(KmsSigner::connect(KEY, Some(&kms.url)).await.unwrap());
    let log = app.replicas[0].app.log().clone();
    let fresh = KeyAdmin::new(fresh, log, app.config.signing.schedule(86_400), "ada@ops".to_owned());
    let again = fresh.retire(&last, &how).await.unwrap();
    assert!(again.already && again.private_half.contains("STILL THERE"), "{again:?}");
    assert!(published().await.is_empty());
    problem(app.acquire(&app.user(&tenant, "bob"), "laptop-of-bob").await, 503, "unavailable").await;
    let key = async || app.http.get(format!("{}/api/v1/public-key", app.url())).send().await.unwrap();
    eventually("no key", async || key().await.status() == StatusCode::SERVICE_UNAVAILABLE).await;
    problem(key().await, 503, "unavailable").await;
    kms.always(None);
    let again = fresh.retire(&last, &how).await.unwrap();
    assert!(again.private_half.contains("cryptoKeyVersions/2 was disabled"), "{again:?}");
    app.assert_consistent().await;
}
