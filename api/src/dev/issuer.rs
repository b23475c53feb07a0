//! An OIDC issuer for development and tests: discovery, JWK set, and a token for whoever asks. Loopback only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use aws_lc_rs::rsa::KeySize;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use poem::web::{Data, Json, Query};
use poem::{EndpointExt, IntoResponse, Route, Server, get, handler};
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};

use super::AUDIENCE;
use crate::signing::LocalSigner;

/// How long its tokens live.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// The only key of the issuer.
const KID: &str = "dev";

/// A running issuer; it ends with the process.
#[derive(Clone)]
pub struct Issuer {
    address: SocketAddr,
    key: Arc<EncodingKey>,
    jwk: Value,
}

impl Issuer {
    /// Listens on a loopback address; port 0 picks a free one. The key is kept in a file, if one is named.
    ///
    /// # Errors
    /// When the address is taken, or not of the loopback interface.
    pub async fn start(address: SocketAddr, key_file: Option<&Path>) -> anyhow::Result<Self> {
        ensure!(address.ip().is_loopback(), "the dev issuer gives tokens to anybody: loopback only");
        let (acceptor, address) = crate::app::listen(address).await.context("the dev issuer")?;
        let pem = key(key_file)?;
        let private = rsa::PrivateKey::from_pkcs8_pem(&pem)?;
        let number = |bytes: Box<[u8]>| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[zeros..])
        };
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID,
            "n": number(private.n_bytes()), "e": number(private.e_bytes()),
        });
        let issuer = Self { address, key: Arc::new(EncodingKey::from_rsa_pem(pem.as_bytes())?), jwk };
        let routes = Route::new()
            .at("/.well-known/openid-configuration", get(discovery))
            .at("/jwks.json", get(jwks))
            .at("/token", get(token))
            .data(issuer.clone());
        tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
        Ok(issuer)
    }

    /// `iss`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token with these claims besides `iss`, `aud`, `iat`, `exp`, which they may replace.
    ///
    /// # Errors
    /// Never with a good key.
    pub fn token(&self, claims: &Value) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut all = json!({
            "iss": self.url(), "aud": AUDIENCE, "iat": now, "exp": now + LIFETIME.as_secs(),
        });
        if let (Some(all), Some(claims)) = (all.as_object_mut(), claims.as_object()) {
            all.extend(claims.clone());
        }
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(KID.to_owned());
        Ok(encode(&header, &all, &self.key)?)
    }
}

fn key(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file.filter(|file| file.exists()) {
        return Ok(std::fs::read_to_string(file)?);
    }
    let pem = LocalSigner::generate_pem(KeySize::Rsa2048)?;
    if let Some(file) = file {
        crate::signing::write_private(file, &pem)?;
    }
    Ok(pem)
}

#[handler]
fn discovery(issuer: Data<&Issuer>) -> Json<Value> {
    let url = issuer.url();
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks.json"),
        "token_endpoint": format!("{url}/token"),
        "id_token_signing_alg_values_supported": ["RS256"],
        "subject_types_supported": ["public"],
        "response_types_supported": ["id_token"],
    }))
}

#[handler]
fn jwks(issuer: Data<&Issuer>) -> impl IntoResponse {
    Json(json!({ "keys": [issuer.jwk] })).with_header("Cache-Control", "public, max-age=300")
}

/// `GET /token?sub=alice&tenant_id=…&roles=auditor,tenant_admin`: the token, as text.
#[handler]
fn token(issuer: Data<&Issuer>, Query(query): Query<HashMap<String, String>>) -> poem::Result<String> {
    let mut claims = serde_json::Map::new();
    for (name, value) in query {
        let value = match name.as_str() {
            "roles" => json!(value.split(',').collect::<Vec<_>>()),
            _ => json!(value),
        };
        claims.insert(name, value);
    }
    let claims = Value::Object(claims);
    issuer.token(&claims).map_err(|error| {
        poem::Error::from_string(error.to_string(), poem::http::StatusCode::INTERNAL_SERVER_ERROR)
    })
}
