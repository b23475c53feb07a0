//! A day of heartbeats leaves the database; everything still verifies, with its file and without it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod sealed;
#[path = "../../events/tests/support/mod.rs"]
mod support;

use std::path::Path;

use audit::{Archived, Ndjson, OfflineOptions, OnlineOptions, Wrong, archive, verify_export};
use sealed::Sealed;
use support::{Pool, beats};

const DAY: &str = "events_heartbeat_20260105";

/// A pool whose heartbeats so far are of a day long ago: their ids say so, and they lie in that day's partition.
async fn old_heartbeats(sealed: &Sealed) -> Pool {
    let pool = sealed.world.pool().await;
    sealed.live(pool, 3).await;
    let other = sealed.world.pool().await;
    sealed.live(other, 2).await;
    sealed
        .tamper(&format!(
            "create table {DAY} partition of events_heartbeat
               for values from (uuid_floor('2026-01-05')) to (uuid_floor('2026-01-06'));
             alter table {DAY} owner to coditect;
             update events set event_id = overlay(event_id::text placing left(uuid_floor('2026-01-05 10:00')::text, 13) from 1)::uuid
             where class = 'heartbeat';
             truncate leaves, tree_nodes, trees, tenant_checkpoints, checkpoints cascade;
             update notary set xid = '0', position = 0;"
        ))
        .await;
    sealed.seal().await;
    sealed.world.as_superuser("delete from projection_cursors").await;
    let holder = sealed.world.seat(pool, "ada").await;
    sealed.world.write(&beats([pool.beat(&holder)])).await;
    sealed.seal().await;
    pool
}

async fn run(sealed: &Sealed, folder: &Path) -> Vec<Archived> {
    let mut owner = sealed.world.owner().await;
    archive(&mut owner, 30, folder).await.unwrap()
}

#[tokio::test]
async fn a_day_is_archived_and_the_log_still_verifies() {
    let sealed = Sealed::new().await;
    let pool = old_heartbeats(&sealed).await;
    let folder = tempfile::tempdir().unwrap();
    let before = sealed.verify(OnlineOptions::default()).await;
    assert_eq!((before.findings.len(), before.not_recomputed), (0, 0), "{:?}", before.findings);

    let days = run(&sealed, folder.path()).await;
    let file = folder.path().join(format!("{DAY}.parquet"));
    assert_eq!(days, [Archived::Moved { file: file.clone(), events: 5 }]);
    assert_eq!(run(&sealed, folder.path()).await, [], "nothing is left to do");
    assert_eq!(sealed.world.number("select count(*) from events where class = 'heartbeat'").await, 1);

    // Without the file the stored hashes stand in, and the report says so; with it everything is recomputed.
    let without = sealed.verify(OnlineOptions::default()).await;
    assert_eq!(without.findings, []);
    assert_eq!((without.not_recomputed, without.events), (5, before.events - 5));
    let archives = Some(folder.path().to_owned());
    let with = sealed.verify(OnlineOptions { archives: archives.clone(), ..OnlineOptions::default() }).await;
    assert_eq!(
        (with.findings.len(), with.not_recomputed, with.events),
        (0, 0, before.events),
        "{:?}",
        with.findings
    );

    // An export verifies too, and life goes on.
    let mut events = Ndjson(Vec::new());
    audit::export_events(&sealed.world.log, pool.tenant_id, &mut events).await.unwrap();
    let mut checkpoints = Vec::new();
    audit::export_checkpoints(&sealed.world.log, pool.tenant_id, &mut checkpoints).await.unwrap();
    std::fs::write(folder.path().join("events"), events.0).unwrap();
    std::fs::write(folder.path().join("checkpoints"), checkpoints).unwrap();
    let report = verify_export(&OfflineOptions {
        export: folder.path().join("events"),
        checkpoints: folder.path().join("checkpoints"),
        keys: sealed.signer.keys(),
        kept: Vec::new(),
    })
    .unwrap();
    assert_eq!((report.findings.len(), report.not_recomputed), (0, 3), "{:?}", report.findings);
    sealed.live(pool, 1).await;
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, []);

    // An archived event that was dropped on the way, and a decision that is passed off as archived.
    std::fs::write(&file, b"PAR1 not really").unwrap();
    let report = sealed.verify(OnlineOptions { archives, ..OnlineOptions::default() }).await;
    assert_eq!(report.findings[0].wrong, Wrong::Removed, "{:?}", report.findings);
    sealed
        .tamper(&format!(
            "delete from events where class = 'decision' and type = 'seat_released' and tenant_id = '{0}';
             update archived_leaves set runs = '\\x00ffff03' where tenant_id = '{0}'",
            pool.tenant_id
        ))
        .await;
    let report = sealed.verify(OnlineOptions::default()).await;
    assert_eq!(report.findings.len(), 1, "its stream's versions have a gap");
}

#[tokio::test]
async fn a_day_that_something_needs_stays() {
    let sealed = Sealed::new().await;
    old_heartbeats(&sealed).await;
    let folder = tempfile::tempdir().unwrap();
    let left = |days: Vec<Archived>| match days.as_slice() {
        [Archived::Left { why, .. }] => why.clone(),
        other => panic!("{other:?}"),
    };
    sealed.world.as_superuser("insert into projection_cursors (projection) values ('slow')").await;
    assert!(left(run(&sealed, folder.path()).await).contains("slow"));
    sealed.world.as_superuser("delete from projection_cursors").await;
    sealed.tamper("update notary set xid = '0', position = 0").await;
    assert!(left(run(&sealed, folder.path()).await).contains("sealed"));
    sealed.tamper("update notary set (xid, position) = (select xid, position from events order by events.xid desc, events.position desc limit 1)").await;

    // A heartbeat that was changed since it was sealed is not archived as if it were true.
    sealed.tamper(&format!("update {DAY} set request_id = 'forged' where event_id = (select min(event_id::text)::uuid from {DAY})")).await;
    let mut owner = sealed.world.owner().await;
    let error = archive(&mut owner, 30, folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("run verify"), "{error}");
    assert_eq!(sealed.world.number(&format!("select count(*) from {DAY}")).await, 5);
    assert_eq!(sealed.world.number("select count(*) from archives").await, 0);
}
