//! The one door. A batch goes in one statement; see `schema/V18__append.sql` for what it checks.

use std::time::Duration;

use deadpool_postgres::Object;
use serde_json::Value;
use uuid::Uuid;

use crate::log::EventLog;
use crate::log::refused::Refused;
use crate::{Event, LogError, Product, SessionId, Standing, Subject, TenantId, Time, UserId, encode};

/// Everything that travels in one statement.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// All streams stand or fall together. Needed for new streams, names, users and switches.
    pub whole: bool,
    /// How long a seat lives without a heartbeat.
    pub ttl: Duration,
    /// Streams written to, each at most once.
    pub streams: Vec<StreamWrite>,
    /// Names to hold or let go; only with `whole`.
    pub names: Vec<NameClaim>,
    /// Heartbeats of any pool, each session at most once.
    pub heartbeats: Vec<HeartbeatWrite>,
    /// The same was sent before, and its outcome is unknown.
    pub resend: bool,
}

/// New events of one stream, on condition.
#[derive(Debug, Clone)]
pub struct StreamWrite {
    /// A license's id, or a tenant's.
    pub stream_id: Uuid,
    /// Whose stream it is.
    pub tenant_id: TenantId,
    /// For a pool; `None` on a tenant's own stream.
    pub product: Option<Product>,
    /// The version decided on; 0 for a stream that does not exist yet.
    pub expected: i64,
    /// The standing decided on, where it matters: grants and denials.
    pub standing: Option<Standing>,
    /// In order.
    pub events: Vec<NewEvent>,
}

/// An event that is not in the log yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Minted once, the same on every resend.
    pub event_id: Uuid,
    /// Whom it is about.
    pub subject: Subject,
    /// The fact; Postgres stamps deadlines.
    pub event: Event,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// Stored by `seat_acquired`, forgotten by `seat_released`.
    pub key: Option<IdempotencyKey>,
    /// A release of a grant that could not be answered: refused once somebody else was answered with the session.
    pub give_back: bool,
}

/// The `Idempotency-Key` of an acquire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of the request's fields, `jwt_token` apart.
    pub request_hash: Vec<u8>,
}

/// A name that may be held once.
#[derive(Debug, Clone)]
pub struct NameClaim {
    /// Who holds it.
    pub stream_id: Uuid,
    /// `subdomain`, `identity_tenant`, `product/<tenant>`.
    pub scope: String,
    /// The name.
    pub name: String,
    /// Hold it, or let it go.
    pub hold: bool,
}

/// A sign of life of one session.
#[derive(Debug, Clone)]
pub struct HeartbeatWrite {
    /// Minted once, the same on every resend.
    pub event_id: Uuid,
    /// The pool.
    pub stream_id: Uuid,
    /// The session.
    pub session_id: SessionId,
    /// Who claims to hold it.
    pub user_id: UserId,
    /// The request.
    pub request_id: Option<String>,
    /// Of an acquire that renewed; stored unless another session has it.
    pub key: Option<IdempotencyKey>,
}

/// The answer: what is not refused is written.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Postgres's clock at the append; a heartbeat's or grant's deadline is this plus the TTL.
    pub at: Time,
    /// What was not written, or was written before.
    pub refused: Vec<Refused>,
}

impl Appended {
    /// When the heartbeat of a session was written.
    ///
    /// # Errors
    /// It was not: its pool does not accept, or, without a standing, there is no such seat of that user.
    pub fn heartbeat(&self, session_id: SessionId) -> Result<Time, Option<Standing>> {
        let judged = self.refused.iter().filter_map(Refused::heartbeat);
        judged.into_iter().find(|(session, _)| *session == session_id).map_or(Ok(self.at), |(_, why)| why)
    }
}

/// The arrays that the function takes, one a column.
#[derive(Default)]
struct Columns<'a> {
    s_stream: Vec<Uuid>,
    s_tenant: Vec<Uuid>,
    s_product: Vec<Option<&'a str>>,
    s_expected: Vec<i64>,
    s_standing: Vec<Option<&'a str>>,
    d_stream: Vec<Uuid>,
    d_event: Vec<Uuid>,
    d_type: Vec<String>,
    d_format: Vec<i16>,
    d_session: Vec<Option<Uuid>>,
    d_user: Vec<Option<&'a str>>,
    d_hardware: Vec<Option<&'a str>>,
    d_request: Vec<Option<&'a str>>,
    d_data: Vec<Value>,
    d_key: Vec<Option<&'a str>>,
    d_hash: Vec<Option<&'a [u8]>>,
    d_give_back: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(streams: &'a [StreamWrite]) -> Result<Self, LogError> {
        let mut columns = Self::default();
        for stream in streams {
            columns.s_stream.push(stream.stream_id);
            columns.s_tenant.push(stream.tenant_id.0);
            columns.s_product.push(stream.product.as_ref().map(Product::as_str));
            columns.s_expected.push(stream.expected);
            columns.s_standing.push(stream.standing.map(Standing::as_str));
            for event in &stream.events {
                columns.push(stream.stream_id, event)?;
            }
        }
        Ok(columns)
    }

    fn push(&mut self, stream_id: Uuid, new: &'a NewEvent) -> Result<(), LogError> {
        let (event_type, format, data) = encode(&new.event)?;
        self.d_stream.push(stream_id);
        self.d_event.push(new.event_id);
        self.d_type.push(event_type);
        self.d_format.push(format);
        self.d_session.push(new.subject.session_id.map(|id| id.0));
        self.d_user.push(new.subject.user_id.as_ref().map(|id| id.as_str()));
        self.d_hardware.push(new.subject.hardware_id.as_ref().map(|id| id.as_str()));
        self.d_request.push(new.request_id.as_deref());
        self.d_data.push(data);
        self.d_key.push(new.key.as_ref().map(|key| key.key.as_str()));
        self.d_hash.push(new.key.as_ref().map(|key| key.request_hash.as_slice()));
        self.d_give_back.push(new.give_back);
        Ok(())
    }
}

