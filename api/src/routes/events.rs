//! A tenant's events in order, for whoever audits it: as facts, and in words.

use events::{EventFilter, EventLog, Position, Recorded, SessionId, TenantId, UserId};
use poem_openapi::param::{Path, Query};
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use projections::TrailEntry;
use serde_json::Value;

use super::shared::{page_limit, range};
use crate::app::App;
use crate::auth::{Credentials, Role};
use crate::listing::{CsvRow, Format, Listing, Page};
use crate::problem::Problem;

/// The operations.
pub struct Events(pub App);

/// An event.
#[derive(Object)]
#[oai(rename = "Event")]
pub(crate) struct EventView {
    event_id: String,
    /// Where it is in the log; hand it back as `after` to go on behind it
    cursor: String,
    tenant_id: String,
    /// The pool; null for what concerns the tenant itself
    #[oai(nullable)]
    license_id: Option<String>,
    /// In its stream, from 1 without a gap; null for heartbeats and denials
    #[oai(nullable)]
    version: Option<i64>,
    #[oai(rename = "type")]
    event_type: String,
    #[oai(nullable)]
    session_id: Option<String>,
    #[oai(nullable)]
    user_id: Option<String>,
    #[oai(nullable)]
    hardware_id: Option<String>,
    occurred_at: String,
    #[oai(nullable)]
    request_id: Option<String>,
    /// What the type says
    data: Any<Value>,
}

impl CsvRow for EventView {
    const COLUMNS: &'static [&'static str] = &[
        "event_id",
        "cursor",
        "tenant_id",
        "license_id",
        "version",
        "type",
        "session_id",
        "user_id",
        "hardware_id",
        "occurred_at",
        "request_id",
        "data",
    ];
}

/// An event in words.
#[derive(Object)]
struct TrailView {
    event_id: String,
    /// Where it is in the log
    cursor: String,
    occurred_at: String,
    #[oai(rename = "type")]
    event_type: String,
    #[oai(nullable)]
    request_id: Option<String>,
    /// What happened
    sentence: String,
}

impl CsvRow for TrailView {
    const COLUMNS: &'static [&'static str] =
        &["occurred_at", "sentence", "type", "event_id", "cursor", "request_id"];
}

#[OpenApi]
impl Events {
    /// Events of a tenant, oldest first
    ///
    /// JSON pages; NDJSON and CSV are all events from `after` on, streamed.
    #[oai(path = "/api/v1/tenants/:tenant_id/events", method = "get", operation_id = "list_events")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn list(
        &self,
        credentials: Credentials,
        format: Format,
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
    ) -> Result<Listing<EventView>, Problem> {
        let tenant_id = self.on_tenant(&credentials, &tenant_id).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let filter = filter(event_type.0, session_id.0, user_id.0, from.0.as_deref(), to.0.as_deref())?;
        let log = self.0.log().clone();
        let page = move |after: Option<String>, limit| {
            let (log, filter) = (log.clone(), filter.clone());
            async move { read(&log, tenant_id, after, &filter, limit).await }
        };
        Listing::of(format, after.0, limit, page).await
    }

    /// Events of a tenant in words, oldest first: the audit trail
    #[oai(path = "/api/v1/tenants/:tenant_id/trail", method = "get", operation_id = "trail")]
    #[expect(clippy::too_many_arguments, reason = "one a query parameter")]
    async fn trail(
        &self,
        credentials: Credentials,
        format: Format,
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
    ) -> Result<Listing<TrailView>, Problem> {
        let tenant_id = self.on_tenant(&credentials, &tenant_id).await?;
        let limit = page_limit(limit.0.as_deref())?;
        let filter = filter(event_type.0, session_id.0, user_id.0, from.0.as_deref(), to.0.as_deref())?;
        let read_models = self.0.read_models.clone();
        let page = move |after: Option<String>, limit| {
            let (read_models, filter) = (read_models.clone(), filter.clone());
            async move {
                let page = read_models.audit_trail(tenant_id, &filter, after.as_deref(), limit).await?;
                let items = page.items.into_iter().map(TrailView::from).collect();
                Ok(Page { items, next: page.next })
            }
        };
        Listing::of(format, after.0, limit, page).await
    }
}

impl Events {
    async fn on_tenant(&self, credentials: &Credentials, tenant_id: &str) -> Result<TenantId, Problem> {
        let authenticator = &self.0.authenticator;
        let caller = authenticator.verify(credentials.token(None)).await?;
        authenticator.on_tenant(&caller, tenant_id, &[Role::TenantAdmin, Role::Auditor]).await
    }
}

fn filter(
    event_type: Option<String>,
    session_id: Option<String>,
    user_id: Option<String>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<EventFilter, Problem> {
    if event_type.as_deref().is_some_and(|name| !events::Event::NAMES.contains(&name)) {
        return Err(Problem::field("type", "is not a type of event"));
    }
    let session_id = session_id.map(|id| id.parse::<SessionId>()).transpose();
    let (from, to) = range(from, to)?;
    Ok(EventFilter {
        event_type,
        session_id: session_id.map_err(Problem::value("session_id"))?,
        user_id: user_id.map(UserId::new).transpose().map_err(Problem::value("user_id"))?,
        from,
        to,
    })
}

async fn read(
    log: &EventLog,
    tenant_id: TenantId,
    after: Option<String>,
    filter: &EventFilter,
    limit: usize,
) -> Result<Page<EventView>, Problem> {
    let bad = || Problem::field("after", "is not a cursor that this service handed out");
    let after = match after {
        Some(text) => log.cursors().await?.open(&text).map_err(|_| bad())?,
        None => Position::default(),
    };
    let wanted = i64::try_from(limit).unwrap_or(1_000) + 1;
    let mut events = log.read_tenant(tenant_id, after, filter, wanted).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let next = if more { events.last().map(|last| last.cursor.to_string()) } else { None };
    Ok(Page { items: events.iter().map(EventView::from).collect(), next })
}

impl From<&Recorded> for EventView {
    fn from(recorded: &Recorded) -> Self {
        let mut tagged = serde_json::to_value(&recorded.event).unwrap_or_default();
        let subject = &recorded.subject;
        Self {
            event_id: recorded.event_id.to_string(),
            cursor: recorded.cursor.to_string(),
            tenant_id: recorded.tenant_id.to_string(),
            license_id: recorded.license_id().map(|id| id.to_string()),
            version: recorded.version,
            event_type: recorded.event.name().to_owned(),
            session_id: subject.session_id.map(|id| id.to_string()),
            user_id: subject.user_id.as_ref().map(ToString::to_string),
            hardware_id: subject.hardware_id.as_ref().map(ToString::to_string),
            occurred_at: recorded.occurred_at.to_string(),
            request_id: recorded.request_id.clone(),
            data: Any(tagged["data"].take()),
        }
    }
}

impl From<TrailEntry> for TrailView {
    fn from(entry: TrailEntry) -> Self {
        Self {
            event_id: entry.event_id.to_string(),
            cursor: entry.cursor,
            occurred_at: entry.occurred_at.to_string(),
            event_type: entry.event_type.to_owned(),
            request_id: entry.request_id,
            sentence: entry.sentence,
        }
    }
}
