//! A keep-alive HTTP/1.1 connection that costs as little as one can: the generator shares its cores with
//! the server it measures, and what it burns the server lacks.
//!
//! So no pool, no redirects, no cookies, no decompression; bodies and headers are made before the
//! measurement, and an answer's body is handed over unparsed.

mod endpoint;

use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub use endpoint::Endpoint;

/// After this a request counts as lost.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET or POST.
    pub method: Method,
    /// Path only.
    pub path: Uri,
    /// `Bearer …`
    pub authorization: Option<HeaderValue>,
    /// JSON, or nothing.
    pub body: Bytes,
}

impl Call {
    /// A POST of a JSON body.
    pub fn post(path: &'static str, authorization: Option<HeaderValue>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: Uri::from_static(path), authorization, body: body.into() }
    }

    /// A GET without credentials.
    pub fn get(path: &'static str) -> Self {
        Self { method: Method::GET, path: Uri::from_static(path), authorization: None, body: Bytes::new() }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// Unparsed.
    pub body: Bytes,
}

impl Answer {
    /// The one field that a virtual client needs, found without parsing the rest.
    pub fn session_id(&self) -> Option<&str> {
        const NAME: &[u8] = b"\"session_id\"";
        let start = self.body.windows(NAME.len()).position(|w| w == NAME)? + NAME.len();
        let rest = std::str::from_utf8(&self.body[start..]).ok()?;
        let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        rest.split_once('"').map(|(id, _)| id)
    }
}

/// One connection, opened anew if the server closed it.
pub struct Connection {
    endpoint: Endpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Not connected until the first call.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), sender: None }
    }

    /// Sends one request and reads its whole answer. After an error the next call connects again.
    pub async fn call(&mut self, call: &Call) -> Result<Answer> {
        let answered = tokio::time::timeout(TIMEOUT, self.exchange(call)).await;
        let answer = answered.context("timeout").and_then(|answer| answer);
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    /// Connects now, so that the first measured request need not.
    pub async fn connect(&mut self) -> Result<()> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.sender = Some(open(&self.endpoint).await?);
        }
        Ok(())
    }

    async fn exchange(&mut self, call: &Call) -> Result<Answer> {
        self.connect().await?;
        let sender = self.sender.as_mut().context("not connected")?;
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &call.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}

async fn open(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>> {
    let address = (endpoint.host.as_str(), endpoint.port);
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {endpoint}"))?;
    stream.set_nodelay(true)?;
    // The driver ends by itself when the connection does; its error also reaches the request in hand.
    match endpoint.tls()? {
        None => {
            let (sender, driver) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            Ok(sender)
        }
        Some((connector, name)) => {
            let (sender, driver) = handshake(TokioIo::new(connector.connect(name, stream).await?)).await?;
            tokio::spawn(driver);
            Ok(sender)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_id_is_found_wherever_it_stands() {
        let answer = |body: &'static str| Answer {
            status: 200,
            retry_after: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        assert_eq!(answer(r#"{"session_id":"a-1","status":"granted"}"#).session_id(), Some("a-1"));
        assert_eq!(answer(r#"{"x":1, "session_id" : "b" }"#).session_id(), Some("b"));
        assert_eq!(answer(r#"{"status":"ok"}"#).session_id(), None);
        assert_eq!(answer(r#"{"session_id":null}"#).session_id(), None);
    }
}
