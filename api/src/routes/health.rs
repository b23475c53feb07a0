//! Whether this process lives, and whether it should get requests.

use std::time::Duration;

use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};

use crate::app::App;

/// Longest time that Postgres is waited for.
const PATIENCE: Duration = Duration::from_millis(900);

/// The operations.
pub struct Health(pub App);

/// Always the same.
#[derive(Object)]
pub struct Alive {
    /// `ok`
    status: String,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "lowercase")]
enum Readiness {
    Ok,
    Degraded,
    Unavailable,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "lowercase")]
enum Dependency {
    Up,
    Down,
}

impl From<bool> for Dependency {
    fn from(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }
}

#[derive(Object)]
struct Dependencies {
    postgres: Dependency,
    redis: Dependency,
}

#[derive(Object)]
struct ReadyBody {
    /// `degraded`: Redis is down; requests are answered all the same
    status: Readiness,
    dependencies: Dependencies,
}

#[derive(ApiResponse)]
enum ReadyAnswer {
    /// It takes requests
    #[oai(status = 200)]
    Ready(Json<ReadyBody>),
    /// It does not take requests
    #[oai(status = 503)]
    NotReady(Json<ReadyBody>),
}

#[OpenApi]
impl Health {
    /// The process lives; no dependency is asked
    #[oai(path = "/health", method = "get", operation_id = "health")]
    async fn health(&self) -> Json<Alive> {
        Json(Alive { status: "ok".to_owned() })
    }

    /// Whether requests should be sent here
    #[oai(path = "/ready", method = "get", operation_id = "ready")]
    async fn ready(&self) -> ReadyAnswer {
        let app = &self.0;
        let postgres = app.log().database().is_up(PATIENCE).await;
        let redis = app.pools.gate().is_up();
        let ready = postgres && app.pools.writer().is_alive() && !app.is_draining();
        let status = match (ready, redis) {
            (false, _) => Readiness::Unavailable,
            (true, false) => Readiness::Degraded,
            (true, true) => Readiness::Ok,
        };
        let body = ReadyBody {
            status,
            dependencies: Dependencies { postgres: postgres.into(), redis: redis.into() },
        };
        if ready { ReadyAnswer::Ready(Json(body)) } else { ReadyAnswer::NotReady(Json(body)) }
    }
}
