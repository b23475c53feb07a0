//! The keys that verify license tokens; nobody has to say who it is.

use poem::http::header;
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::Value;

use crate::app::App;
use crate::problem::Problem;

/// How long clients may keep keys: a new one is published for longer before it signs.
const CACHE: &str = "public, max-age=3600";

/// Every key was retired, and there is no new one yet.
const NO_KEY: Problem = Problem::Unavailable { why: "There is no key to sign with. Try again." };

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
pub(super) struct JwkSet {
    /// RSA keys for RS256
    pub(super) keys: Vec<Any<Value>>,
}

/// What a client may keep for a while, and ask about with If-None-Match.
#[derive(ApiResponse)]
enum Kept<T: ToJSON> {
    /// The keys
    #[oai(status = 200)]
    New(Json<T>, #[oai(header = "Cache-Control")] String, #[oai(header = "ETag")] String),
    /// What the client has is current
    #[oai(status = 304)]
    Same(#[oai(header = "Cache-Control")] String, #[oai(header = "ETag")] String),
}

fn keep<T: ToJSON>(request: &poem::Request, body: T, etag: String) -> Kept<T> {
    let known =
        request.headers().get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if known.into_iter().any(|tag| tag == etag || tag == "*") {
        Kept::Same(CACHE.to_owned(), etag)
    } else {
        Kept::New(Json(body), CACHE.to_owned(), etag)
    }
}

#[OpenApi]
impl Keys {
    /// The key that signs license tokens now
    #[oai(path = "/api/v1/public-key", method = "get", operation_id = "public_key")]
    async fn public_key(&self, request: &poem::Request) -> Result<Kept<PublicKeyBody>, Problem> {
        let key = self.0.ring.current().map_err(|_| NO_KEY)?;
        let etag = format!("\"{}\"", key.kid);
        let body = PublicKeyBody { kid: key.kid, alg: "RS256".to_owned(), public_key: key.pem };
        Ok(keep(request, body, etag))
    }

    /// Every key that can still verify an unexpired license token
    #[oai(path = "/.well-known/jwks.json", method = "get", operation_id = "jwks")]
    async fn jwks(&self, request: &poem::Request) -> Kept<JwkSet> {
        let (mut set, tag) = self.0.ring.jwk_set().await;
        let keys = match set["keys"].take() {
            Value::Array(keys) => keys.into_iter().map(Any).collect(),
            _ => Vec::new(),
        };
        keep(request, JwkSet { keys }, format!("\"{tag}\""))
    }
}
