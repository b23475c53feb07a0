//! A day of heartbeats leaves the database; everything still verifies, with its file and without it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod sealed;
#[path = "../../events/tests/support/mod.rs"]
mod support;

use std::path::Path;

use audit::{
    Archived, EventSink, Finding, Ndjson, OfflineOptions, OnlineOptions, ParquetEvents, StoredEvent, Wrong,
    archive, verify_export,
};
use sealed::Sealed;
use support::{Pool, beats};
use uuid::Uuid;

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
    // As everywhere: the projections have read what they fold, and are far behind the heartbeats.
    sealed
        .world
        .as_superuser("insert into projection_cursors (projection) values ('directory'), ('activity')")
        .await;
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

    // What was archived is still proven, by its file.
    let archived = sealed.world.superuser().await;
    let sql = "select encode(substr(event_ids, 16 * n + 1, 16), 'hex')::uuid
               from leaves, generate_series(0, length(event_ids) / 16 - 1) n
               where tenant_id = $1 and not exists (
                 select from events where event_id = encode(substr(event_ids, 16 * n + 1, 16), 'hex')::uuid)";
    let gone: Vec<Uuid> =
        archived.query(sql, &[&pool.tenant_id.0]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(gone.len(), 3);
    for event in gone {
        let log = &sealed.world.log;
        assert_eq!(audit::event_proof(log, pool.tenant_id, event).await.unwrap(), None);
        let proof = audit::archived_proof(log, pool.tenant_id, event, folder.path()).await.unwrap().unwrap();
        assert_eq!(proof.event.event_id, event);
        assert_eq!(proof.check(&sealed.signer.keys()).unwrap(), Ok(()));
        let elsewhere = audit::archived_proof(log, pool.tenant_id, event, Path::new("/nowhere")).await;
        assert!(elsewhere.is_err(), "its file is not there");
    }
    let nobody = audit::archived_proof(&sealed.world.log, pool.tenant_id, Uuid::from_u128(7), folder.path());
    assert_eq!(nobody.await.unwrap(), None);

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
        archives: None,
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
async fn who_is_erased_leaves_the_archives_too_and_their_files_still_verify() {
    let sealed = Sealed::new().await;
    let pool = old_heartbeats(&sealed).await;
    let folder = tempfile::tempdir().unwrap();
    run(&sealed, folder.path()).await;
    let file = folder.path().join(format!("{DAY}.parquet"));
    let machine: String = {
        let client = sealed.world.superuser().await;
        let sql = "select hardware_id from events e, archived_leaves a
                   where type = 'seat_acquired' and user_id = 'ada' and e.tenant_id = $1 limit 1";
        client.query_one(sql, &[&pool.tenant_id.0]).await.unwrap().get(0)
    };
    let names = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(machine.len()).any(|window| window == machine.as_bytes())
    };
    assert!(names(&file), "the first seat of ada was beaten for on that day");
    let mut owner = sealed.world.owner().await;
    let mut ada =
        async |archives: Option<&Path>| audit::erase(&mut owner, pool.tenant_id, "ada", archives).await;

    // A seat that is held, a folder that is not given, a file that is not there: nothing is changed.
    let refused = ada(Some(folder.path())).await.unwrap_err();
    assert!(refused.to_string().contains("remove the user first"), "{refused}");
    let removed = format!(
        "delete from seats; update users set removed = true where user_id = 'ada' and tenant_id = '{}'",
        pool.tenant_id
    );
    sealed.world.as_superuser(&removed).await;
    let refused = ada(None).await.unwrap_err();
    assert!(refused.to_string().contains(DAY), "{refused}");
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(ada(Some(elsewhere.path())).await.is_err());
    assert!(
        names(&file) && sealed.world.number("select count(*) from events where user_id = 'ada'").await > 0
    );

    let erased = ada(Some(folder.path())).await.unwrap();
    assert_eq!((erased.archived, names(&file)), (1, false));
    // In the midst of it the user's row is still there, and needed.
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, []);
    let rebuilt = format!("select rebuild_users('{}')", pool.tenant_id);
    assert_eq!(sealed.world.number(&rebuilt).await, 0);
    let again = ada(Some(folder.path())).await.unwrap();
    assert_eq!((again.archived, again.events), (0, 0), "a repetition finds nothing to do");
    let mut owner = sealed.world.owner().await;
    audit::forget(&mut owner, pool.tenant_id, &again).await.unwrap();
    let archives = Some(folder.path().to_owned());
    let report = sealed.verify(OnlineOptions { archives, ..OnlineOptions::default() }).await;
    assert_eq!((report.findings.len(), report.not_recomputed), (0, 0), "{:?}", report.findings);
    assert_eq!(report.erased, erased.events + erased.archived);
    let left = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")));
}

