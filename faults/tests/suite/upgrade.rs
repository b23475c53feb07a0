//! Upgrades: replicas are replaced one by one, and logs of earlier schema versions are read by this one.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use faults::{Account, Answer, Line, Seen, Stand, StandOptions, Trial, server_binary};
use loadtests::check::{Act, Origin};
use serde_json::{Value, json};

use crate::SECOND;

const GRACE: Duration = Duration::from_secs(10);

/// SIGTERM to each replica in turn; a new one takes its place.
async fn roll(stand: &mut Stand, binary: Option<&Path>) -> Result<String> {
    let mut times = Vec::new();
    for replica in &mut stand.replicas {
        let begun = std::time::Instant::now();
        let status = replica.terminate(GRACE + 2 * SECOND).await?;
        ensure!(status.success(), "{} ended with {status}", replica.name);
        times.push(begun.elapsed().as_millis());
        if let Some(binary) = binary {
            replica.set_binary(binary);
        }
        replica.start(&[]).await?;
        tokio::time::sleep(SECOND / 2).await;
    }
    Ok(format!("each ended with 0, after {times:?} ms"))
}

/// Acts that a client gave up without ever being told what became of them.
fn never_answered(seen: &Seen) -> Vec<u64> {
    let retried: HashSet<u64> = seen
        .history
        .calls
        .iter()
        .filter_map(|call| match call.origin {
            Origin::Retry(of) => Some(of),
            _ => None,
        })
        .collect();
    let client = |act: &Act| matches!(act, Act::Acquire { .. } | Act::Heartbeat { .. } | Act::Release { .. });
    seen.history
        .calls
        .iter()
        .filter(|call| call.actor.starts_with("client-"))
        .filter(|call| matches!(call.origin, Origin::Fresh | Origin::Retry(_)) && client(&call.act))
        .filter(|call| call.unknown() && !retried.contains(&call.id) && call.done < seen.fault.1)
        .map(|call| call.id)
        .collect()
}

