//! A superuser changes the log in every way there is; verification finds it and names the first event.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod sealed;
#[path = "../../events/tests/support/mod.rs"]
mod support;

use audit::{Kept, OnlineOptions, Wrong};
use sealed::{Sealed, TestSigner, named};
use support::{Pool, beats, holder};
use uuid::Uuid;

const TABLES: [&str; 8] =
    ["events", "leaves", "tree_nodes", "trees", "salts", "checkpoints", "tenant_checkpoints", "notary"];

/// Two tenants with a life, sealed round by round, and a copy of all rows to go back to.
async fn two_tenants() -> (Sealed, Pool, Pool) {
    let sealed = Sealed::new().await;
    let (one, other) = (sealed.world.pool().await, sealed.world.pool().await);
    sealed.live(one, 6).await;
    let holder = holder("eve");
    sealed.write(other, named(&holder, "Eve's laptop")).await;
    sealed.live(other, 3).await;
    sealed.live(one, 2).await;
    let copies: String =
        TABLES.iter().map(|table| format!("create table kept.{table} as table public.{table};")).collect();
    sealed.tamper(&format!("create schema kept; {copies}")).await;
    (sealed, one, other)
}

async fn undo(sealed: &Sealed) {
    let back: String = TABLES
        .iter()
        .map(|table| format!("delete from {table}; insert into {table} select * from kept.{table};"))
        .collect();
    sealed.tamper(&back).await;
}

/// Tampers, expects one finding about this event, and undoes it.
async fn found(sealed: &Sealed, what: &str, sql: &str, wrong: Wrong, event: Option<Uuid>) {
    sealed.tamper(sql).await;
    let finding = sealed.finding().await;
    assert_eq!((finding.wrong, finding.event_id), (wrong, event), "{what}: {finding}");
    undo(sealed).await;
}

#[tokio::test]
async fn a_log_that_nobody_touched_verifies() {
    let (sealed, one, _) = two_tenants().await;
    let report = sealed.verify(OnlineOptions::default()).await;
    assert_eq!(report.findings, []);
    assert_eq!((report.tenants, report.unsealed, report.not_recomputed), (2, 0, 0));
    assert_eq!(report.events, sealed.world.number("select count(*) from events").await as u64);
    assert!(report.checkpoints >= 11, "{}", report.checkpoints);

    // What is not sealed yet is said to be so.
    let holder = sealed.world.seat(one, "ada").await;
    sealed.world.write(&beats([one.beat(&holder)])).await;
    support::eventually("the new events are readable", async || {
        sealed.verify(OnlineOptions::default()).await.unsealed == 2
    })
    .await;
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, []);

    // Another key did not sign it.
    let keys = Some(TestSigner::new().keys());
    let report = sealed.verify(OnlineOptions { keys, ..OnlineOptions::default() }).await;
    assert_eq!(report.findings[0].wrong, Wrong::CheckpointChanged);
    assert_eq!(report.findings[0].checkpoint, Some(1));
}

