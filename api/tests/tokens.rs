//! License tokens of both formats: signed by the service, verified by `coditect-license verify-token`.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::HashMap;

use api::config::TokenFormat;
use serde_json::{Value, json};
use support::{Settings, TestApp};
use tokens::{Token, VerifyingKey, is_batch_token};

const ISSUER: &str = "https://auth.coditect.ai";

async fn service(format: TokenFormat) -> TestApp {
    let mut app = TestApp::start(Settings { replicas: 0, ..Settings::default() }).await;
    app.config.signing.token_format = format;
    app.add_replica().await;
    app
}

/// Whether the command believes a token, and what it says of it.
async fn verify(arguments: &[&str]) -> (bool, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"))
        .arg("verify-token")
        .args(arguments)
        .output()
        .await
        .unwrap();
    let said = if ran.status.success() { ran.stdout } else { ran.stderr };
    (ran.status.success(), String::from_utf8(said).unwrap())
}

fn key_file(seat: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), seat["public_key"].as_str().unwrap()).unwrap();
    file
}

#[tokio::test]
async fn the_command_believes_both_formats_and_nothing_else() {
    for format in [TokenFormat::Jwt, TokenFormat::Batch] {
        let app = service(format).await;
        let tenant = app.tenant(2).await;
        let seat = app.granted(&app.user(&tenant, "alice"), "laptop-of-alice").await;
        let token = seat["license_token"].as_str().unwrap();
        assert_eq!(is_batch_token(token), format == TokenFormat::Batch);
        let file = key_file(&seat);
        let (key, set) = (file.path().to_str().unwrap(), format!("{}/.well-known/jwks.json", app.url()));
        for place in [["--public-key", key], ["--jwks", &set]] {
            let (believed, said) = verify(&[place[0], place[1], token]).await;
            assert!(believed, "{said}");
            let claims: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&claims["session_id"], &claims["sub"]), (&seat["session_id"], &json!("alice")));
        }
        for (bad, why) in [
            (vec!["--public-key", key, &token[..token.len() - 4]], "coditect-license"),
            (vec!["--public-key", key, &token.replacen('.', ".A", 1)], "coditect-license"),
            (
                vec!["--public-key", key, "--license-issuer", "https://evil.example", token],
                "coditect-license",
            ),
            (vec!["--public-key", "/dev/null", token], "no public key"),
            (vec!["--jwks", "http://127.0.0.1:1/", token], "coditect-license"),
        ] {
            let (believed, said) = verify(&bad).await;
            assert!(!believed && said.contains(why) && said.lines().count() == 1, "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_one_moment_share_a_signature() {
    let app = service(TokenFormat::Batch).await;
    let tenant = app.tenant(200).await;
    // Alone, a request waits for nobody and shares with nobody.
    let alone = app.granted(&app.user(&tenant, "alice"), "laptop-of-alice").await;
    let alone: Token = alone["license_token"].as_str().unwrap().parse().unwrap();
    assert_eq!((alone.size, alone.index, alone.path.len()), (1, 0, 0));

    let work = (0..120).map(|n| {
        let (http, url, user) =
            (app.http.clone(), app.url().to_owned(), app.user(&tenant, &format!("user-{n}")));
        tokio::spawn(async move {
            let post = |path: &str, body: Value| {
                http.post(format!("{url}/api/v1/licenses/{path}")).bearer_auth(&user).json(&body).send()
            };
            loop {
                let answer = post("acquire", json!({ "hardware_id": "machine-0001" })).await.unwrap();
                // A busy machine is late sometimes.
                if answer.status() != reqwest::StatusCode::SERVICE_UNAVAILABLE {
                    break answer.json::<Value>().await.unwrap();
                }
            }
        })
    });
    let work: Vec<_> = work.collect();
    let mut batches: HashMap<Vec<u8>, Vec<Token>> = HashMap::new();
    for (n, seat) in work.into_iter().enumerate() {
        let seat = seat.await.unwrap();
        let token: Token = seat["license_token"].as_str().unwrap().parse().unwrap();
        let key = VerifyingKey::from_pem(seat["public_key"].as_str().unwrap()).unwrap();
        token.verify(ISSUER, &key).unwrap();
        let claims: Value = serde_json::from_slice(&token.payload).unwrap();
        assert_eq!(
            (&claims["session_id"], &claims["sub"]),
            (&seat["session_id"], &json!(format!("user-{n}")))
        );
        assert!(claims["iat"].as_u64().unwrap() <= token.signed_at);
        batches.entry(token.signature.to_vec()).or_default().push(token);
    }
    assert!(batches.len() < 120, "{} signatures for 120 tokens", batches.len());
    for tokens in batches.values() {
        let mut places: Vec<_> = tokens.iter().map(|token| token.index).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), tokens.len(), "no two tokens have the same place");
    }
    app.assert_consistent().await;
}