#[tokio::test]
async fn archives_are_recomputed_without_the_server_and_what_was_changed_in_them_is_named() {
    let sealed = Sealed::new().await;
    let pool = old_heartbeats(&sealed).await;
    let mut whole = Ndjson(Vec::new());
    audit::export_events(&sealed.world.log, pool.tenant_id, &mut whole).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    run(&sealed, folder.path()).await;
    let file = folder.path().join(format!("{DAY}.parquet"));
    let (mut events, mut checkpoints) = (Ndjson(Vec::new()), Vec::new());
    audit::export_events(&sealed.world.log, pool.tenant_id, &mut events).await.unwrap();
    audit::export_checkpoints(&sealed.world.log, pool.tenant_id, &mut checkpoints).await.unwrap();
    std::fs::write(folder.path().join("events"), events.0).unwrap();
    std::fs::write(folder.path().join("checkpoints"), checkpoints).unwrap();
    let verify = |archives: Option<&Path>| {
        verify_export(&OfflineOptions {
            export: folder.path().join("events"),
            checkpoints: folder.path().join("checkpoints"),
            keys: sealed.signer.keys(),
            kept: Vec::new(),
            archives: archives.map(Path::to_owned),
        })
    };
    let (without, with) = (verify(None).unwrap(), verify(Some(folder.path())).unwrap());
    assert_eq!((without.findings.len(), without.not_recomputed), (0, 3));
    assert_eq!((with.findings.len(), with.not_recomputed), (0, 0), "{:?}", with.findings);
    assert_eq!(with.events, without.events + 3);
    assert!(verify(Some(&folder.path().join("nowhere"))).is_err());

    // The same day, written by somebody else: a heartbeat that says something else, one left out, one invented.
    let text = String::from_utf8(whole.0).unwrap();
    let whole: Vec<StoredEvent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let archived: Vec<StoredEvent> =
        whole.into_iter().filter(|event| event.class == "heartbeat").take(3).collect();
    let tampered = |change: &dyn Fn(&mut Vec<StoredEvent>)| {
        let mut events = archived.clone();
        change(&mut events);
        let mut sink = ParquetEvents::new(std::fs::File::create(&file).unwrap()).unwrap();
        events.iter().for_each(|event| sink.event(event).unwrap());
        sink.finish().unwrap();
        verify(Some(folder.path())).unwrap().findings
    };
    assert_eq!(tampered(&|_| {}), []);
    let named = |findings: Vec<Finding>| (findings.len(), findings[0].wrong, findings[0].event_id);
    let id = |n: usize| Some(archived[n].event_id);
    let forge = |events: &mut Vec<StoredEvent>| events[1].request_id = Some("forged".to_owned());
    assert_eq!(named(tampered(&forge)), (1, Wrong::Changed, id(1)));
    let rename = |events: &mut Vec<StoredEvent>| events[2].user_id = Some("mallory".to_owned());
    assert_eq!(named(tampered(&rename)), (1, Wrong::SaltMissing, id(2)));
    assert_eq!(named(tampered(&|events| drop(events.remove(0)))), (1, Wrong::Removed, id(0)));
    let invented = Uuid::from_u128(8);
    for index in [archived[0].index, Some(0), None] {
        let invent = |events: &mut Vec<StoredEvent>| {
            events.insert(1, StoredEvent { event_id: invented, index, ..archived[0].clone() });
        };
        assert_eq!(named(tampered(&invent)), (1, Wrong::Inserted, Some(invented)), "{index:?}");
    }
    let swap = |events: &mut Vec<StoredEvent>| events[0].event_id = Uuid::from_u128(7);
    assert_eq!(named(tampered(&swap)), (1, Wrong::Removed, id(0)));
    std::fs::remove_file(&file).unwrap();
    let missing = verify(Some(folder.path())).unwrap_err();
    assert!(missing.to_string().contains(DAY), "{missing}");
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
