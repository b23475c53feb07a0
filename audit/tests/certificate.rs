//! A certificate states what the log shows, and an export proves it without the server.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod sealed;
#[path = "../../events/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use audit::{AuditError, Ndjson, SignedCertificate, certificate, verify_certificate};
use events::{Event, LicenseChange, Time};
use sealed::{Sealed, TestSigner};
use support::{batch, denied, eventually, holder, new_event, released, seats};

/// The log as if it had happened a minute ago: certificates are about what is settled.
async fn a_minute_ago(sealed: &Sealed) {
    sealed.tamper("update events set occurred_at = occurred_at - interval '1 minute'").await;
    read(sealed).await;
}

/// Seals, until it is certain that nothing of what happened is missing: other tests' transactions end as well.
async fn read(sealed: &Sealed) {
    eventually("the log is read", async || {
        sealed.seal().await;
        let read =
            "select (read_at > clock_timestamp() - interval '30 seconds')::integer::bigint from notary";
        sealed.world.number(read).await == 1
    })
    .await;
}

fn write(folder: &Path, name: &str, text: &[u8]) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn what_a_certificate_states_follows_from_the_export() {
    let sealed = Sealed::new().await;
    let pool = sealed.world.pool().await;
    let first = sealed.world.seat(pool, "ada").await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let from = sealed.world.now().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = sealed.world.seat(pool, "bob").await;
    sealed.world.seat(pool, "eve").await;
    sealed.write(pool, released(&first)).await;
    let expected = sealed.world.version(pool.license_id.0).await;
    let change = LicenseChange { seats_total: Some(seats(1)), ..LicenseChange::default() };
    let lowered = new_event(Event::LicenseUpdated(change));
    sealed.world.write(&support::whole([pool.administers(expected, [lowered])])).await;
    let expected = sealed.world.version(pool.license_id.0).await;
    sealed.world.write(&batch([pool.writes(expected, [denied(&holder("ada"))])])).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let to = sealed.world.now().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    sealed.write(pool, released(&second)).await;

    let (log, signer) = (&sealed.world.log, sealed.signer.as_ref());
    let early = certificate(log, signer, pool.tenant_id, from, to).await;
    assert!(matches!(early, Err(AuditError::NotSealed(_))), "nothing is sealed yet");
    a_minute_ago(&sealed).await;
    let shift = |at: Time| Time::from_millis(at.millis() - 60_000).unwrap();
    let signed = certificate(log, signer, pool.tenant_id, shift(from), shift(to)).await.unwrap();
    let [license] = signed.certificate.licenses.as_slice() else { unreachable!("one license") };
    let limits: Vec<u64> = license.limits.iter().map(|limit| limit.seats_total).collect();
    assert_eq!(limits, [100, 1]);
    assert_eq!((license.peak, license.acquired, license.denied, license.over_limit), (3, 2, 1, 0));

    let folder = tempfile::tempdir().unwrap();
    let mut events = Ndjson(Vec::new());
    audit::export_events(log, pool.tenant_id, &mut events).await.unwrap();
    write(folder.path(), "events", &events.0);
    write(folder.path(), "certificate", &serde_json::to_vec(&signed).unwrap());
    let path = |name: &str| folder.path().join(name);
    let check = |certificate: &str, events: &str, keys| {
        verify_certificate(&path(certificate), &path(events), None, keys).unwrap()
    };
    let keys = sealed.signer.keys();
    assert_eq!(check("certificate", "events", Some(&keys)), [""; 0]);
    assert_eq!(check("certificate", "events", None), [""; 0]);
    let strange = TestSigner::new().keys();
    assert_eq!(check("certificate", "events", Some(&strange)).len(), 2);

    // A lower peak, signed by nobody; another log; a part of the log.
    let mut forged: SignedCertificate = signed.clone();
    forged.certificate.licenses[0].peak = 1;
    write(folder.path(), "forged", &serde_json::to_vec(&forged).unwrap());
    assert_eq!(check("forged", "events", Some(&keys)).len(), 2);
    let text = String::from_utf8(events.0).unwrap();
    write(folder.path(), "other", text.replacen("\"request\"", "\"forged\"", 1).as_bytes());
    assert_eq!(check("certificate", "other", Some(&keys)).len(), 1);
    let part: Vec<&str> = text.lines().filter(|line| !line.contains("seat_released")).collect();
    write(folder.path(), "part", part.join("\n").as_bytes());
    assert_eq!(check("certificate", "part", Some(&keys)).len(), 1);
}

/// A transaction that is open since before the range keeps whatever committed after it began from being read: the log is
/// not read up to now, however little there is to read.
#[tokio::test]
async fn an_open_transaction_puts_a_certificate_off() {
    let sealed = Sealed::new().await;
    let pool = sealed.world.pool().await;
    sealed.world.seat(pool, "ada").await;
    read(&sealed).await;
    let open = sealed.world.superuser().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    let from = sealed.world.now().await;
    sealed.world.seat(pool, "bob").await;
    let to = sealed.world.now().await;
    sealed.tamper("update events set occurred_at = occurred_at - interval '1 minute'").await;
    sealed.notary.round().await.unwrap();
    let shift = |at: Time, by: i64| Time::from_millis(at.millis() - 60_000 + by).unwrap();
    let ask = || {
        certificate(&sealed.world.log, sealed.signer.as_ref(), pool.tenant_id, shift(from, 0), shift(to, 1))
    };
    assert!(matches!(ask().await, Err(AuditError::NotSealed(_))), "somebody's seat is not read yet");
    open.batch_execute("commit").await.unwrap();
    read(&sealed).await;
    let licenses = ask().await.unwrap().certificate.licenses;
    assert_eq!((licenses[0].peak, licenses[0].acquired), (2, 1));
}
