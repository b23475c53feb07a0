//! An OIDC issuer for the length of a run: a discovery document and a JWK set, nothing else.

use anyhow::{Context, Result};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::Json;
use poem::{EndpointExt, Route, Server, get, handler, web::Data};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Answers until it is dropped.
pub struct Issuer {
    url: String,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Documents {
    discovery: Value,
    jwks: Value,
}

impl Issuer {
    /// Starts on a free port of the loopback and publishes this one key.
    pub async fn start(jwk: Value) -> Result<Self> {
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.context("the issuer's port")?;
        let address = acceptor.local_addr().into_iter().find_map(|a| a.as_socket_addr().copied());
        let url = format!("http://{}", address.context("the issuer has no address")?);
        let jwks_uri = format!("{url}/jwks");
        let documents = Documents {
            discovery: json!({"issuer": url, "jwks_uri": jwks_uri, "id_token_signing_alg_values_supported": ["RS256"]}),
            jwks: json!({"keys": [jwk]}),
        };
        let routes = Route::new()
            .at("/.well-known/openid-configuration", get(discovery))
            .at("/jwks", get(jwks))
            .data(documents);
        let task = tokio::spawn(async move {
            // Ends only with the process or by `Drop`; there is nobody to tell.
            drop(Server::new_with_acceptor(acceptor).run(routes).await);
        });
        Ok(Self { url, task })
    }

    /// `OIDC_ISSUER`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[handler]
fn discovery(Data(documents): Data<&Documents>) -> Json<Value> {
    Json(documents.discovery.clone())
}

#[handler]
fn jwks(Data(documents): Data<&Documents>) -> Json<Value> {
    Json(documents.jwks.clone())
}
