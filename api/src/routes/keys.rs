//! The keys that verify license tokens; nobody has to say who it is.

use poem_openapi::payload::{Json, Response};
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::app::App;

/// How long clients may keep keys: a new one is published for longer before it signs.
const CACHE: &str = "public, max-age=3600";

/// The operations.
pub struct Keys(pub App);

/// The key that signs now.
#[derive(Object)]
struct PublicKeyBody {
    /// Key id, as in a token's header
    kid: String,
    /// `RS256`
    alg: String,
    /// SubjectPublicKeyInfo, PEM
    public_key: String,
}

/// A JWK set (RFC 7517).
#[derive(Object)]
struct JwkSet {
    /// RSA keys for RS256
    keys: Vec<Any<Value>>,
}

#[OpenApi]
impl Keys {
    /// The key that signs license tokens now
    #[oai(path = "/api/v1/public-key", method = "get", operation_id = "public_key")]
    async fn public_key(&self) -> Response<Json<PublicKeyBody>> {
        let key = self.0.ring.current();
        let body = PublicKeyBody { kid: key.kid, alg: "RS256".to_owned(), public_key: key.pem };
        Response::new(Json(body)).header("Cache-Control", CACHE)
    }

    /// Every key that can still verify an unexpired license token
    #[oai(path = "/.well-known/jwks.json", method = "get", operation_id = "jwks")]
    async fn jwks(&self) -> Response<Json<JwkSet>> {
        let mut set = self.0.ring.jwk_set();
        let keys = match set["keys"].take() {
            Value::Array(keys) => keys.into_iter().map(Any).collect(),
            _ => Vec::new(),
        };
        Response::new(Json(JwkSet { keys })).header("Cache-Control", CACHE)
    }
}
