//! A log in a database of its own, and short words for what is written to it.

#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

use std::time::Duration;

use engines::{TestDatabase, TestEngines};
use events::{
    AddReason, Appended, Batch, Database, Event, EventLog, HardwareId, HeartbeatWrite, IdempotencyKey,
    LicenseId, LicenseTerms, NameClaim, NewEvent, Product, Recorded, RevokedBy, Seats, SessionId, Standing,
    StreamWrite, Subject, TenantChange, TenantId, TenantTerms, Time, UserId,
};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

pub const TTL: Duration = Duration::from_secs(60);

/// Users of every tenant that [`World::pool`] makes.
pub const USERS: [&str; 3] = ["ada", "bob", "eve"];

pub struct World {
    pub log: EventLog,
    pub database: TestDatabase,
}

/// A tenant and one of its licenses.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub tenant_id: TenantId,
    pub license_id: LicenseId,
}

/// Somebody who holds a seat, or would.
#[derive(Debug, Clone)]
pub struct Holder {
    pub session_id: SessionId,
    pub user_id: UserId,
    pub hardware_id: HardwareId,
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Asks until it holds: for what another task or Postgres itself has to do first.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come to hold");
}

impl World {
    /// The beacon has a long gap and no outage behind it: on a slow machine nothing lapses by itself.
    pub async fn new() -> Self {
        let database = TestEngines::shared().await.unwrap().database().await.unwrap();
        events::migrate(&database.url()).await.unwrap();
        let log = EventLog::new(Database::new(&database.url(), 12, Duration::from_secs(20)).unwrap());
        let world = Self { log, database };
        world
            .as_superuser(
                "update beacon set last_seen = now(), recovered_at = now() - interval '1 day', gap_ms = 3600000",
            )
            .await;
        world
    }

    pub async fn superuser(&self) -> Client {
        connect(&self.database.superuser_url()).await
    }

    /// Whoever migrated: owner of everything.
    pub async fn owner(&self) -> Client {
        connect(&self.database.url()).await
    }

    /// What the running service may do.
    pub async fn service(&self) -> Client {
        let client = self.owner().await;
        client.batch_execute("set role license_service").await.unwrap();
        client
    }

