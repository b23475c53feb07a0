//! Every URL on one page.
//!
//! | method and path | handler |
//! |---|---|
//! | POST /api/v1/licenses/acquire, /heartbeat, /release | `routes/licenses.rs`, by way of `routes/front.rs` |
//! | GET /api/v1/public-key, /.well-known/jwks.json | `routes/keys.rs` |
//! | GET, POST /api/v1/tenants, GET, PUT /api/v1/tenants/{tenant_id} | `routes/tenants.rs` |
//! | GET, POST …/licenses, GET, PUT …/licenses/{license_id} | `routes/tenant_licenses.rs` |
//! | GET, POST …/users, GET, PUT, DELETE …/users/{user_id} | `routes/users.rs` |
//! | GET …/sessions, DELETE …/sessions/{session_id} | `routes/sessions.rs` |
//! | GET …/events, …/trail | `routes/events.rs` |
//! | GET …/state | `routes/state.rs` |
//! | GET …/usage, …/denials | `routes/usage.rs` |
//! | GET …/usage/what-if | `routes/what_if.rs` |
//! | GET /api/v1/checkpoints, /api/v1/checkpoints/keys, …/checkpoints, …/events/{event_id}/proof, …/certificate | `routes/checkpoints.rs` |
//! | GET /health, /ready | `routes/health.rs` |
//! | GET /openapi.json, /docs | here |

pub mod checkpoints;
pub mod events;
pub mod front;
pub mod health;
pub mod keys;
pub mod licenses;
pub mod sessions;
pub mod shared;
pub mod state;
pub mod tenant_licenses;
pub mod tenants;
pub mod usage;
pub mod users;
pub mod what_if;

use poem::endpoint::make_sync;
use poem::{EndpointExt, IntoEndpoint, IntoResponse, Route, get};
use poem_openapi::OpenApiService;

use crate::app::App;
use crate::openapi;

/// All paths, as metrics and traces name them, and what they answer to.
const PATTERNS: &[(&str, &str)] = &[
    ("/api/v1/licenses/acquire", "POST"),
    ("/api/v1/licenses/heartbeat", "POST"),
    ("/api/v1/licenses/release", "POST"),
    ("/api/v1/public-key", "GET"),
    ("/.well-known/jwks.json", "GET"),
    ("/api/v1/tenants", "GET, POST"),
    ("/api/v1/tenants/{tenant_id}", "GET, PUT"),
    ("/api/v1/tenants/{tenant_id}/users", "GET, POST"),
    ("/api/v1/tenants/{tenant_id}/users/{user_id}", "GET, PUT, DELETE"),
    ("/api/v1/tenants/{tenant_id}/sessions", "GET"),
    ("/api/v1/tenants/{tenant_id}/sessions/{session_id}", "DELETE"),
    ("/api/v1/tenants/{tenant_id}/licenses", "GET, POST"),
    ("/api/v1/tenants/{tenant_id}/licenses/{license_id}", "GET, PUT"),
    ("/api/v1/tenants/{tenant_id}/events", "GET"),
    ("/api/v1/tenants/{tenant_id}/trail", "GET"),
    ("/api/v1/tenants/{tenant_id}/state", "GET"),
    ("/api/v1/tenants/{tenant_id}/usage", "GET"),
    ("/api/v1/tenants/{tenant_id}/usage/what-if", "GET"),
    ("/api/v1/tenants/{tenant_id}/denials", "GET"),
    ("/api/v1/tenants/{tenant_id}/events/{event_id}/proof", "GET"),
    ("/api/v1/tenants/{tenant_id}/certificate", "GET"),
    ("/api/v1/tenants/{tenant_id}/checkpoints", "GET"),
    ("/api/v1/checkpoints", "GET"),
    ("/api/v1/checkpoints/keys", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
    ("/openapi.json", "GET"),
    ("/docs", "GET"),
];

/// The pattern of a path: no metric has an id in a label.
#[must_use]
pub fn pattern(path: &str) -> &'static str {
    let path = path.strip_suffix('/').unwrap_or(path);
    let matches = |pattern: &str| {
        let (mut ours, mut theirs) = (pattern.split('/'), path.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(part), Some(given))
                    if part == given || (part.starts_with('{') && !given.is_empty()) => {}
                _ => return false,
            }
        }
    };
    PATTERNS.iter().map(|(pattern, _)| *pattern).find(|pattern| matches(pattern)).unwrap_or("unmatched")
}

/// The methods that a pattern answers to.
#[must_use]
pub fn methods(pattern: &str) -> Option<&'static str> {
    PATTERNS.iter().find(|(known, _)| *known == pattern).map(|(_, methods)| *methods)
}

type Apis = (
    licenses::Licenses,
    keys::Keys,
    tenants::TenantRoutes,
    tenant_licenses::TenantLicenses,
    users::Users,
    sessions::Sessions,
    events::Events,
    state::State,
    usage::Reports,
    what_if::WhatIfs,
    checkpoints::Checkpoints,
    health::Health,
);

/// The operations of the API and their document.
#[must_use]
pub fn service(app: &App) -> OpenApiService<Apis, ()> {
    let apis = (
        licenses::Licenses(app.clone()),
        keys::Keys(app.clone()),
        tenants::TenantRoutes(app.clone()),
        tenant_licenses::TenantLicenses(app.clone()),
        users::Users(app.clone()),
        sessions::Sessions(app.clone()),
        events::Events(app.clone()),
        state::State(app.clone()),
        usage::Reports(app.clone()),
        what_if::WhatIfs(app.clone()),
        checkpoints::Checkpoints(app.clone()),
        health::Health(app.clone()),
    );
    OpenApiService::new(apis, "CODITECT License Management", env!("CARGO_PKG_VERSION"))
        .description(openapi::DESCRIPTION)
}

/// The document as it is served; as poem-openapi wrote it, should the examples be unreadable.
fn document(spec: &str) -> String {
    match openapi::finish(spec) {
        Ok(document) => format!("{document:#}\n"),
        Err(error) => {
            tracing::error!(%error, "the OpenAPI document has no examples");
            spec.to_owned()
        }
    }
}

/// The router.
pub fn routes(app: &App) -> impl IntoEndpoint<Endpoint: 'static> + use<> {
    let service = service(app);
    let document = document(&service.spec());
    let docs = service.swagger_ui();
    let openapi = make_sync(move |_| document.clone().with_content_type("application/json").into_response());
    Route::new().at("/openapi.json", get(openapi)).nest("/docs", docs).nest("/", service).boxed()
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn names_patterns_and_never_an_id() {
        assert_eq!(pattern("/api/v1/licenses/acquire/"), "/api/v1/licenses/acquire");
        assert_eq!(pattern("/api/v1/tenants/0190-x/events"), "/api/v1/tenants/{tenant_id}/events");
        assert_eq!(pattern("/api/v1/tenants/0190-x/evil"), "unmatched");
        assert_eq!(pattern("/api/v1/tenants//events"), "unmatched");
        assert_eq!(pattern("/"), "unmatched");
    }
}