#[tokio::test]
async fn every_change_of_events_is_found_and_named() {
    let (sealed, one, _) = two_tenants().await;
    let ids = sealed.ids(one.tenant_id).await;
    let (early, late, last) = (ids[6], ids[15], ids[ids.len() - 1]);

    for change in [
        "data = data || '{\"extra\": 1}'",
        "user_id = coalesce(user_id, '') || 'x'",
        "hardware_id = 'machine-of-somebody-else'",
        "occurred_at = occurred_at + interval '1 microsecond'",
        "type = 'seat_released'",
        "request_id = 'forged'",
        "format = 2",
        "session_id = gen_random_uuid()",
        "stream_id = gen_random_uuid()",
    ] {
        let sql = format!("update events set {change} where event_id = '{early}'");
        let wrong = if change.starts_with("user_id") { Wrong::SaltMissing } else { Wrong::Changed };
        found(&sealed, change, &sql, wrong, Some(early)).await;
    }
    let to_known = format!(
        "update events set user_id = case user_id when 'ada' then 'bob' else 'ada' end where event_id = '{early}'"
    );
    found(&sealed, "another user", &to_known, Wrong::Changed, Some(early)).await;
    let two = format!("update events set request_id = 'x' where event_id in ('{late}', '{early}')");
    found(&sealed, "two: the first is named", &two, Wrong::Changed, Some(early)).await;
    let delete = format!("delete from events where event_id = '{early}'");
    found(&sealed, "removed", &delete, Wrong::Removed, Some(early)).await;
    let cut = format!("delete from events where event_id in ('{}', '{last}')", ids[ids.len() - 2]);
    found(&sealed, "cut", &cut, Wrong::Cut, Some(ids[ids.len() - 2])).await;

    let swap = format!(
        "with both_ as (select event_id, xid, position from events where event_id in ('{early}', '{late}'))
         update events e set xid = o.xid, position = o.position from both_ o
         where e.event_id in ('{early}', '{late}') and o.event_id <> e.event_id"
    );
    found(&sealed, "swapped", &swap, Wrong::Reordered, Some(early)).await;

    let insert = |at: &str| {
        format!(
            "insert into events select class, '{}', xid, {at}, tenant_id, stream_id, null, type, format, session_id,
               user_id, hardware_id, occurred_at, request_id, data
             from events where class = 'heartbeat' and tenant_id = '{}' order by events.xid, events.position limit 1",
            Uuid::from_u128(7), one.tenant_id
        )
    };
    found(&sealed, "inserted", &insert("position"), Wrong::Inserted, Some(Uuid::from_u128(7))).await;
    let at_end = format!(
        "{}; update events set xid = n.xid, position = n.position from notary n where event_id = '{}'",
        insert("0"),
        Uuid::from_u128(7)
    );
    found(&sealed, "inserted at the end", &at_end, Wrong::Inserted, Some(Uuid::from_u128(7))).await;
    let renamed = format!("update events set event_id = '{}' where event_id = '{early}'", Uuid::from_u128(7));
    found(&sealed, "another id", &renamed, Wrong::Changed, Some(early)).await;
    let moved = format!("update events set tenant_id = gen_random_uuid() where event_id = '{early}'");
    sealed.tamper(&moved).await;
    let findings = sealed.verify(OnlineOptions::default()).await.findings;
    let found_as: Vec<_> = findings.iter().map(|finding| (finding.wrong, finding.event_id)).collect();
    assert_eq!(found_as, [(Wrong::Inserted, Some(early)), (Wrong::Reordered, Some(early))]);
    undo(&sealed).await;
    for unreadable in [
        "occurred_at = 'infinity'",
        "data = jsonb_set(data, '{seats_total}', '1e400')",
        "data = (repeat('[', 300) || repeat(']', 300))::jsonb",
    ] {
        let sql = format!("update events set {unreadable} where event_id = '{early}'");
        found(&sealed, unreadable, &sql, Wrong::Changed, Some(early)).await;
    }
    let salt = format!("delete from salts where tenant_id = '{}' and subject = 'ada'", one.tenant_id);
    sealed.tamper(&salt).await;
    assert_eq!(sealed.finding().await.wrong, Wrong::SaltMissing);
    undo(&sealed).await;
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, []);
}

#[tokio::test]
async fn a_rewritten_leaf_index_does_not_help() {
    let (sealed, one, _) = two_tenants().await;
    let ids = sealed.ids(one.tenant_id).await;
    let early = ids[6];

    // Event and leaf hash both: the sealed root still says no, and names where.
    let both = format!(
        "update events set request_id = 'x' where event_id = '{early}';
         update leaves set hashes = overlay(hashes placing sha256('x') from
           (position(uuid_send('{early}') in event_ids) - 1) * 2 + 1)
         where tenant_id = '{}' and position(uuid_send('{early}') in event_ids) > 0",
        one.tenant_id
    );
    sealed.tamper(&both).await;
    let finding = sealed.finding().await;
    assert_eq!(finding.wrong, Wrong::Rewritten, "{finding}");
    assert!(finding.index.unwrap() <= 6 && finding.checkpoint.is_some(), "{finding}");
    undo(&sealed).await;

    // The tail of events and index.
    let tail = format!(
        "delete from events e using leaves l where l.tenant_id = '{0}' and e.tenant_id = '{0}' and l.first > 20
           and (e.xid, e.position) > (select xid, position from leaves where tenant_id = '{0}' and first <= 20 order by first desc limit 1);
         delete from leaves where tenant_id = '{0}' and first > 20",
        one.tenant_id
    );
    sealed.tamper(&tail).await;
    assert_eq!(sealed.finding().await.wrong, Wrong::Cut);
    undo(&sealed).await;

    // A whole tenant.
    let tenant = format!(
        "delete from events where tenant_id = '{0}'; delete from leaves where tenant_id = '{0}';
         delete from trees where tenant_id = '{0}'; delete from streams where tenant_id = '{0}';
         delete from tenant_checkpoints where tenant_id = '{0}'",
        one.tenant_id
    );
    sealed.tamper(&tenant).await;
    let report = sealed.verify(OnlineOptions::default()).await;
    assert_eq!(report.findings[0].wrong, Wrong::CheckpointChanged, "{:?}", report.findings);
    assert_eq!(report.findings[0].checkpoint, Some(1));
}

