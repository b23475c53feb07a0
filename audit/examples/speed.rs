//! How fast a log is sealed, verified and exported: `speed URL [EVENTS]`, in an empty database that the URL may fill.
//!
//! `cargo run --release -p audit --example speed -- URL`. Prints figures, asserts nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something is wrong")]

use std::io::BufWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{
    Ndjson, Notary, NotarySigner, OfflineOptions, OnlineOptions, ParquetEvents, PublicKeys, SigningKey,
    verify_database, verify_export,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::{Database, EventLog, TenantId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

struct Signer(KeyPair, String);

impl NotarySigner for Signer {
    fn current(&self) -> Result<SigningKey, String> {
        Ok(SigningKey { kid: "speed".to_owned(), public_key: self.1.clone() })
    }

    fn sign<'a>(&'a self, _kid: &'a str, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        let signed = self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        std::future::ready(signed.map(|()| signature).map_err(|_| "no signature".to_owned())).boxed()
    }
}

/// Heartbeats of 1,000 users, and a decision after every nine of them.
const FILL: &str = "
    insert into streams (stream_id, tenant_id, product, version, last_at)
    values ('TENANT', 'TENANT', null, 0, now()), (uuid_floor('2026-01-01'), 'TENANT', 'coditect', EVENTS / 10, now());
    insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id,
                        occurred_at, request_id, data)
    select case when n % 10 = 0 then 'decision' else 'heartbeat' end,
      (left(uuid_floor(now() + n * interval '10 milliseconds' - interval '1 hour')::text, 13) || right(gen_random_uuid()::text, 23))::uuid,
      'TENANT', uuid_floor('2026-01-01'), case when n % 10 = 0 then n / 10 end,
      case when n % 10 = 0 then 'seat_released' else 'seat_heartbeat' end, 1,
      gen_random_uuid(), 'auth0|user-' || n % 1000, 'machine-of-user-' || n % 1000, now(), gen_random_uuid()::text,
      case when n % 10 = 0 then '{}'::jsonb else jsonb_build_object('deadline', event_time(now())) end
    from generate_series(1, EVENTS) n";

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().or_else(|| std::env::var("DATABASE_URL").ok()).expect("a database's URL");
    let events: u64 = arguments.next().map_or(1_000_000, |count| count.parse().expect("a number"));
    events::migrate(&url).await.unwrap();
    let (client, _driver) = events::connect_as_login(&url).await.unwrap();
    let tenant = TenantId::mint();
    let fill = FILL.replace("TENANT", &tenant.to_string()).replace("EVENTS", &events.to_string());
    client.batch_execute(&fill).await.unwrap();
    client.batch_execute("analyze").await.unwrap();

    let pair = KeyPair::generate(KeySize::Rsa4096).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
    drop(der);
    let keys = PublicKeys::parse(&pem).unwrap();
    let log = EventLog::new(Database::new(&url, 4, Duration::from_secs(60)).unwrap());
    let notary = Notary::new(log.clone(), Arc::new(Signer(pair, pem)));
    let rate = |what: &str, begun: Instant| {
        let took = begun.elapsed().as_secs_f64();
        println!("{what}: {events} events in {took:.1} s, {:.0} a second", events as f64 / took);
    };
    let begun = Instant::now();
    println!("{:?}", notary.round().await.unwrap());
    rate("seal", begun);

    let begun = Instant::now();
    let options = OnlineOptions { keys: Some(keys.clone()), ..OnlineOptions::default() };
    let report = verify_database(&log, &options).await.unwrap();
    assert!(report.findings.is_empty() && report.events == events, "{report:?}");
    rate("verify, online", begun);

    let folder = std::env::temp_dir().join(format!("speed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| std::fs::File::create(folder.join(name)).unwrap();
    let begun = Instant::now();
    audit::export_events(&log, tenant, &mut Ndjson(BufWriter::new(file("events")))).await.unwrap();
    rate("export, NDJSON", begun);
    audit::export_checkpoints(&log, tenant, &mut BufWriter::new(file("checkpoints"))).await.unwrap();
    let begun = Instant::now();
    let mut parquet = ParquetEvents::new(BufWriter::new(file("parquet"))).unwrap();
    audit::export_events(&log, tenant, &mut parquet).await.unwrap();
    parquet.finish().unwrap();
    rate("export, Parquet", begun);

    let begun = Instant::now();
    let report = verify_export(&OfflineOptions {
        export: folder.join("events"),
        checkpoints: folder.join("checkpoints"),
        keys,
        kept: Vec::new(),
        archives: None,
    })
    .unwrap();
    assert!(report.findings.is_empty() && report.events == events, "{report:?}");
    rate("verify, offline", begun);
    let begun = Instant::now();
    let id: uuid::Uuid =
        client.query_one("select event_id from events offset 1000 limit 1", &[]).await.unwrap().get(0);
    let proof = audit::event_proof(&log, tenant, id).await.unwrap();
    println!("proof of one event: {:.0} ms, {}", begun.elapsed().as_secs_f64() * 1e3, proof.is_some());
    for name in ["events", "checkpoints", "parquet"] {
        println!("{name}: {} bytes", std::fs::metadata(folder.join(name)).unwrap().len());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
