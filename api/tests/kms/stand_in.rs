//! A local Google Cloud KMS: the calls that the signer and an operator make, in Google's REST shapes, with real
//! RSA-4096 signatures. It can be told to answer wrongly.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use poem::http::{Method, StatusCode};
use poem::{Endpoint, IntoResponse, Request, Response, Server};
use rsa::Pkcs1v15Sign;
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use sha2::Sha256;

/// The key that holds all versions of a stand-in.
pub const KEY: &str = "projects/acme/locations/europe-west3/keyRings/licenses/cryptoKeys/tokens";

/// Google's numbers: with `enum-encoding=int` its enumerations are numbers in JSON.
const ENABLED: i32 = 1;
const DISABLED: i32 = 2;
const PENDING_GENERATION: i32 = 5;
pub const RSA_SIGN_PKCS1_4096_SHA256: i32 = 7;
pub const RSA_SIGN_PSS_4096_SHA256: i32 = 4;

/// Versions on one page of a list: few, so that two are more than a page.
const PAGE: usize = 1;

/// What the stand-in does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A signature whose CRC32C is another's.
    SignatureCrc,
    /// A signature without a CRC32C.
    NoSignatureCrc,
    /// A signature of a digest that was not verified.
    Unverified,
    /// An answer about another version.
    OtherName,
    /// A public key whose CRC32C is another's.
    PemCrc,
    /// A public key without a CRC32C.
    NoPemCrc,
    /// A public key that is for another algorithm.
    Algorithm,
    /// An error of this status.
    Status(u16),
    /// No answer.
    Hang,
}

/// How often each call was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub lists: usize,
    pub public_keys: usize,
    pub signatures: usize,
}

/// One version of [`KEY`].
#[derive(Clone)]
struct Version {
    name: String,
    private: rsa::PrivateKey,
    enabled: bool,
    /// So many more questions are told that it is still being made.
    pending: usize,
    algorithm: i32,
}

#[derive(Default)]
struct Inner {
    versions: Vec<Version>,
    /// Keys for versions that are asked for: making one takes too long here.
    prepared: VecDeque<String>,
    asked: Asked,
    /// For the next requests, one each; then for all.
    next: VecDeque<Wrong>,
    always: Option<Wrong>,
}

/// A running stand-in; it ends with the test.
#[derive(Clone)]
pub struct Kms {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Kms {
    /// Listens on a free port of the loopback interface; it has no version yet.
    pub async fn start() -> Self {
        let (acceptor, address) = api::app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let kms = Self { url: format!("http://{address}"), inner: Arc::default() };
        tokio::spawn(Server::new_with_acceptor(acceptor).run(kms.clone()));
        kms
    }

    /// Adds an enabled version with a PKCS#8 PEM key; answers its name.
    pub fn add(&self, pem: &str, algorithm: i32) -> String {
        let private = rsa::PrivateKey::from_pkcs8_pem(pem).unwrap();
        let mut inner = self.inner.lock().unwrap();
        let name = format!("{KEY}/cryptoKeyVersions/{}", inner.versions.len() + 1);
        inner.versions.push(Version { name: name.clone(), private, enabled: true, pending: 0, algorithm });
        name
    }

    /// The key of the next version that is asked for.
    pub fn prepare(&self, pem: &str) {
        self.inner.lock().unwrap().prepared.push_back(pem.to_owned());
    }

    /// Makes a version, which takes a moment.
    fn create(&self) -> Response {
        let Some(pem) = self.inner.lock().unwrap().prepared.pop_front() else {
            return failure(StatusCode::FORBIDDEN);
        };
        let name = self.add(&pem, RSA_SIGN_PKCS1_4096_SHA256);
        self.with(&name, |version| version.pending = 1);
        self.get(&name)
    }

    /// A version as it is now.
    fn get(&self, name: &str) -> Response {
        let mut state = PENDING_GENERATION;
        let found = self.with(name, |version| {
            if version.pending == 0 {
                state = if version.enabled { ENABLED } else { DISABLED };
            }
            version.pending = version.pending.saturating_sub(1);
        });
        if !found {
            return failure(StatusCode::NOT_FOUND);
        }
        let algorithm = RSA_SIGN_PKCS1_4096_SHA256;
        poem::web::Json(json!({ "name": name, "state": state, "algorithm": algorithm })).into_response()
    }

    /// Changes a version's state, and nothing else.
    fn update(&self, name: &str, query: &str, body: &Value) -> Response {
        if !query.split('&').any(|pair| pair == "updateMask=state") || body["state"] != DISABLED {
            return failure(StatusCode::BAD_REQUEST);
        }
        self.disable(name);
        self.get(name)
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Version)) -> bool {
        let mut inner = self.inner.lock().unwrap();
        inner.versions.iter_mut().find(|version| version.name == name).map(change).is_some()
    }

    /// Disables a version.
    pub fn disable(&self, name: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.versions.iter_mut().filter(|version| version.name == name).for_each(|it| it.enabled = false);
    }

    /// Does this wrong from now on; `None`: nothing.
    pub fn always(&self, wrong: Option<Wrong>) {
        self.inner.lock().unwrap().always = wrong;
    }

    /// Does these wrong, one a request.
    pub fn next(&self, wrongs: &[Wrong]) {
        self.inner.lock().unwrap().next.extend(wrongs);
    }

    pub fn asked(&self) -> Asked {
        self.inner.lock().unwrap().asked
    }