#[tokio::test]
async fn checkpoints_cannot_be_edited_or_rewound() {
    let (sealed, one, _) = two_tenants().await;
    let kept: Vec<Kept> = audit::list_checkpoints(&sealed.world.log, 0, 1_000)
        .await
        .unwrap()
        .into_iter()
        .map(Kept::Public)
        .collect();
    assert!(kept.len() >= 11, "{}", kept.len());

    for change in [
        "root = sha256('x')",
        "sealed_at = sealed_at - interval '1 second'",
        "previous = sha256('x')",
        "kid = 'another'",
        "signature = (select signature from checkpoints where number = 3)",
    ] {
        sealed.tamper(&format!("update checkpoints set {change} where number = 4")).await;
        let finding = sealed.finding().await;
        assert_eq!(
            (finding.wrong, finding.checkpoint),
            (Wrong::CheckpointChanged, Some(4)),
            "{change}: {finding}"
        );
        undo(&sealed).await;
    }
    for (change, number) in [("size = size + 1", 4), ("root = sha256('x')", 4), ("previous = null", 4)] {
        sealed.tamper(&format!("update tenant_checkpoints set {change} where number = {number}")).await;
        let finding = sealed.verify(OnlineOptions::default()).await.findings[0].clone();
        assert_eq!(
            (finding.wrong, finding.checkpoint),
            (Wrong::CheckpointChanged, Some(4)),
            "{change}: {finding}"
        );
        undo(&sealed).await;
    }
    sealed
        .tamper("delete from checkpoints where number = 4; delete from tenant_checkpoints where number = 4")
        .await;
    let finding = sealed.verify(OnlineOptions::default()).await.findings[0].clone();
    assert_eq!((finding.wrong, finding.checkpoint), (Wrong::CheckpointMissing, Some(4)), "{finding}");
    undo(&sealed).await;

    // Rewound as a whole, events and all: only somebody who kept a checkpoint can tell.
    let rewind = "delete from events e using leaves l where e.tenant_id = l.tenant_id and l.first > 20
           and (e.xid, e.position) > (select c.xid, c.position from leaves c where c.tenant_id = l.tenant_id and c.first <= 20 order by c.first desc limit 1);
         delete from leaves where first > 20;
         delete from tenant_checkpoints where number >= 9; delete from checkpoints where number >= 9;
         update trees t set sealed_size = (select max(size) from tenant_checkpoints h where h.tenant_id = t.tenant_id)";
    sealed.tamper(rewind).await;
    let report = sealed.verify(OnlineOptions { kept, ..OnlineOptions::default() }).await;
    let finding = &report.findings[0];
    assert_eq!((finding.wrong, finding.checkpoint), (Wrong::CheckpointMissing, Some(9)), "{finding}");
    undo(&sealed).await;

    // A history that was written anew and signed with the true key does not fit what was kept.
    let own = audit::tenant_checkpoint(&sealed.world.log, one.tenant_id, None).await.unwrap().unwrap();
    assert!(own.hangs_together().unwrap());
    let again =
        "delete from tenant_checkpoints; delete from checkpoints; delete from leaves; delete from tree_nodes;
         delete from trees; update notary set xid = '0', position = 0;
         update events set request_id = 'forged' where class = 'denial'";
    sealed.tamper(again).await;
    sealed.seal().await;
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, [], "nobody kept anything");
    let kept = vec![Kept::Tenant(Box::new(own))];
    let report = sealed.verify(OnlineOptions { kept, ..OnlineOptions::default() }).await;
    assert_eq!(report.findings[0].wrong, Wrong::CheckpointMissing, "{:?}", report.findings);
}

