//! A log of one's own, and histories written into it at any time: as its owner, around `append`, which stamps today.

#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::time::Duration;

use engines::{TestDatabase, TestEngines};
use events::{Database, EventLog, LicenseId, SessionId, TenantId, Time};
use projections::ReadModels;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

pub struct World {
    pub log: EventLog,
    pub models: ReadModels,
    pub database: TestDatabase,
}

#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub tenant_id: TenantId,
    pub license_id: LicenseId,
}

/// An event to be written.
#[derive(Debug, Clone)]
pub struct Told {
    pub stream_id: Uuid,
    pub tenant_id: Uuid,
    pub event_type: &'static str,
    pub session_id: Option<Uuid>,
    pub user_id: Option<String>,
    pub at: Time,
    pub data: Value,
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn time(text: &str) -> Time {
    Time::parse(text).unwrap()
}

pub fn at(millis: i64) -> Time {
    Time::from_millis(millis).unwrap()
}

impl World {
    pub async fn new() -> Self {
        let database = TestEngines::shared().await.unwrap().database().await.unwrap();
        events::migrate(&database.url()).await.unwrap();
        let log = EventLog::new(Database::new(&database.url(), 8, Duration::from_secs(20)).unwrap());
        Self { models: ReadModels::new(log.clone()), log, database }
    }

    pub async fn owner(&self) -> Client {
        connect(&self.database.url()).await
    }

    pub async fn superuser(&self) -> Client {
        connect(&self.database.superuser_url()).await
    }

    /// One transaction with these events, in this order.
    pub async fn tell(&self, events: &[Told]) {
        let mut client = self.owner().await;
        let transaction = client.transaction().await.unwrap();
        for event in events {
            write(&transaction, event).await;
        }
        transaction.commit().await.unwrap();
    }

    /// Folds everything, a page of `size` at a time. Transactions of other tests may hold the log back for a moment.
    pub async fn fold(&self, size: i64) {
        for _ in 0..1_000 {
            projections::fold_all(&self.log, size).await.unwrap();
            if self.models.caught_up(Duration::ZERO).await.unwrap() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("the read models did not catch up");
    }

    /// A tenant with one license of so many seats of `coditect`.
    pub async fn pool(&self, seats: i64, at: Time) -> Pool {
        let pool = Pool { tenant_id: TenantId::mint(), license_id: LicenseId::mint() };
        let events = [pool.tenant_created(seats, at), pool.license_issued("coditect", seats, at)];
        self.tell(&events).await;
        pool
    }

    /// One more license of the tenant, of another product.
    pub async fn another(&self, of: Pool, product: &str, seats: i64, at: Time) -> Pool {
        let pool = Pool { license_id: LicenseId::mint(), ..of };
        self.tell(&[pool.license_issued(product, seats, at)]).await;
        pool
    }
}

/// The log's row, and the stream's, as `append` would have written them.
async fn write(transaction: &tokio_postgres::Transaction<'_>, event: &Told) {
    let product =
        (event.event_type == "license_issued").then(|| event.data["product"].as_str().unwrap().to_owned());
    let observed = matches!(event.event_type, "seat_denied" | "seat_heartbeat");
    let class = match event.event_type {
        "seat_denied" => "denial",
        "seat_heartbeat" => "heartbeat",
        _ => "decision",
    };
    let at = event.at.as_datetime();
    transaction
        .execute(
            "insert into streams (stream_id, tenant_id, product, version, last_at) values ($1, $2, $3, $4, $5)
             on conflict (stream_id) do update
             set version = streams.version + $4, last_at = greatest(streams.last_at, excluded.last_at)",
            &[&event.stream_id, &event.tenant_id, &product.as_deref().or_else(|| {
                (event.stream_id != event.tenant_id).then_some("coditect")
            }), &i64::from(!observed), &at],
        )
        .await
        .unwrap();
    let hardware = event
        .user_id
        .as_ref()
        .filter(|_| event.stream_id != event.tenant_id)
        .map(|user| format!("machine-of-{user}"));
    transaction
        .execute(
            "insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id,
                                 hardware_id, occurred_at, data)
             select $1, $2, $3, s.stream_id, case when $4 then null else s.version end, $5, 1, $6, $7, $8, $9, $10
             from streams s where s.stream_id = $11",
            &[
                &class, &Uuid::now_v7(), &event.tenant_id, &observed, &event.event_type, &event.session_id,
                &event.user_id, &hardware, &at, &event.data, &event.stream_id,
            ],
        )
        .await
        .unwrap();
}

impl Pool {
    pub fn tenant_created(self, seats: i64, at: Time) -> Told {
        let data = json!({"name": "Acme", "subdomain": format!("acme-{}", self.tenant_id), "plan": "team",
                          "max_seats": seats, "active": true, "identity_tenant": null});
        Told { stream_id: self.tenant_id.0, ..self.told("tenant_created", at, data) }
    }

    /// An event about a member of the tenant.
    pub fn user(self, event_type: &'static str, user: &str, at: Time, data: Value) -> Told {
        let told = self.told(event_type, at, data);
        Told { stream_id: self.tenant_id.0, user_id: Some(user.to_owned()), ..told }
    }

    pub fn license_issued(self, product: &str, seats: i64, at: Time) -> Told {
        let data = json!({"product": product, "plan": "team", "seats_total": seats, "active": true, "features": [],
                          "valid_from": null, "valid_until": null, "offline_grace_seconds": null});
        self.told("license_issued", at, data)
    }

    pub fn license_updated(self, change: Value, at: Time) -> Told {
        self.told("license_updated", at, change)
    }

    fn told(self, event_type: &'static str, at: Time, data: Value) -> Told {
        Told {
            stream_id: self.license_id.0,
            tenant_id: self.tenant_id.0,
            event_type,
            session_id: None,
            user_id: None,
            at,
            data,
        }
    }

    fn about(self, event_type: &'static str, session: SessionId, user: &str, at: Time, data: Value) -> Told {
        Told {
            session_id: Some(session.0),
            user_id: Some(user.to_owned()),
            ..self.told(event_type, at, data)
        }
    }

    pub fn acquired(self, session: SessionId, user: &str, at: Time) -> Told {
        let deadline = at.after(Duration::from_secs(360));
        let data = json!({"seats_used": 1, "seats_total": 5, "deadline": deadline, "machine_name": "desk"});
        self.about("seat_acquired", session, user, at, data)
    }

    pub fn released(self, session: SessionId, user: &str, at: Time) -> Told {
        self.about("seat_released", session, user, at, json!({}))
    }

    pub fn expired(self, session: SessionId, user: &str, at: Time) -> Told {
        self.about("seat_expired", session, user, at, json!({"deadline": at}))
    }

    pub fn revoked(self, session: SessionId, user: &str, at: Time) -> Told {
        self.about("seat_revoked", session, user, at, json!({"by": "root", "reason": "left the company"}))
    }

    pub fn denied(self, user: &str, at: Time) -> Told {
        let data = json!({"reason": "no_seats_available", "seats_used": 5, "seats_total": 5});
        Told { user_id: Some(user.to_owned()), ..self.told("seat_denied", at, data) }
    }
}
