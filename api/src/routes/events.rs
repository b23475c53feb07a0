//! A tenant's events in order, for whoever audits it.

use events::{Cursor, EventFilter, Recorded, SessionId, Time, UserId};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};

use super::shared::page_limit;
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::problem::Problem;

/// The operations.
pub struct Events(pub App);

/// A page of events.
#[derive(Object)]
struct EventPage {
    /// `{event_id, cursor, tenant_id, license_id, version, type, session_id, user_id, hardware_id, occurred_at, request_id, data}`
    items: Vec<Any<Value>>,
    /// Where the next page begins; null: there is nothing more now
    #[oai(nullable)]
    next: Option<String>,
}

#[OpenApi]
impl Events {
    /// Events of a tenant, oldest first
    #[oai(path = "/api/v1/tenants/:tenant_id/events", method = "get", operation_id = "list_events")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn list(
        &self,
        credentials: Credentials,
        tenant_id: Path<String>,
        /// Where the page begins: a cursor of an event, or `next` of the page before
        after: Query<Option<String>>,
        /// 1 to 1000; 100 if left out
        limit: Query<Option<String>>,
        /// Only events of this type
        #[oai(name = "type")]
        event_type: Query<Option<String>>,
        /// Only events of this session
        session_id: Query<Option<String>>,
        /// Only events of this user
        user_id: Query<Option<String>>,
        /// From this time on
        from: Query<Option<String>>,
        /// Before this time
        to: Query<Option<String>>,
    ) -> Result<Json<EventPage>, Problem> {
        let app = &self.0;
        let caller = app.authenticator.verify(credentials.token(None)).await?;
        let readers = [Role::TenantAdmin, Role::Auditor];
        let tenant_id = app.authenticator.on_tenant(&caller, &tenant_id, &readers).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let after: Cursor = match after.0.as_deref() {
            Some(text) => text.parse().map_err(Problem::value("after"))?,
            None => Cursor::default(),
        };
        if after != Cursor::default() && after.epoch != app.log().epoch().await? {
            return Err(Problem::field("after", "is not a cursor that this service handed out"));
        }
        let time = |name: &str, text: Option<String>| {
            text.map(|text| Time::parse(&text).map_err(|_| Problem::field(name, "must be an RFC 3339 time")))
                .transpose()
        };
        if event_type.0.as_deref().is_some_and(|name| !events::Event::NAMES.contains(&name)) {
            return Err(Problem::field("type", "is not a type of event"));
        }
        let filter = EventFilter {
            event_type: event_type.0,
            session_id: session_id
                .0
                .map(|id| id.parse::<SessionId>())
                .transpose()
                .map_err(Problem::value("session_id"))?,
            user_id: user_id.0.map(UserId::new).transpose().map_err(Problem::value("user_id"))?,
            from: time("from", from.0)?,
            to: time("to", to.0)?,
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from > to
        {
            return Err(Problem::field("from", "must not be after to"));
        }
        let wanted = i64::try_from(limit).unwrap_or(1_000) + 1;
        let mut events = app.log().read_tenant(tenant_id, after.position, &filter, wanted).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        let next = if more { events.last().map(|last| last.cursor.to_string()) } else { None };
        Ok(Json(EventPage { items: events.iter().map(|one| Any(show(one))).collect(), next }))
    }
}

/// An event as the contract writes it.
fn show(recorded: &Recorded) -> Value {
    let tagged = serde_json::to_value(&recorded.event).unwrap_or_default();
    json!({
        "event_id": recorded.event_id,
        "cursor": recorded.cursor.to_string(),
        "tenant_id": recorded.tenant_id,
        "license_id": recorded.license_id(),
        "version": recorded.version,
        "type": tagged["type"],
        "session_id": recorded.subject.session_id,
        "user_id": recorded.subject.user_id.as_ref().map(UserId::as_str),
        "hardware_id": recorded.subject.hardware_id.as_ref().map(events::HardwareId::as_str),
        "occurred_at": recorded.occurred_at,
        "request_id": recorded.request_id,
        "data": tagged["data"],
    })
}