    /// Reaches around every rule, where a test plays fate.
    pub async fn as_superuser(&self, sql: &str) {
        self.superuser().await.batch_execute(sql).await.unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.superuser().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn now(&self) -> Time {
        let row = self.superuser().await.query_one("select clock_timestamp()", &[]).await.unwrap();
        row.get::<_, chrono::DateTime<chrono::Utc>>(0).into()
    }

    pub async fn append(&self, batch: &Batch) -> Appended {
        self.log.append(batch).await.unwrap()
    }

    /// Appends what nothing speaks against.
    pub async fn write(&self, batch: &Batch) -> Appended {
        let appended = self.append(batch).await;
        assert_eq!(appended.refused, [], "nothing is refused");
        appended
    }

    /// Every row that the append function may write, as text.
    pub async fn everything(&self) -> String {
        let tables = ["events", "streams", "seats", "users", "names", "idempotency_keys"];
        let selects =
            tables.map(|table| format!("select '{table} ' || to_jsonb(t)::text as line from {table} t"));
        let sql = format!(
            "select coalesce(string_agg(line, E'\\n' order by line), '') from ({}) all_rows",
            selects.join(" union all ")
        );
        self.superuser().await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    pub async fn version(&self, stream_id: Uuid) -> i64 {
        self.log.stream_head(stream_id).await.unwrap().unwrap().version
    }

    pub async fn names(&self, stream_id: Uuid) -> Vec<&'static str> {
        self.log.decisions(stream_id).await.unwrap().iter().map(|one| one.event.name()).collect()
    }

    /// The heartbeats of a session, oldest first.
    pub async fn heartbeats(&self, pool: Pool, holder: &Holder) -> Vec<Recorded> {
        // The global reader waits for transactions of other tests: what is committed is not always shown at once.
        let count = self
            .number(&format!(
                "select count(*) from events where class = 'heartbeat' and session_id = '{}'",
                holder.session_id
            ))
            .await;
        let filter = events::EventFilter {
            event_type: Some("seat_heartbeat".to_owned()),
            session_id: Some(holder.session_id),
            ..events::EventFilter::default()
        };
        let mut found = Vec::new();
        eventually("all heartbeats are shown", async || {
            found = self
                .log
                .read_tenant(pool.tenant_id, events::Position::default(), &filter, 1000)
                .await
                .unwrap();
            found.len() as i64 >= count
        })
        .await;
        found
    }

    pub async fn deadline(&self, pool: Pool, holder: &Holder) -> Option<Time> {
        let seats = self.log.seats(pool.license_id).await.unwrap();
        seats.iter().find(|seat| seat.session_id == holder.session_id).map(|seat| seat.deadline)
    }

    /// A tenant with [`USERS`] and a license of 100 seats.
    pub async fn pool(&self) -> Pool {
        let pool = Pool { tenant_id: TenantId::mint(), license_id: LicenseId::mint() };
        let written = whole([pool.creates_tenant(), pool.issues(license_terms())]);
        let of_license = NameClaim {
            stream_id: pool.license_id.0,
            ..pool.claims(&format!("product/{}", pool.tenant_id), "coditect")
        };
        let names = vec![pool.claims("subdomain", &pool.tenant_id.to_string()), of_license];
        self.write(&Batch { names, ..written }).await;
        pool
    }

    /// One more license of the tenant.
    pub async fn another_pool(&self, of: Pool) -> Pool {
        let pool = Pool { tenant_id: of.tenant_id, license_id: LicenseId::mint() };
        self.write(&whole([pool.issues(license_terms())])).await;
        pool
    }

    /// A user takes a seat.
    pub async fn seat(&self, pool: Pool, user: &str) -> Holder {
        let holder = holder(user);
        let expected = self.version(pool.license_id.0).await;
        self.write(&batch([pool.writes(expected, [acquired(&holder)])])).await;
        holder
    }

    /// As if the session had been silent for a TTL and longer.
    pub async fn lapse(&self, holder: &Holder) {
        self.as_superuser(&format!(
            "update seats set (deadline, due) = (select t, t from (select date_trunc('milliseconds', now()) - interval '1 second' as t) q) where session_id = '{}'",
            holder.session_id
        ))
        .await;
    }

    pub async fn switch_tenant(&self, pool: Pool, active: bool) {
        let expected = self.version(pool.tenant_id.0).await;
        let change = TenantChange { active: Some(active), ..TenantChange::default() };
        self.write(&whole([pool.of_tenant(expected, [new_event(Event::TenantUpdated(change))])])).await;
    }

    /// Until some statement on this database waits for a lock.
    pub async fn somebody_waits(&self) {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("a statement waits for a lock", async || self.number(sql).await > 0).await;
    }
}

impl Pool {
    /// Events of the pool, decided on an accepting one.
    pub fn writes(self, expected: i64, events: impl IntoIterator<Item = NewEvent>) -> StreamWrite {
        StreamWrite {
            stream_id: self.license_id.0,
            tenant_id: self.tenant_id,
            product: Some(Product::new("coditect").unwrap()),
            expected,
            standing: Some(Standing::Ok),
            events: events.into_iter().collect(),
        }
    }

    /// Events of the pool whose standing does not matter.
    pub fn administers(self, expected: i64, events: impl IntoIterator<Item = NewEvent>) -> StreamWrite {
        StreamWrite { standing: None, ..self.writes(expected, events) }
    }

    /// Events of the tenant's own stream.
    pub fn of_tenant(self, expected: i64, events: impl IntoIterator<Item = NewEvent>) -> StreamWrite {
        StreamWrite {
            stream_id: self.tenant_id.0,
            product: None,
            standing: None,
            ..self.writes(expected, events)
        }
    }

    pub fn creates_tenant(self) -> StreamWrite {
        let terms = TenantTerms { subdomain: self.tenant_id.to_string(), ..tenant_terms() };
        let created = new_event(Event::TenantCreated(terms));
        self.of_tenant(0, [created].into_iter().chain(USERS.map(user_added)))
    }

    pub fn issues(self, terms: LicenseTerms) -> StreamWrite {
        self.administers(0, [new_event(Event::LicenseIssued(terms))])
    }

    pub fn claims(self, scope: &str, name: &str) -> NameClaim {
        NameClaim { stream_id: self.tenant_id.0, scope: scope.to_owned(), name: name.to_owned(), hold: true }
    }

