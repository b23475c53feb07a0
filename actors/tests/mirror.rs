//! A pool's mirror in a real Redis: it lies, it is lost, it comes and goes, and nobody suffers.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use actors::Answer;
use engines::{Redis, RedisOptions, Scratch};
use events::LicenseId;
use fred::clients::Client;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface, SortedSetsInterface};
use fred::types::InfoKind;
use fred::types::config::Config;
use support::{World, eventually};

async fn redis(url: &str) -> Client {
    let client = Client::new(Config::from_url(url).unwrap(), None, None, None);
    client.init().await.unwrap();
    client
}

fn key(license_id: LicenseId, part: &str) -> String {
    format!("coditect:{{{license_id}}}:{part}")
}

/// Seats that the mirror counts: its sentinel is none.
async fn mirrored(client: &Client, license_id: LicenseId) -> i64 {
    client.zcount::<i64, _>(key(license_id, "seats"), 0.0, f64::INFINITY).await.unwrap()
}

/// The mirror follows an answer a moment later.
async fn mirror_comes_to(client: &Client, license_id: LicenseId, seats: i64) {
    eventually("the mirror", async || mirrored(client, license_id).await == seats).await;
}

#[tokio::test]
async fn a_replica_that_hears_heartbeats_alone_tells_the_mirror() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    one.gate_up().await;
    two.gate_up().await;
    let (tenant_id, license_id) = one.tenant(2).await;
    one.join(tenant_id, "alice").await;
    let alice = one.granted(license_id, "alice").await;
    let client = redis(&world.redis_url).await;
    mirror_comes_to(&client, license_id, 1).await;
    client
        .del::<(), _>(["meta", "seats", "holders"].map(|part| key(license_id, part)).to_vec())
        .await
        .unwrap();
    assert!(matches!(two.heartbeat(license_id, alice.session_id, "alice").await, Answer::Alive { .. }));
    mirror_comes_to(&client, license_id, 1).await;
}

#[tokio::test]
async fn a_mirror_that_lies_is_repaired_and_nobody_suffers() {
    let world = World::new().await;
    let replica = world.replica().await;
    replica.gate_up().await;
    let (tenant_id, license_id) = replica.tenant(2).await;
    for user in ["alice", "bob", "carol"] {
        replica.join(tenant_id, user).await;
    }
    let client = redis(&world.redis_url).await;
    let alice = replica.granted(license_id, "alice").await;
    mirror_comes_to(&client, license_id, 1).await;

    // It says full, although there is room: a seat is granted all the same, and the mirror put right.
    let far = 9e15;
    for ghost in ["ghost-1", "ghost-2", "ghost-3"] {
        client
            .zadd::<(), _, _>(key(license_id, "seats"), None, None, false, false, (far, ghost))
            .await
            .unwrap();
    }
    let bob = replica.granted(license_id, "bob").await;
    mirror_comes_to(&client, license_id, 2).await;

    // It says that there is room, although the pool is full.
    client.zrem::<(), _, _>(key(license_id, "seats"), alice.session_id.to_string()).await.unwrap();
    assert!(matches!(replica.acquire(license_id, "carol").await, Ok(Answer::Denied { .. })));
    mirror_comes_to(&client, license_id, 2).await;

    // It has forgotten a session: its heartbeat puts it back.
    client.zrem::<(), _, _>(key(license_id, "seats"), bob.session_id.to_string()).await.unwrap();
    assert!(matches!(replica.heartbeat(license_id, bob.session_id, "bob").await, Answer::Alive { .. }));
    eventually("the session in the mirror", async || mirrored(&client, license_id).await == 2).await;

    // It has forgotten everything, scripts too.
    client
        .del::<(), _>(["meta", "seats", "holders"].map(|part| key(license_id, part)).to_vec())
        .await
        .unwrap();
    client.script_flush(false).await.unwrap();
    assert!(matches!(replica.acquire(license_id, "carol").await, Ok(Answer::Denied { .. })));
    mirror_comes_to(&client, license_id, 2).await;

    // It claims to be of a version that never was.
    client.hset::<(), _, _>(key(license_id, "meta"), [("version", "999999"), ("limit", "0")]).await.unwrap();
    replica.release(license_id, bob.session_id, "bob").await;
    replica.granted(license_id, "carol").await;
    mirror_comes_to(&client, license_id, 2).await;
    eventually("the true version", async || {
        client.hget::<String, _, _>(key(license_id, "meta"), "version").await.unwrap() != "999999"
    })
    .await;
}