fn all_answered(seen: Seen) -> Result<()> {
    let lost = never_answered(&seen);
    ensure!(lost.is_empty(), "calls {lost:?} came to nothing although they were repeated");
    seen.passed("every act that was repeated came to an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn rolling_restart_of_three() -> Result<()> {
    let fault = "rolling restart of 3 replicas under load";
    let seen = Trial::new("rolling_restart_of_three", fault, 17 * SECOND)
        .stand(|stand| stand.replicas = 3)
        .run(async |stand, _| roll(stand, None).await)
        .await?;
    all_answered(seen)
}

/// Another version of the scripts is another text: Redis knows scripts by their hash. Each begins with a comment, in
/// which one character becomes another in the program itself.
fn with_other_scripts(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("coditect-license-other");
    let heads = "s/-- \\(acquire_seat\\|extend_ttl\\|release_seat\\|sync_pool\\): /--~\\1: /g";
    let sed =
        Command::new("sed").env("LC_ALL", "C").arg(heads).arg(server_binary()?).output().context("sed")?;
    ensure!(sed.status.success(), "sed: {}", String::from_utf8_lossy(&sed.stderr));
    fs::write(&path, sed.stdout)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn rolling_restart_with_two_versions_of_the_scripts() -> Result<()> {
    let fault = "rolling restart with two versions of the scripts";
    let dir = engines::Scratch::new()?;
    let other = with_other_scripts(dir.path())?;
    let seen = Trial::new("rolling_restart_with_two_versions_of_the_scripts", fault, 14 * SECOND)
        .run(async |stand, _| {
            let rolled = roll(stand, Some(&other)).await?;
            eprintln!(
                "exe {:?}",
                fs::read_link(format!("/proc/{}/exe", stand.replicas[0].pid().unwrap_or(0)))
            );
            let memory = stand.redis_client().run(&["INFO", "memory"]).await?;
            let cached = memory.lines().find_map(|line| line.strip_prefix("number_of_cached_scripts:"));
            let cached: u32 = cached.unwrap_or("0").trim().parse()?;
            ensure!(cached > 4, "Redis knows {cached} scripts only: {rolled}");
            Ok(format!("{rolled}; Redis knew {cached} scripts"))
        })
        .await?;
    all_answered(seen)
}

/// The schema as this version of the sources has it.
mod schema {
    refinery::embed_migrations!("../schema");

    /// All versions, oldest first.
    pub fn versions() -> Vec<i32> {
        migrations::runner().get_migrations().iter().map(refinery::Migration::version).collect()
    }

    /// Brings a database to a version, as the program of that time did.
    pub async fn migrate(client: &mut tokio_postgres::Client, to: i32) -> anyhow::Result<()> {
        let mut runner = migrations::runner().set_target(refinery::Target::Version(to));
        runner.set_migration_table_name("schema_history").run_async(client).await?;
        Ok(())
    }
}

/// The oldest version that ever ran; its log is the one that every later version has to read.
const OLDEST: i32 = 5;
const LOG: &str = include_str!("../../logs/V5.sql");
const ACME: &str = "01900000-0000-7000-8000-00000000000a";

/// Brings an empty database to where it stood at `version`, with a log in it that was written at [`OLDEST`].
async fn as_of(version: i32, owner: String, superuser: String) -> Result<()> {
    let role = "do $$ begin
      if not exists (select from pg_roles where rolname = 'license_service') then create role license_service nologin; end if;
      grant license_service to coditect;
    end $$";
    let admin = connect(&superuser).await?;
    admin.batch_execute(role).await?;
    let mut owner = connect(&owner).await?;
    schema::migrate(&mut owner, OLDEST).await?;
    admin.batch_execute(LOG).await.context("the log of version 5")?;
    schema::migrate(&mut owner, version).await
}

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The session of the log that ends so.
fn session(end: &str) -> String {
    format!("01900000-0000-7000-8000-0000000000e{end}")
}

/// What the log says, asked as clients ask: each line is what was asked and what came back.
async fn ask(stand: &Stand) -> Result<Vec<String>> {
    let account = Account::existing(stand, ACME)?;
    let mut said = Vec::new();
    let mut say = |what: &str, answer: &Answer| {
        let body = &answer.body;
        let (code, reason, session) = (&body["code"], &body["reason"], &body["session_id"]);
        let status = &body["status"];
        said.push(format!("{what}: {} {status} {code} {reason} {} {session}", answer.status, body["seats"]));
    };
    let post = async |user: &str, act: &str, body: Value| {
        let token = account.token(stand, user, &[])?;
        anyhow::Ok(account.post(0, act, &token, &body).await)
    };
    for (user, end) in [("bob", "1"), ("cyd", "2"), ("dan", "3"), ("ada", "4"), ("eve", "6"), ("ada", "6")] {
        let answer = post(user, "heartbeat", json!({ "session_id": session(end) })).await?;
        say(&format!("heartbeat of {user} for {end}"), &answer);
    }
    let again = post("ada", "acquire", json!({"hardware_id": "machine-two"})).await?;
    say("ada again", &again);
    say("bob", &post("bob", "acquire", json!({"hardware_id": "machine-bob"})).await?);
    say("cyd, removed", &post("cyd", "acquire", json!({"hardware_id": "machine-cyd"})).await?);
    let atelier = json!({"hardware_id": "machine-one", "product": "atelier"});
    say("ada, suspended product", &post("ada", "acquire", atelier).await?);
    say("eve releases", &post("eve", "release", json!({ "session_id": session("6") })).await?);
    let mut granted = post("bob", "acquire", json!({"hardware_id": "machine-bob"})).await?;
    ensure!(granted.session_id().is_some(), "the seat was not free: {granted:?}");
    granted.body["session_id"] = Value::Null;
    say("bob gets it", &granted);
    let auditor = account.token(stand, "iris", &["auditor"])?;
    let events = account.get(0, "events?limit=1000", &auditor).await;
    let items = events.body["items"].as_array().context("no events")?;
    said.extend(items.iter().map(|event| {
        let session = event["session_id"].as_str().filter(|id| id.starts_with("01900000"));
        format!("{} {} {session:?} {}", event["version"], event["type"], event["data"]["seats_used"])
    }));
    Ok(said.into_iter().map(|line| line.replace('"', "")).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make faults"]
async fn logs_of_every_schema_version_replay() -> Result<()> {
    let (name, fault) =
        ("logs_of_every_schema_version_replay", "an upgrade from every earlier version of the schema");
    Line::begin(name, fault)?;
    let versions: Vec<_> = schema::versions().into_iter().filter(|version| *version >= OLDEST).collect();
    let mut first: Option<Vec<String>> = None;
    for version in &versions {
        let version = *version;
        let mut options = StandOptions::new();
        options.replicas = 1;
        options.ttl = 600 * SECOND;
        options.prepare = Some(Box::new(move |owner, superuser| Box::pin(as_of(version, owner, superuser))));
        let stand = Stand::start(options).await?;
        let said = ask(&stand).await.with_context(|| format!("a log of version {version}"))?;
        for expected in [
            "heartbeat of bob for 1: 410 410 session_ended released",
            "heartbeat of dan for 3: 410 410 session_ended expired",
            "heartbeat of ada for 4: 200 ok",
            "heartbeat of ada for 6: 404 404 session_not_found",
            "ada again: 200 renewed null null {total:3,used:3} 01900000-0000-7000-8000-0000000000e5",
            "bob: 409 409 no_seats_available null {total:3,used:3}",
            "cyd, removed: 403 403 forbidden",
            "ada, suspended product: 4",
            "eve releases: 200 released",
            "bob gets it: 200 granted null null {total:3,used:3}",
            "7 seat_expired Some(01900000-0000-7000-8000-0000000000e3)",
        ] {
            let found = said.iter().any(|line| line.starts_with(expected));
            ensure!(found, "from version {version}, `{expected}` is missing in\n{}", said.join("\n"));
        }
        let same = first.get_or_insert_with(|| said.clone());
        ensure!(
            *same == said,
            "from version {version} the log says\n{}\nnot\n{}",
            said.join("\n"),
            same.join("\n")
        );
    }
    let events = first.map_or(0, |lines| lines.len());
    Line::held(name, fault, &format!("versions {versions:?}, {events} answers and events the same"))
}