    pub fn beat(self, holder: &Holder) -> HeartbeatWrite {
        HeartbeatWrite {
            event_id: Uuid::now_v7(),
            stream_id: self.license_id.0,
            session_id: holder.session_id,
            user_id: holder.user_id.clone(),
            request_id: Some("beat".to_owned()),
            key: None,
        }
    }
}

/// Streams that are judged one by one.
pub fn batch(streams: impl IntoIterator<Item = StreamWrite>) -> Batch {
    Batch { ttl: TTL, streams: streams.into_iter().collect(), ..Batch::default() }
}

/// Streams that stand or fall together.
pub fn whole(streams: impl IntoIterator<Item = StreamWrite>) -> Batch {
    Batch { whole: true, ..batch(streams) }
}

/// The same, sent again because the first sending's outcome is unknown.
pub fn again(batch: &Batch) -> Batch {
    Batch { resend: true, ..batch.clone() }
}

/// Heartbeats alone.
pub fn beats(heartbeats: impl IntoIterator<Item = HeartbeatWrite>) -> Batch {
    Batch { ttl: TTL, heartbeats: heartbeats.into_iter().collect(), ..Batch::default() }
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A new session of a user on a machine of its own.
pub fn holder(name: &str) -> Holder {
    let session_id = SessionId::mint();
    Holder {
        session_id,
        user_id: user(name),
        hardware_id: HardwareId::new(format!("machine-{session_id}")).unwrap(),
    }
}

pub fn seats(count: i64) -> Seats {
    Seats::new(count).unwrap()
}

pub fn time(text: &str) -> Time {
    Time::parse(text).unwrap()
}

pub fn new_event(event: Event) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::default(),
        event,
        request_id: None,
        key: None,
        give_back: false,
    }
}

fn about(holder: &Holder, event: Event) -> NewEvent {
    let subject = Subject::holder(holder.session_id, holder.user_id.clone(), holder.hardware_id.clone());
    NewEvent { subject, request_id: Some("request".to_owned()), ..new_event(event) }
}

/// The deadline is a guess that Postgres replaces.
pub fn acquired(holder: &Holder) -> NewEvent {
    let deadline = time("2001-01-01T00:00:00Z");
    about(
        holder,
        Event::SeatAcquired { seats_used: 1, seats_total: seats(100), deadline, machine_name: None },
    )
}

pub fn with_key(event: NewEvent, key: &str) -> NewEvent {
    NewEvent { key: Some(IdempotencyKey { key: key.to_owned(), request_hash: vec![7; 32] }), ..event }
}

pub fn released(holder: &Holder) -> NewEvent {
    about(holder, Event::SeatReleased {})
}

/// The release of a grant that could not be answered.
pub fn given_back(holder: &Holder) -> NewEvent {
    NewEvent { give_back: true, ..released(holder) }
}

pub fn expired(holder: &Holder) -> NewEvent {
    about(holder, Event::SeatExpired { deadline: time("2001-01-01T00:00:00Z") })
}

pub fn revoked(holder: &Holder) -> NewEvent {
    about(holder, Event::SeatRevoked { by: RevokedBy("admin".to_owned()), reason: "left".to_owned() })
}

pub fn denied(holder: &Holder) -> NewEvent {
    let reason = "no_seats_available".to_owned();
    let mut denied = about(holder, Event::SeatDenied { reason, seats_used: 100, seats_total: seats(100) });
    denied.subject.session_id = None;
    denied
}

pub fn user_added(name: &str) -> NewEvent {
    let event = Event::UserAdded { email: None, roles: Vec::new(), reason: AddReason::Admin };
    NewEvent { subject: Subject::user(user(name)), ..new_event(event) }
}

pub fn user_removed(name: &str) -> NewEvent {
    NewEvent { subject: Subject::user(user(name)), ..new_event(Event::UserRemoved {}) }
}

pub fn tenant_terms() -> TenantTerms {
    TenantTerms {
        name: "Acme".to_owned(),
        subdomain: "acme".to_owned(),
        plan: "team".to_owned(),
        max_seats: seats(100),
        active: true,
        identity_tenant: None,
    }
}

pub fn license_terms() -> LicenseTerms {
    LicenseTerms {
        product: Product::new("coditect").unwrap(),
        plan: "team".to_owned(),
        seats_total: seats(100),
        active: true,
        features: Vec::new(),
        valid_from: None,
        valid_until: None,
        offline_grace_seconds: None,
    }
}