    fn list(&self, page_token: Option<&str>) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.asked.lists += 1;
        let from = page_token.map_or(0, |token| token.parse().unwrap());
        let page = inner.versions.iter().skip(from).take(PAGE).map(|version| {
            let state = if version.enabled { ENABLED } else { DISABLED };
            json!({ "name": version.name, "state": state, "algorithm": version.algorithm })
        });
        let page = page.collect::<Vec<_>>();
        let next = from + page.len();
        let next = if next < inner.versions.len() { next.to_string() } else { String::new() };
        json!({ "cryptoKeyVersions": page, "nextPageToken": next, "totalSize": inner.versions.len() })
    }

    fn find(&self, name: &str) -> Option<Version> {
        self.inner.lock().unwrap().versions.iter().find(|version| version.name == name).cloned()
    }

    fn public_key(&self, name: &str, wrong: Option<Wrong>) -> Response {
        self.inner.lock().unwrap().asked.public_keys += 1;
        let Some(version) = self.find(name) else { return failure(StatusCode::NOT_FOUND) };
        let pem = version.private.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let algorithm =
            if wrong == Some(Wrong::Algorithm) { RSA_SIGN_PSS_4096_SHA256 } else { version.algorithm };
        let mut answer = json!({
            "pem": pem, "algorithm": algorithm, "name": name_in(&version.name, wrong), "protectionLevel": 1,
        });
        if wrong != Some(Wrong::NoPemCrc) {
            answer["pemCrc32c"] = crc(pem.as_bytes(), wrong == Some(Wrong::PemCrc));
        }
        poem::web::Json(answer).into_response()
    }

    async fn sign(&self, name: &str, body: &Value, wrong: Option<Wrong>) -> Response {
        self.inner.lock().unwrap().asked.signatures += 1;
        let Some(version) = self.find(name) else { return failure(StatusCode::NOT_FOUND) };
        if !version.enabled || version.algorithm != RSA_SIGN_PKCS1_4096_SHA256 {
            return failure(StatusCode::BAD_REQUEST);
        }
        let digest = BASE64.decode(body["digest"]["sha256"].as_str().unwrap_or_default()).unwrap();
        let sent = &body["digestCrc32c"];
        // As Google does: a checksum that does not fit is refused, one that is missing is not verified.
        if !sent.is_null() && *sent != crc(&digest, false) {
            return failure(StatusCode::BAD_REQUEST);
        }
        let verified = !sent.is_null() && wrong != Some(Wrong::Unverified);
        let signed = tokio::task::spawn_blocking(move || {
            version.private.sign(Pkcs1v15Sign::new::<Sha256>(), &digest).unwrap()
        });
        let signature = signed.await.unwrap();
        let mut answer = json!({
            "signature": BASE64.encode(&signature), "name": name_in(name, wrong),
            "verifiedDigestCrc32c": verified, "protectionLevel": 1,
        });
        if wrong != Some(Wrong::NoSignatureCrc) {
            answer["signatureCrc32c"] = crc(&signature, wrong == Some(Wrong::SignatureCrc));
        }
        poem::web::Json(answer).into_response()
    }
}

impl Endpoint for Kms {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let wrong = {
            let mut inner = self.inner.lock().unwrap();
            inner.next.pop_front().or(inner.always)
        };
        let path = request.uri().path().trim_start_matches("/v1/").to_owned();
        let page_token = request.uri().query().and_then(|query| {
            query.split('&').find_map(|pair| pair.strip_prefix("pageToken=")).map(str::to_owned)
        });
        let page_token = page_token.as_deref().filter(|token| !token.is_empty());
        match wrong {
            Some(Wrong::Hang) => {
                self.count(&path);
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Some(Wrong::Status(status)) => {
                self.count(&path);
                return Ok(failure(StatusCode::from_u16(status).unwrap()));
            }
            _ => {}
        }
        if let (&Method::POST, Some(name)) = (request.method(), path.strip_suffix(":asymmetricSign")) {
            let body: Value = serde_json::from_slice(&request.take_body().into_bytes().await?).unwrap();
            return Ok(self.sign(name, &body, wrong).await);
        }
        let listed = path.strip_suffix("/cryptoKeyVersions") == Some(KEY);
        if request.method() == Method::POST && listed {
            return Ok(self.create());
        }
        if request.method() == Method::PATCH {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let body: Value = serde_json::from_slice(&request.take_body().into_bytes().await?).unwrap();
            return Ok(self.update(&path, &query, &body));
        }
        Ok(if let Some(name) = path.strip_suffix("/publicKey") {
            self.public_key(name, wrong)
        } else if listed {
            poem::web::Json(self.list(page_token)).into_response()
        } else {
            self.get(&path)
        })
    }
}

impl Kms {
    /// Counts a request that gets no good answer.
    fn count(&self, path: &str) {
        let asked = &mut self.inner.lock().unwrap().asked;
        if path.ends_with(":asymmetricSign") {
            asked.signatures += 1;
        } else if path.ends_with("/publicKey") {
            asked.public_keys += 1;
        } else {
            asked.lists += 1;
        }
    }
}

fn name_in(name: &str, wrong: Option<Wrong>) -> String {
    if wrong == Some(Wrong::OtherName) { format!("{name}9") } else { name.to_owned() }
}

/// CRC32C as Google writes it: an int64, which is text in JSON.
fn crc(bytes: &[u8], wrong: bool) -> Value {
    let crc = i64::from(crc32c::crc32c(bytes));
    json!((crc ^ i64::from(wrong)).to_string())
}

/// An error as Google writes it.
fn failure(status: StatusCode) -> Response {
    let code = match status.as_u16() {
        400 => "INVALID_ARGUMENT",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let error = json!({ "code": status.as_u16(), "message": "as the test wants it", "status": code });
    poem::web::Json(json!({ "error": error })).with_status(status).into_response()
}