/// A crowd at a full pool does not ask the gate, and the seat that another replica has freed is granted without it.
#[tokio::test]
async fn a_seat_granted_past_the_gate_is_mirrored() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    one.gate_up().await;
    two.gate_up().await;
    let (tenant_id, license_id) = one.tenant(1).await;
    for user in ["alice", "bob"] {
        one.join(tenant_id, user).await;
    }
    let alice = one.granted(license_id, "alice").await;
    let client = redis(&world.redis_url).await;
    for _ in 0..30 {
        assert!(matches!(two.acquire(license_id, "bob").await, Ok(Answer::Denied { .. })));
    }
    assert!(matches!(one.release(license_id, alice.session_id, "alice").await, Answer::Released));
    let bob = two.granted(license_id, "bob").await;
    eventually("bob's session in the mirror", async || {
        let session = bob.session_id.to_string();
        client.zscore::<Option<f64>, _, _>(key(license_id, "seats"), session).await.unwrap().is_some()
    })
    .await;
    assert!(matches!(one.acquire(license_id, "alice").await, Ok(Answer::Denied { .. })));
}

/// How many scripts a Redis has run.
async fn scripts_run(client: &Client) -> u64 {
    let stats: String = client.info(Some(InfoKind::CommandStats)).await.unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn a_crowd_at_a_full_pool_spares_the_gate() {
    let world = World::new().await;
    let scratch = Scratch::new().unwrap();
    let server = Redis::start(RedisOptions::new(scratch.path())).await.unwrap();
    let replica = world.replica_with(&server.url(), support::TTL).await;
    replica.gate_up().await;
    let (tenant_id, license_id) = replica.tenant(1).await;
    for user in ["alice", "bob"] {
        replica.join(tenant_id, user).await;
    }
    replica.granted(license_id, "alice").await;
    let client = redis(&server.url()).await;
    let (before, begun) = (scripts_run(&client).await, std::time::Instant::now());
    for _ in 0..200 {
        assert!(matches!(replica.acquire(license_id, "bob").await, Ok(Answer::Denied { .. })));
    }
    let asked = scripts_run(&client).await - before;
    let allowed = 8 * (begun.elapsed().as_secs() + 2);
    assert!((1..=allowed).contains(&asked), "asked {asked} times of 200; allowed are {allowed}");
}

#[tokio::test]
async fn redis_may_be_absent_at_the_start_and_go_away_later() {
    let world = World::new().await;
    let scratch = Scratch::new().unwrap();
    let server = Redis::start(RedisOptions::new(scratch.path())).await.unwrap();
    server.stop_immediately().await.unwrap();
    let replica = world.replica_with(&server.url(), support::TTL).await;
    let (tenant_id, license_id) = replica.tenant(2).await;
    for user in ["alice", "bob", "carol"] {
        replica.join(tenant_id, user).await;
    }
    let alice = replica.granted(license_id, "alice").await;
    assert!(!replica.pools.gate().is_up());

    server.start_again().await.unwrap();
    replica.gate_up().await;
    replica.granted(license_id, "bob").await;
    assert!(matches!(replica.acquire(license_id, "carol").await, Ok(Answer::Denied { .. })));
    let client = redis(&server.url()).await;
    mirror_comes_to(&client, license_id, 2).await;

    server.stop_immediately().await.unwrap();
    assert!(matches!(replica.heartbeat(license_id, alice.session_id, "alice").await, Answer::Alive { .. }));
    assert!(matches!(replica.release(license_id, alice.session_id, "alice").await, Answer::Released));
    replica.granted(license_id, "carol").await;
}
