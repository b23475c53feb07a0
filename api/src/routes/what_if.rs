//! What would have been with other seats, or another TTL.

use events::Time;
use poem::http::{HeaderValue, header};
use poem::{IntoResponse, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiResponse, Object, OpenApi};
use projections::{Outcome, WhatIfQuestion};

use super::shared::{own_license, time};
use crate::analysis::what_if_csv;
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::listing::Format;
use crate::problem::Problem;

/// How long before `to` a range begins that does not say.
const RANGE: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// The operations.
pub struct WhatIfs(pub App);

/// How a history went.
#[derive(Object)]
#[oai(rename = "Outcome")]
struct OutcomeView {
    /// Most seats held at a time
    peak: i64,
    /// Most seats held or waited for at a time: with so many, nobody waits
    peak_demand: i64,
    /// Wishes that did not find a seat at once
    denied: i64,
    /// Those of them that never got one
    never_granted: i64,
    /// Minutes that wishes waited, together
    denial_minutes: f64,
    /// Whose wishes waited, longest first
    users: Vec<WaiterView>,
}

/// A user who waited.
#[derive(Object)]
#[oai(rename = "Waiter")]
struct WaiterView {
    user_id: String,
    denied: i64,
    denial_minutes: f64,
}

/// A history played twice.
#[derive(Object)]
#[oai(rename = "WhatIf")]
struct WhatIfView {
    license_id: String,
    from: String,
    to: String,
    #[oai(nullable)]
    seats: Option<i64>,
    #[oai(nullable)]
    ttl_seconds: Option<i64>,
    /// Times for which somebody wanted a seat
    wishes: i64,
    /// With the limits and the TTL that there were
    as_it_was: OutcomeView,
    /// With those that were asked about
    what_if: OutcomeView,
}

/// The answer as the caller's `Accept` prefers it.
enum WhatIfAnswer {
    Json(Box<WhatIfView>),
    Csv(String),
}

impl IntoResponse for WhatIfAnswer {
    fn into_response(self) -> Response {
        let mut response = match self {
            Self::Json(view) => Json(*view).into_response(),
            Self::Csv(text) => Response::builder().content_type("text/csv").body(text),
        };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }
}

impl ApiResponse for WhatIfAnswer {
    fn meta() -> MetaResponses {
        let mut responses = <Json<WhatIfView> as ApiResponse>::meta();
        for response in &mut responses.responses {
            response.description =
                "Both outcomes; as CSV a line each, and one for each user who waited in it";
            let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
            response.content.push(MetaMediaType { content_type: "text/csv", schema });
        }
        responses
    }

    fn register(registry: &mut Registry) {
        <Json<WhatIfView> as ApiResponse>::register(registry);
    }
}

#[OpenApi]
impl WhatIfs {
    /// A license's own history with other seats, or another TTL
    ///
    /// One of `seats` and `ttl_seconds` is required.
    #[oai(path = "/api/v1/tenants/:tenant_id/usage/what-if", method = "get", operation_id = "what_if")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn what_if(
        &self,
        credentials: Credentials,
        format: Format,
        tenant_id: Path<String>,
        /// So many seats all the time; as many as there were if left out
        seats: Query<Option<String>>,
        /// This TTL; the one that there was if left out
        ttl_seconds: Query<Option<String>>,
        /// From this time on; 30 days before `to` if left out
        from: Query<Option<String>>,
        /// Before this time; now if left out
        to: Query<Option<String>>,
        /// The license; the tenant's first if left out
        license_id: Query<Option<String>>,
    ) -> Result<WhatIfAnswer, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let readers = [Role::TenantAdmin, Role::Analyst];
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &readers).await?;
        let license_id = own_license(app, tenant_id, license_id.0).await?;
        let to = match time("to", to.0.as_deref())? {
            Some(to) => to,
            None => app.log().clock().await?,
        };
        let question = WhatIfQuestion {
            license_id,
            from: time("from", from.0.as_deref())?.unwrap_or_else(|| before(to)),
            to,
            seats: number("seats", seats.0)?,
            ttl_seconds: number("ttl_seconds", ttl_seconds.0)?,
        };
        let answer = app.read_models.what_if(tenant_id, &question).await?;
        if format == Format::Csv {
            let text = what_if_csv(&answer).map_err(|error| {
                tracing::error!(%error, "CSV was not written");
                Problem::Internal
            })?;
            return Ok(WhatIfAnswer::Csv(text));
        }
        Ok(WhatIfAnswer::Json(Box::new(WhatIfView {
            license_id: answer.license_id.to_string(),
            from: answer.from.to_string(),
            to: answer.to.to_string(),
            seats: answer.seats,
            ttl_seconds: answer.ttl_seconds,
            wishes: answer.wishes,
            as_it_was: answer.as_it_was.into(),
            what_if: answer.what_if.into(),
        })))
    }
}

fn number(name: &str, text: Option<String>) -> Result<Option<i64>, Problem> {
    text.map(|text| text.parse().map_err(|_| Problem::field(name, "must be a whole number"))).transpose()
}

fn before(to: Time) -> Time {
    let length = chrono::Duration::from_std(RANGE).unwrap_or_default();
    to.as_datetime().checked_sub_signed(length).map_or(to, Time::new)
}

impl From<Outcome> for OutcomeView {
    fn from(outcome: Outcome) -> Self {
        let users = outcome.users.into_iter().map(|user| WaiterView {
            user_id: user.user_id,
            denied: user.denied,
            denial_minutes: user.denial_minutes,
        });
        Self {
            peak: outcome.peak,
            peak_demand: outcome.peak_demand,
            denied: outcome.denied,
            never_granted: outcome.never_granted,
            denial_minutes: outcome.denial_minutes,
            users: users.collect(),
        }
    }
}