const APPEND: &str = include_str!("append.sql");

impl EventLog {
    /// One call of the append function on a connection of the caller's.
    ///
    /// Dropping the future does not cancel the statement: whoever must know the outcome runs this in a task of its own.
    ///
    /// # Errors
    /// [`LogError::Unknown`] and [`LogError::RolledBack`]: send the identical batch again.
    pub async fn append_on(connection: &Object, batch: &Batch) -> Result<Appended, LogError> {
        let columns = Columns::of(&batch.streams)?;
        let names = &batch.names;
        let n_stream: Vec<Uuid> = names.iter().map(|name| name.stream_id).collect();
        let n_scope: Vec<&str> = names.iter().map(|name| name.scope.as_str()).collect();
        let n_name: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
        let n_hold: Vec<bool> = names.iter().map(|name| name.hold).collect();
        let beats = &batch.heartbeats;
        let h_event: Vec<Uuid> = beats.iter().map(|beat| beat.event_id).collect();
        let h_stream: Vec<Uuid> = beats.iter().map(|beat| beat.stream_id).collect();
        let h_session: Vec<Uuid> = beats.iter().map(|beat| beat.session_id.0).collect();
        let h_user: Vec<&str> = beats.iter().map(|beat| beat.user_id.as_str()).collect();
        let h_request: Vec<Option<&str>> = beats.iter().map(|beat| beat.request_id.as_deref()).collect();
        let h_key: Vec<Option<&str>> =
            beats.iter().map(|beat| beat.key.as_ref().map(|key| key.key.as_str())).collect();
        let h_hash: Vec<Option<&[u8]>> =
            beats.iter().map(|beat| beat.key.as_ref().map(|key| key.request_hash.as_slice())).collect();
        let ttl_ms = i32::try_from(batch.ttl.as_millis()).unwrap_or(i32::MAX);

        let statement = connection.prepare_cached(APPEND).await?;
        let row = connection
            .query_one(
                &statement,
                &[
                    &batch.whole,
                    &ttl_ms,
                    &columns.s_stream,
                    &columns.s_tenant,
                    &columns.s_product,
                    &columns.s_expected,
                    &columns.s_standing,
                    &columns.d_stream,
                    &columns.d_event,
                    &columns.d_type,
                    &columns.d_format,
                    &columns.d_session,
                    &columns.d_user,
                    &columns.d_hardware,
                    &columns.d_request,
                    &columns.d_data,
                    &columns.d_key,
                    &columns.d_hash,
                    &columns.d_give_back,
                    &n_stream,
                    &n_scope,
                    &n_name,
                    &n_hold,
                    &h_event,
                    &h_stream,
                    &h_session,
                    &h_user,
                    &h_request,
                    &h_key,
                    &h_hash,
                    &batch.resend,
                ],
            )
            .await?;
        let at: chrono::DateTime<chrono::Utc> = row.get(0);
        let refused: Value = row.get(1);
        let refused = serde_json::from_value(refused)
            .map_err(|error| LogError::Rejected(format!("the append function's answer: {error}")))?;
        Ok(Appended { at: at.into(), refused })
    }

    /// [`EventLog::append_on`] a connection of the pool.
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, batch: &Batch) -> Result<Appended, LogError> {
        Self::append_on(&self.database.get().await?, batch).await
    }

    /// A sign of life of the append path (protocol, rule 7); answers Postgres's clock.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn tick_beacon_on(connection: &Object, gap: Duration) -> Result<Time, LogError> {
        let gap_ms = i32::try_from(gap.as_millis()).unwrap_or(i32::MAX);
        let statement = connection.prepare_cached("select tick_beacon($1)").await?;
        let row = connection.query_one(&statement, &[&gap_ms]).await?;
        Ok(row.get::<_, chrono::DateTime<chrono::Utc>>(0).into())
    }
}
