//! Which browser origins may read answers. poem's own middleware refuses requests of other origins outright, before
//! anybody is asked who it is; here the browser is only not told that it may read.

use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};

/// What a browser may send, and what it may read.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, if-match, x-request-id");
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after, x-request-id");

/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The middleware; without origins it adds nothing.
pub struct Cors {
    /// Origins that may read answers.
    pub origins: Vec<String>,
}

impl<E: Endpoint> Middleware<E> for Cors {
    type Output = CorsEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        CorsEndpoint { inner, origins: self.origins.clone() }
    }
}

/// An endpoint with its allowed origins.
pub struct CorsEndpoint<E> {
    inner: E,
    origins: Vec<String>,
}

impl<E: Endpoint> Endpoint for CorsEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if self.origins.is_empty() {
            return self.inner.call(request).await.map(IntoResponse::into_response);
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let allowed =
            origin.filter(|origin| self.origins.iter().any(|one| one.as_bytes() == origin.as_bytes()));
        let preflight = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = if preflight {
            StatusCode::NO_CONTENT.into_response()
        } else {
            match self.inner.call(request).await {
                Ok(response) => response.into_response(),
                Err(error) => return Err(error),
            }
        };
        let headers = response.headers_mut();
        // A cache must not give one origin's answer to another.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            if preflight {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            }
        }
        Ok(response)
    }
}
