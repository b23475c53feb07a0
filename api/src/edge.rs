//! What surrounds every request: its id, its bounds, its metrics, and one shape for whatever goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::problem::Problem;
use crate::valve::Valve;
use crate::{routes, telemetry};

/// Requests that are worked on at a time; one more is told to come back.
const MAX_IN_FLIGHT: usize = 4_096;

/// Longest time that a request may take, streams of events apart.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request for which there is no place is held, within the bound above, before it is sent away.
const SENT_AWAY_AFTER: Duration = Duration::from_millis(250);

/// Longest id that a caller may give its request, in characters.
const MAX_REQUEST_ID: usize = 64;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, in its events, its logs and its answer.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The middleware.
pub struct Edge {
    /// Once set, new work is sent elsewhere.
    pub draining: Arc<AtomicBool>,
}

impl<E: Endpoint> Middleware<E> for Edge {
    type Output = EdgeEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        EdgeEndpoint {
            inner,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            acquires: Valve::default(),
            others: Valve::default(),
            draining: self.draining.clone(),
        }
    }
}

/// An endpoint within its edge.
pub struct EdgeEndpoint<E> {
    inner: E,
    in_flight: Arc<Semaphore>,
    /// Acquires wait for signatures; who holds a seat keeps it although they do not fit.
    acquires: Valve,
    /// Heartbeats and releases.
    others: Valve,
    draining: Arc<AtomicBool>,
}

impl<E: Endpoint> Endpoint for EdgeEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let begun = Instant::now();
        let request_id = request_id(&request);
        let method = request.method().as_str().to_owned();
        let route = routes::pattern(request.uri().path());
        request.extensions_mut().insert(RequestId(request_id.clone()));
        let span = tracing::info_span!(
            "edge", request_id = %request_id, method = %method, route,
            tenant_id = tracing::field::Empty, license_id = tracing::field::Empty
        );
        telemetry::continue_trace(&span, request.headers());
        let mut response = self.answer(request, route, &request_id).instrument(span.clone()).await;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = routes::methods(route)
        {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        let status = response.status().as_u16().to_string();
        let taken = begun.elapsed();
        span.in_scope(|| log_answer(route, &status, taken));
        let method = known_method(&method);
        metrics::counter!("license_http_requests_total", "method" => method, "route" => route, "status" => status)
            .increment(1);
        metrics::histogram!("license_http_request_duration_seconds", "method" => method, "route" => route)
            .record(taken.as_secs_f64());
        Ok(response)
    }
}

impl<E: Endpoint> EdgeEndpoint<E> {
    async fn answer(&self, request: Request, route: &str, request_id: &str) -> Response {
        if self.draining.load(Ordering::Relaxed) && !matches!(route, "/health" | "/ready") {
            return Problem::Unavailable { why: "This replica is about to end. Try again." }
                .respond(request_id);
        }
        let valve = match route {
            "/api/v1/licenses/acquire" => Some(&self.acquires),
            "/api/v1/licenses/heartbeat" | "/api/v1/licenses/release" => Some(&self.others),
            _ => None,
        };
        let place = valve.map(Valve::enter);
        let permit = self.in_flight.try_acquire();
        if permit.is_err() || matches!(place, Some(None)) {
            if permit.is_ok() {
                // Whoever does not wait as told would take the time that the others' work needs.
                tokio::time::sleep(SENT_AWAY_AFTER).await;
            }
            return Problem::Unavailable { why: "Too many requests at a time. Try again." }
                .respond(request_id);
        }
        // Boxed, for everything round it is moved several times on its way in.
        let work = std::panic::AssertUnwindSafe(Box::pin(self.inner.call(request))).catch_unwind();
        match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
            Ok(Ok(Ok(response))) => response.into_response(),
            Ok(Ok(Err(error))) => Problem::of(&error).respond(request_id),
            Ok(Err(_)) => {
                tracing::error!("a request panicked");
                Problem::Internal.respond(request_id)
            }
            Err(_) => Problem::Unavailable { why: "No answer in time. Try again." }.respond(request_id),
        }
    }
}

/// One line for each answer. A heartbeat that went well is the most frequent and the least interesting one: `debug`.
fn log_answer(route: &str, status: &str, taken: Duration) {
    let millis = taken.as_millis();
    if status == "200" && route == "/api/v1/licenses/heartbeat" {
        tracing::debug!(%status, millis, "answered");
    } else {
        tracing::info!(%status, millis, "answered");
    }
}

/// The caller's id if it is printable and short, else one of ours.
fn request_id(request: &Request) -> String {
    request
        .headers()
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| (0x20..0x7f).contains(&b))
        })
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// A caller may send any method: no label is unbounded.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}