/// What decides reads a pool's events by version: it would obey a decision that no page of the log ever shows.
#[tokio::test]
async fn no_event_stands_where_no_reader_comes() {
    let (sealed, one, _) = two_tenants().await;
    let forged = Uuid::from_u128(7);
    let insert = |class: &str, xid: &str, tenant: &str, version: &str| {
        format!(
            "insert into events (class, event_id, xid, position, tenant_id, stream_id, version, type, format, occurred_at, data)
             select '{class}', '{forged}', {xid}, position, {tenant}, stream_id, {version}, 'license_updated', 1, occurred_at,
               '{{\"seats_total\": 77}}'
             from events where stream_id = '{}' and version = 1;",
            one.license_id
        )
    };
    let next = format!("(select version + 1 from streams where stream_id = '{}')", one.license_id);
    let stands = format!("update streams set version = version + 1 where stream_id = '{}';", one.license_id);
    let ahead = insert("decision", "'99999999'", "tenant_id", &next);
    sealed.tamper(&format!("{ahead} {stands}")).await;
    let findings = sealed.verify(OnlineOptions::default()).await.findings;
    assert_eq!((findings[0].wrong, findings[0].event_id), (Wrong::Inserted, Some(forged)), "{findings:?}");
    sealed.tamper(&stands.replace("+ 1", "- 1")).await;
    undo(&sealed).await;
    let denial = insert("denial", "'99999999'", "tenant_id", "null");
    found(&sealed, "a denial ahead of the log", &denial, Wrong::Inserted, Some(forged)).await;
    let nobodys = insert("denial", "xid", "gen_random_uuid()", "null");
    found(&sealed, "an event of nobody", &nobodys, Wrong::Inserted, Some(forged)).await;
}

#[tokio::test]
async fn what_is_kept_beside_the_log_must_be_what_it_says() {
    let (sealed, one, other) = two_tenants().await;
    sealed
        .tamper(
            "create table kept.users as table users; create table kept.seats as table seats;
             create table kept.streams as table streams; create table kept.names as table names",
        )
        .await;
    let holder = "session_id = (select session_id from seats order by started_at limit 1)";
    for (what, sql) in [
        ("a role", "update users set roles = '{tenant_admin}' where user_id = 'bob'".to_owned()),
        ("an email", "update users set email = 'x@example.com' where user_id = 'bob'".to_owned()),
        ("a removal", "update users set removed = true where user_id = 'bob'".to_owned()),
        ("a user that is gone", "delete from users where user_id = 'bob'".to_owned()),
        (
            "a user that never came",
            "insert into users select distinct tenant_id, 'mallory', null, '{}'::text[], false, now(), now() from users"
                .to_owned(),
        ),
        ("a seat of another machine", format!("update seats set hardware_id = 'another-machine' where {holder}")),
        ("a seat of nobody", format!("update seats set session_id = gen_random_uuid() where {holder}")),
        (
            "a seat that was given back",
            format!(
                "update seats set session_id = (select session_id from events where type = 'seat_released'
                   and tenant_id = seats.tenant_id limit 1) where {holder}"
            ),
        ),
        ("a license that is on again", "update streams set license_active = not license_active".to_owned()),
        ("a tenant that is off", "update streams set tenant_active = not tenant_active".to_owned()),
        ("a license that begins later", "update streams set valid_from = now() where product is not null".to_owned()),
        ("a license without an end", "update streams set valid_until = 'infinity' where product is not null".to_owned()),
        ("a stream that is gone", "delete from streams where product is not null".to_owned()),
        ("a name that is free", "delete from names".to_owned()),
        ("a name of somebody else", "update names set name = 'not-' || name where scope = 'subdomain'".to_owned()),
    ] {
        sealed.tamper(sql.as_str()).await;
        let findings = sealed.verify(OnlineOptions::default()).await.findings;
        assert!(!findings.is_empty(), "{what}");
        for finding in findings {
            assert_eq!(finding.wrong, Wrong::StateChanged, "{what}: {finding}");
        }
        sealed
            .tamper(
                "insert into streams select * from kept.streams on conflict do nothing;
                 truncate users, seats, names; insert into users select * from kept.users;
                 insert into seats select * from kept.seats; insert into names select * from kept.names;
                 update streams s set tenant_active = k.tenant_active, license_active = k.license_active,
                   valid_from = k.valid_from, valid_until = k.valid_until
                 from kept.streams k where k.stream_id = s.stream_id",
            )
            .await;
    }
    assert_eq!(sealed.verify(OnlineOptions::default()).await.findings, []);

    // A seat that is missing grants nobody anything: it is said, and is no finding.
    sealed.tamper(&format!("delete from seats where {holder}")).await;
    let report = sealed.verify(OnlineOptions::default()).await;
    assert_eq!(report.findings, []);
    let of = [one, other].map(|pool| pool.tenant_id.to_string());
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("no row in table seats")
                && of.iter().any(|tenant| note.contains(tenant))),
        "{:?}",
        report.notes
    );
}
