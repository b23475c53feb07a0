//! Every cause of a failed request and its one answer: `application/problem+json` (RFC 9457).

use std::fmt;

use actors::NoAnswer;
use events::{InvalidValue, LogError, Seats, SessionEnd, Standing};
use poem::error::ResponseError;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object};
use projections::QueryError;
use serde::Serialize;

use crate::routes::licenses::SeatCount;

/// Seconds after which a caller without a seat may ask again.
const RETRY_SEAT: u64 = 30;

/// Seconds after which a caller may ask again when something is down.
const RETRY_UNAVAILABLE: u64 = 1;

/// Why a request got no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is a code of the contract's table")]
pub enum Problem {
    InvalidRequest { field: Option<String>, why: String },
    InvalidToken { why: String },
    Forbidden { why: &'static str },
    UserMismatch,
    NotAccepted(Standing),
    LicenseNotFound,
    SessionNotFound,
    TenantNotFound,
    UserNotFound,
    NotFound,
    MethodNotAllowed,
    PreconditionFailed,
    BodyTooLarge,
    UnsupportedMediaType,
    NoSeatsAvailable { used: u32, total: Seats },
    Conflict { why: String },
    SessionEnded(SessionEnd),
    RateLimited { retry_after_seconds: u64 },
    Unavailable { why: &'static str },
    Internal,
}

impl Problem {
    /// A field that is missing or malformed.
    pub fn field(name: &str, why: impl fmt::Display) -> Self {
        Self::InvalidRequest { field: Some(name.to_owned()), why: format!("{name} {why}") }
    }

    /// A field whose value its type refused.
    pub fn value(name: &str) -> impl Fn(InvalidValue) -> Self {
        move |error| Self::field(name, error)
    }

    /// Status, code and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest { .. } => (S::BAD_REQUEST, "invalid_request", "Invalid request"),
            Self::InvalidToken { .. } => (S::UNAUTHORIZED, "invalid_token", "Invalid token"),
            Self::Forbidden { .. } => (S::FORBIDDEN, "forbidden", "Forbidden"),
            Self::UserMismatch => (S::FORBIDDEN, "user_mismatch", "User mismatch"),
            Self::NotAccepted(Standing::TenantInactive) => {
                (S::FORBIDDEN, "tenant_inactive", "Tenant inactive")
            }
            Self::NotAccepted(Standing::LicenseExpired) => {
                (S::FORBIDDEN, "license_expired", "License expired")
            }
            Self::NotAccepted(Standing::LicenseInactive | Standing::Ok) => {
                (S::FORBIDDEN, "license_inactive", "License inactive")
            }
            Self::LicenseNotFound => (S::NOT_FOUND, "license_not_found", "License not found"),
            Self::SessionNotFound => (S::NOT_FOUND, "session_not_found", "Session not found"),
            Self::TenantNotFound => (S::NOT_FOUND, "tenant_not_found", "Tenant not found"),
            Self::UserNotFound => (S::NOT_FOUND, "user_not_found", "User not found"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::PreconditionFailed => {
                (S::PRECONDITION_FAILED, "precondition_failed", "Precondition failed")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::NoSeatsAvailable { .. } => (S::CONFLICT, "no_seats_available", "No seats available"),
            Self::Conflict { .. } => (S::CONFLICT, "conflict", "Conflict"),
            Self::SessionEnded(_) => (S::GONE, "session_ended", "Session ended"),
            Self::RateLimited { .. } => (S::TOO_MANY_REQUESTS, "rate_limited", "Rate limited"),
            Self::Unavailable { .. } => (S::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// What the client is told; never an internal text.
    fn detail(&self) -> String {
        match self {
            Self::InvalidRequest { why, .. } | Self::InvalidToken { why } | Self::Conflict { why } => {
                why.clone()
            }
            Self::Forbidden { why } | Self::Unavailable { why } => (*why).to_owned(),
            Self::UserMismatch => "user_id is not the subject of the token".to_owned(),
            Self::NotAccepted(Standing::TenantInactive) => "The tenant is deactivated.".to_owned(),
            Self::NotAccepted(Standing::LicenseExpired) => "The license's end has passed.".to_owned(),
            Self::NotAccepted(_) => "The license is deactivated, or not valid yet.".to_owned(),
            Self::LicenseNotFound => "The tenant has no such license.".to_owned(),
            Self::SessionNotFound => "The caller has no such session.".to_owned(),
            Self::TenantNotFound => "There is no such tenant.".to_owned(),
            Self::UserNotFound => "The tenant has no such user.".to_owned(),
            Self::NotFound => "There is nothing at this path.".to_owned(),
            Self::MethodNotAllowed => "The path does not answer this method.".to_owned(),
            Self::PreconditionFailed => "It has changed since the version named by If-Match.".to_owned(),
            Self::BodyTooLarge => "The body is larger than 64 KiB.".to_owned(),
            Self::UnsupportedMediaType => "The body must be application/json.".to_owned(),
            Self::NoSeatsAvailable { used, total } => format!("{used} of {} seats are in use.", total.get()),
            Self::SessionEnded(end) => format!("The session has {} before.", past(*end)),
            Self::RateLimited { retry_after_seconds } => {
                format!("Too many requests; try again in {retry_after_seconds} s.")
            }
            Self::Internal => "The request could not be answered.".to_owned(),
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::NoSeatsAvailable { .. } => Some(RETRY_SEAT),
            Self::RateLimited { retry_after_seconds } => Some(*retry_after_seconds),
            Self::Unavailable { .. } => Some(RETRY_UNAVAILABLE),
            _ => None,
        }
    }

    /// The code of the contract.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().1
    }

    /// The answer, with the id of the request that it answers.
    #[must_use]
    pub fn respond(&self, request_id: &str) -> Response {
        let (status, code, title) = self.kind();
        let mut body = ProblemShape {
            kind: format!("https://auth.coditect.ai/problems/{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            code: code.to_owned(),
            request_id: request_id.to_owned(),
            field: None,
            reason: None,
            seats: None,
        };
        match self {
            Self::InvalidRequest { field, .. } => body.field.clone_from(field),
            Self::NoSeatsAvailable { used, total } => {
                body.seats = Some(SeatCount { used: *used, total: total.get() });
            }
            Self::SessionEnded(end) => body.reason = Some(end.as_str().to_owned()),
            _ => {}
        }
        let mut response = Response::builder()
            .status(status)
            .content_type("application/problem+json")
            .body(serde_json::to_vec(&body).unwrap_or_default());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"coditect\", error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// What became of an error that is not ours: poem's own rejections are plain text.
    #[must_use]
    pub fn of(error: &poem::Error) -> Self {
        if let Some(own) = error.downcast_ref::<Self>() {
            return own.clone();
        }
        if error.is::<poem::error::ParsePathError>() || error.is::<poem_openapi::error::ParsePathError>() {
            return Self::NotFound;
        }
        match error.status() {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNAUTHORIZED => Self::InvalidToken { why: "a bearer token is needed".to_owned() },
            StatusCode::FORBIDDEN => Self::Forbidden { why: "This origin may not call." },
            status if status.is_client_error() => {
                Self::InvalidRequest { field: None, why: error.to_string() }
            }
            _ => {
                tracing::error!(%error, "a request failed");
                Self::Internal
            }
        }
    }
}

fn past(end: SessionEnd) -> &'static str {
    match end {
        SessionEnd::Released => "been released",
        SessionEnd::Expired => "expired",
        SessionEnd::Revoked => "been revoked",
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.detail())
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.kind().0
    }

    fn as_response(&self) -> Response
    where
        Self: std::error::Error + Send + Sync + 'static,
    {
        self.respond("")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond("")
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        if error.is_retryable() {
            tracing::warn!(%error, "a request found the database unavailable");
            return Self::Unavailable { why: "The database does not answer. Try again." };
        }
        tracing::error!(%error, "a request failed");
        Self::Internal
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Invalid { field, why } => Self::field(field, why),
            QueryError::Log(error) => error.into(),
        }
    }
}

impl From<NoAnswer> for Problem {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Unavailable => Self::Unavailable { why: "No answer in time. Try again." },
            NoAnswer::Overloaded => Self::Unavailable { why: "Too much to do. Try again." },
        }
    }
}

/// The body of every error.
#[derive(Object, Serialize)]
#[oai(rename = "Problem")]
struct ProblemShape {
    /// A URI that names the kind of problem
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: String,
    /// For people
    title: String,
    /// The HTTP status
    status: u16,
    /// For people: this occurrence
    detail: String,
    /// For programs
    code: String,
    /// As in the header X-Request-Id
    request_id: String,
    /// With `invalid_request`: which field
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// With `session_ended`: `expired`, `released` or `revoked`
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// With `no_seats_available`
    #[serde(skip_serializing_if = "Option::is_none")]
    seats: Option<SeatCount>,
}

impl ApiResponse for Problem {
    fn meta() -> MetaResponses {
        let statuses: [(u16, &'static str); 12] = [
            (400, "invalid_request"),
            (401, "invalid_token"),
            (403, "forbidden, user_mismatch, license_inactive, license_expired, tenant_inactive"),
            (404, "license_not_found, session_not_found, tenant_not_found, user_not_found, not_found"),
            (405, "method_not_allowed"),
            (409, "no_seats_available, conflict"),
            (410, "session_ended"),
            (412, "precondition_failed"),
            (413, "body_too_large"),
            (415, "unsupported_media_type"),
            (429, "rate_limited"),
            (503, "unavailable"),
        ];
        let content =
            || MetaMediaType { content_type: "application/problem+json", schema: ProblemShape::schema_ref() };
        let responses = statuses.map(|(status, description)| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![content()],
            headers: vec![],
        });
        MetaResponses { responses: responses.into() }
    }

    fn register(registry: &mut Registry) {
        <Json<ProblemShape> as poem_openapi::payload::Payload>::register(registry);
    }
}
