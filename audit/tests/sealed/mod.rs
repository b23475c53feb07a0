//! A log with a notary of its own, whose key is known.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::sync::Arc;

use audit::{
    Finding, Notary, NotarySigner, OnlineOptions, PublicKeys, Report, Round, SigningKey, verify_database,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::{MachineName, SessionId, TenantId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::support::{Holder, Pool, World, acquired, batch, beats, denied, eventually, released, revoked};

/// An RSA key in memory.
pub struct TestSigner {
    pair: KeyPair,
    pub pem: String,
}

impl TestSigner {
    pub fn new() -> Arc<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        Arc::new(Self { pair, pem })
    }

    pub fn keys(&self) -> PublicKeys {
        PublicKeys::parse(&self.pem).unwrap()
    }
}

impl NotarySigner for TestSigner {
    fn current(&self) -> Result<SigningKey, String> {
        Ok(SigningKey { kid: "test-key".to_owned(), public_key: self.pem.clone() })
    }

    fn sign<'a>(&'a self, _kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let signed = self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        std::future::ready(signed.map(|()| signature).map_err(|_| "no signature".to_owned())).boxed()
    }
}

/// A world whose log is sealed.
pub struct Sealed {
    pub world: World,
    pub notary: Notary,
    pub signer: Arc<TestSigner>,
}

impl Sealed {
    pub async fn new() -> Self {
        let world = World::new().await;
        let signer = TestSigner::new();
        let notary = Notary::new(world.log.clone(), signer.clone());
        Self { world, notary, signer }
    }

    /// Seals everything that was written so far.
    pub async fn seal(&self) -> u64 {
        let behind =
            "select count(*) from events e, notary n where (e.xid, e.position) > (n.xid, n.position)";
        let mut latest = 0;
        eventually("everything is sealed", async || {
            if let Round::Sealed(number) = self.notary.round().await.unwrap() {
                latest = number;
            }
            self.world.number(behind).await == 0
        })
        .await;
        latest
    }

    pub async fn verify(&self, options: OnlineOptions) -> Report {
        let options = OnlineOptions { keys: options.keys.or_else(|| Some(self.signer.keys())), ..options };
        verify_database(&self.world.log, &options).await.unwrap()
    }

    /// The only finding.
    pub async fn finding(&self) -> Finding {
        let report = self.verify(OnlineOptions::default()).await;
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        report.findings[0].clone()
    }

    /// Some life in a pool: `days` rounds, each of them sealed.
    pub async fn live(&self, pool: Pool, rounds: usize) -> Vec<Holder> {
        let mut holders = Vec::new();
        for round in 0..rounds {
            let holder = self.world.seat(pool, ["ada", "bob", "eve"][round % 3]).await;
            self.world.write(&beats([pool.beat(&holder)])).await;
            let expected = self.world.version(pool.license_id.0).await;
            self.world.write(&batch([pool.writes(expected, [denied(&holder)])])).await;
            match round % 3 {
                0 => self.write(pool, released(&holder)).await,
                1 => self.write(pool, revoked(&holder)).await,
                _ => {}
            }
            self.seal().await;
            holders.push(holder);
        }
        holders
    }

    pub async fn write(&self, pool: Pool, event: events::NewEvent) {
        let expected = self.world.version(pool.license_id.0).await;
        self.world.write(&batch([pool.writes(expected, [event])])).await;
    }

    /// Whoever is superuser can do anything; `sql` runs with all triggers off.
    pub async fn tamper(&self, sql: &str) {
        self.world.as_superuser(&format!("set session_replication_role = replica; {sql}")).await;
    }

    /// The ids of a tenant's events in order.
    pub async fn ids(&self, tenant_id: TenantId) -> Vec<uuid::Uuid> {
        let client = self.world.superuser().await;
        let sql = "select event_id from events where tenant_id = $1 order by events.xid, events.position";
        client.query(sql, &[&tenant_id.0]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// A grant with a machine's name.
pub fn named(holder: &Holder, name: &str) -> events::NewEvent {
    let mut event = acquired(holder);
    if let events::Event::SeatAcquired { machine_name, .. } = &mut event.event {
        *machine_name = Some(MachineName::new(name).unwrap());
    }
    event
}

pub fn session() -> SessionId {
    SessionId::mint()
}
