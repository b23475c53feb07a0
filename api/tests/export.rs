//! `export --what usage`: what its files say equals what the API answers, and a bad question writes no file.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Output;

use chrono::{DateTime, SecondsFormat, Utc};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use support::{TestApp, problem, start};
use tokio::process::Command;

async fn run(app: &TestApp, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coditect-license"));
    command.args(arguments).env("DATABASE_URL", &app.config.database.database_url);
    command.output().await.unwrap()
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Seats that came and went, one act every 17 minutes, from three days ago on.
async fn days_ago(app: &TestApp) -> Value {
    let tenant = app.tenant(2).await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| app.user(&tenant, name));
    let held = app.granted(&alice, "laptop-of-alice").await;
    app.granted(&bob, "laptop-of-bob").await;
    problem(app.acquire(&carol, "laptop-of-carol").await, 409, "no_seats_available").await;
    app.release(&alice, &held["session_id"]).await.error_for_status().unwrap();
    app.granted(&carol, "laptop-of-carol").await;
    let client = app.superuser().await;
    client
        .batch_execute(
            "set session_replication_role = replica;
             update events e set occurred_at = date_trunc('milliseconds', now()) - interval '3 days' + n * interval '17 minutes'
             from (select event_id, row_number() over (order by xid, position) as n from events) o
             where o.event_id = e.event_id",
        )
        .await
        .unwrap();
    for projection in ["tenants", "usage"] {
        let rebuilt = run(app, &["rebuild", projection, "--fresh"]).await;
        assert!(rebuilt.status.success(), "{rebuilt:?}");
    }
    tenant
}

/// A row of a Parquet file as the API would write it.
fn json_of(row: &Row) -> Value {
    let value = |field: &Field| match field {
        Field::Null => Value::Null,
        Field::Str(text) => json!(text),
        Field::Long(number) => json!(number),
        // By way of its text: what reads JSON here is off by a last digit now and then.
        Field::Double(number) => serde_json::from_str(&json!(number).to_string()).unwrap(),
        Field::TimestampMillis(at) => json!(rfc3339(DateTime::from_timestamp_millis(*at).unwrap())),
        other => json!(format!("a strange type: {other:?}")),
    };
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>().into()
}

/// The rows of a file, and how many row groups it has.
fn parquet(file: &Path) -> (Vec<Value>, usize) {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| json_of(&row.unwrap())).collect();
    (rows, reader.num_row_groups())
}

#[tokio::test]
async fn exported_usage_is_what_the_api_answers() {
    let app = start().await;
    let tenant = days_ago(&app).await;
    let (id, license) = (tenant["id"].as_str().unwrap(), tenant["license_id"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("usage");
    // More minutes than are read at a time.
    let now = Utc::now();
    let (from, until) = (now - chrono::Duration::days(20), now - chrono::Duration::hours(1));
    let (from, until) = (rfc3339(from), rfc3339(until));
    for (interval, of) in [("minute", ""), ("hour", license), ("day", "")] {
        let only = if of.is_empty() { String::new() } else { format!("&license_id={of}") };
        let path = format!("/api/v1/tenants/{id}/usage?bucket={interval}&from={from}&to={until}{only}");
        let answer = app.get(&path, &app.role(&tenant, "analyst")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        let expected = answer["items"].as_array().unwrap();
        assert!(expected.iter().any(|item| item["denied"] == 1 && item["average"].as_f64().unwrap() > 0.0));

        let base = ["export", "--what", "usage", "--tenant", id, "--from", &from, "--until", &until];
        let mut arguments = base.to_vec();
        arguments.extend(["--interval", interval, "--to", to.to_str().unwrap()]);
        if !of.is_empty() {
            arguments.extend(["--license", of]);
        }
        let export = async |format: &str| {
            let done = run(&app, &[&arguments[..], &["--format", format]].concat()).await;
            assert!(done.status.success(), "{done:?}");
            assert_eq!(String::from_utf8(done.stderr).unwrap(), format!("{} buckets\n", expected.len()));
        };
        export("parquet").await;
        let (rows, groups) = parquet(&to);
        assert_eq!(rows, *expected, "{interval}");
        assert_eq!(groups, if interval == "minute" { 2 } else { 1 });
        export("ndjson").await;
        let text = std::fs::read_to_string(&to).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, *expected);

        export("csv").await;
        let request = app.http.get(format!("{}{path}", app.url())).bearer_auth(app.role(&tenant, "analyst"));
        let shown = request.header("Accept", "text/csv").send().await.unwrap().text().await.unwrap();
        assert_eq!(records(&std::fs::read_to_string(&to).unwrap()), records(&shown));
    }
}

fn records(text: &str) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_bad_question_is_named_in_one_line_and_writes_nothing() {
    let app = start().await;
    let (tenant, other) = (app.tenant(1).await, app.tenant(1).await);
    let (id, foreign) = (tenant["id"].as_str().unwrap(), other["license_id"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("kept");
    std::fs::write(&file, "what was there").unwrap();
    let to = file.to_str().unwrap();
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let nobody = uuid::Uuid::now_v7().to_string();
    let usage = ["export", "--to", to, "--what", "usage"];
    let questions: [(&[&str], &[&str], &str); 7] = [
        (&usage, &["--tenant", &nobody, "--from", early], "--tenant"),
        (&usage, &["--tenant", id, "--from", early, "--license", foreign], "--license"),
        (&usage, &["--tenant", id, "--from", late, "--until", early], "--from"),
        (&usage, &["--tenant", id], "FROM"),
        (&usage, &["--tenant", id, "--from", "yesterday"], "FROM"),
        (&usage, &["--tenant", id, "--from", early, "--interval", "week"], "INTERVAL"),
        (&["export", "--to", to], &["--tenant", id, "--interval", "day"], "--interval"),
    ];
    for (what, how, named) in questions {
        let refused = run(&app, &[what, how].concat()).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.lines().count() == 1 && said.contains(named), "{said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "what was there", "{said}");
    }
}
