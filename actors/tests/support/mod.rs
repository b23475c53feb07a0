//! Pools on a database of their own, without HTTP.

#![expect(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

use std::time::{Duration, Instant};

use actors::{
    AcquireSeat, Answer, Gate, Grant, Members, NewTenant, NewUser, NoAnswer, Pools, Request, Tenants, Writer,
};
use engines::{TestDatabase, TestEngines};
use events::{
    Database, EventLog, HardwareId, LicenseId, Product, Seats, SessionId, TenantId, TenantTerms, UserId,
};
use tokio::sync::oneshot;

pub const TTL: Duration = Duration::from_secs(60);

/// One replica's worth of actors.
pub struct Replica {
    pub pools: Pools,
    pub tenants: Tenants,
    pub members: Members,
    pub log: EventLog,
}

pub struct World {
    pub database: TestDatabase,
    pub redis_url: String,
}

impl World {
    pub async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let engines = TestEngines::shared().await.unwrap();
        let database = engines.database().await.unwrap();
        events::migrate(&database.url()).await.unwrap();
        Self { database, redis_url: engines.redis_url().to_owned() }
    }

    pub async fn replica(&self) -> Replica {
        self.replica_with(&self.redis_url, TTL).await
    }

    pub async fn replica_with(&self, redis_url: &str, ttl: Duration) -> Replica {
        let database = Database::new(&self.database.url(), 8, Duration::from_secs(5)).unwrap();
        let log = EventLog::new(database);
        let writer = Writer::start(log.clone(), ttl).await.unwrap();
        let gate = Gate::connect(redis_url).unwrap();
        let pools = Pools::start(log.clone(), writer.clone(), gate, ttl).await.unwrap();
        let tenants = Tenants::new(log.clone(), writer.clone());
        let members = Members::start(log.clone(), writer);
        Replica { pools, tenants, members, log }
    }

    pub async fn superuser(&self) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(&self.database.superuser_url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Replica {
    pub async fn tenant(&self, seats: i64) -> (TenantId, LicenseId) {
        let terms = TenantTerms {
            name: "Acme".to_owned(),
            subdomain: uuid::Uuid::now_v7().simple().to_string(),
            plan: "team".to_owned(),
            max_seats: Seats::new(seats).unwrap(),
            active: true,
            identity_tenant: None,
        };
        let new = NewTenant { terms, features: Vec::new(), product: Product::new("coditect").unwrap() };
        self.tenants.create(new, None).await.unwrap().unwrap()
    }

    pub async fn join(&self, tenant_id: TenantId, user: &str) {
        let user_id = UserId::new(user).unwrap();
        assert!(
            self.members
                .ensure(NewUser { tenant_id, user_id, email: None, email_verified: false, request_id: None })
                .await
                .unwrap()
        );
    }

    pub async fn acquire(&self, license_id: LicenseId, user: &str) -> Result<Answer, NoAnswer> {
        let seat = seat_of(user);
        let (preview, _previewed) = oneshot::channel();
        self.pools.acquire(license_id, seat, preview, &request()).await
    }

    /// An acquire that was granted this session before, sent again.
    pub async fn repeat(&self, license_id: LicenseId, user: &str, session_id: SessionId) -> Answer {
        let seat = AcquireSeat { renews: Some(session_id), ..seat_of(user) };
        let (preview, _previewed) = oneshot::channel();
        self.pools.acquire(license_id, seat, preview, &request()).await.unwrap()
    }

    pub async fn granted(&self, license_id: LicenseId, user: &str) -> Grant {
        match self.acquire(license_id, user).await.unwrap() {
            Answer::Granted(grant) | Answer::Renewed(grant) => grant,
            other => panic!("no seat for {user}: {other:?}"),
        }
    }

    pub async fn heartbeat(&self, license_id: LicenseId, session_id: SessionId, user: &str) -> Answer {
        self.pools.heartbeat(license_id, session_id, UserId::new(user).unwrap(), &request()).await.unwrap()
    }

    pub async fn release(&self, license_id: LicenseId, session_id: SessionId, user: &str) -> Answer {
        self.pools.release(license_id, session_id, UserId::new(user).unwrap(), &request()).await.unwrap()
    }

    /// Waits until Redis has answered this replica.
    pub async fn gate_up(&self) {
        eventually("the gate", async || self.pools.gate().is_up()).await;
    }
}

fn seat_of(user: &str) -> AcquireSeat {
    AcquireSeat {
        user_id: UserId::new(user).unwrap(),
        hardware_id: HardwareId::new(format!("machine-of-{user}")).unwrap(),
        machine_name: None,
        key: None,
        renews: None,
    }
}

pub fn request() -> Request {
    Request { request_id: Some("test".to_owned()), deadline: Instant::now() + Duration::from_secs(5) }
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come to hold");
}
