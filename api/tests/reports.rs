//! What auditors and analysts are told equals what clients did: state at every instant, usage, refusals, the events in
//! three formats; and bad questions are told which part of them is bad.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::BTreeMap;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use support::{TestApp, eventually, problem, start};

fn own(tenant: &Value) -> String {
    format!("/api/v1/tenants/{}", tenant["id"].as_str().unwrap())
}

async fn accept(app: &TestApp, path: &str, token: &str, accept: &str) -> Response {
    let request = app.http.get(format!("{}{path}", app.url())).bearer_auth(token);
    request.header("Accept", accept).send().await.unwrap()
}

async fn json_of(app: &TestApp, path: &str, token: &str) -> Value {
    app.get(path, token).await.error_for_status().unwrap().json().await.unwrap()
}

/// Two pools, three users who come and go, a full pool, a limit that moves, a license switched off and on.
async fn a_busy_day(app: &TestApp) -> Value {
    let tenant = app.tenant(2).await;
    let second = json!({ "product": "pro", "plan": "pro", "seats_total": 1 });
    let licenses = format!("{}/licenses", own(&tenant));
    let second: Value = app.post(&licenses, &app.platform(), &second).await.json().await.unwrap();
    let second = format!("{licenses}/{}", second["license_id"].as_str().unwrap());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| app.user(&tenant, name));
    let held = app.granted(&alice, "laptop-of-alice").await;
    app.granted(&bob, "laptop-of-bob").await;
    problem(app.acquire(&carol, "laptop-of-carol").await, 409, "no_seats_available").await;
    app.heartbeat(&alice, &held["session_id"]).await;
    app.release(&alice, &held["session_id"]).await;
    app.granted(&carol, "laptop-of-carol").await;
    let pro = json!({ "hardware_id": "laptop-of-alice", "product": "pro" });
    app.post("/api/v1/licenses/acquire", &alice, &pro).await.error_for_status().unwrap();
    for change in [json!({ "seats_total": 5 }), json!({ "active": false }), json!({ "active": true })] {
        app.put(&second, &app.platform(), &change).await.error_for_status().unwrap();
    }
    let remove = format!("{}{}/users/carol", app.url(), own(&tenant));
    eventually("the removal of carol", async || {
        let gone = app.http.delete(&remove).bearer_auth(app.platform()).send().await.unwrap();
        gone.status() == StatusCode::NO_CONTENT
            && app.event_types(&tenant).await.iter().any(|name| name == "seat_revoked")
    })
    .await;
    tenant
}

/// What the contract says of a time, folded here from the events that the API shows.
fn folded(events: &[Value], at: &str) -> Value {
    let mut pools: BTreeMap<String, Value> = BTreeMap::new();
    for event in events.iter().filter(|event| event["occurred_at"].as_str().unwrap() <= at) {
        let Some(license_id) = event["license_id"].as_str() else { continue };
        let pool = pools.entry(license_id.to_owned()).or_insert_with(|| json!({ "sessions": [] }));
        let data = &event["data"];
        match event["type"].as_str().unwrap() {
            "license_issued" | "license_updated" => {
                for field in ["product", "seats_total", "active"] {
                    if let Some(value) = data.get(field) {
                        pool[field] = value.clone();
                    }
                }
            }
            "seat_acquired" => pool["sessions"].as_array_mut().unwrap().push(json!({
                "session_id": event["session_id"], "user_id": event["user_id"],
                "hardware_id": event["hardware_id"], "started_at": event["occurred_at"],
            })),
            "seat_released" | "seat_expired" | "seat_revoked" => {
                let sessions = pool["sessions"].as_array_mut().unwrap();
                sessions.retain(|session| session["session_id"] != event["session_id"]);
            }
            _ => {}
        }
    }
    let licenses: Vec<_> = pools
        .into_iter()
        .map(|(license_id, mut pool)| {
            pool["license_id"] = json!(license_id);
            pool["seats_used"] = json!(pool["sessions"].as_array().unwrap().len());
            pool
        })
        .collect();
    json!({ "at": at, "licenses": licenses })
}

#[tokio::test]
async fn state_at_every_instant_is_the_fold_of_the_events() {
    let app = start().await;
    let tenant = a_busy_day(&app).await;
    let auditor = app.role(&tenant, "auditor");
    let events = app.events(&tenant).await;
    for event in &events {
        let at = event["occurred_at"].as_str().unwrap();
        let shown = json_of(&app, &format!("{}/state?at={at}", own(&tenant)), &auditor).await;
        assert_eq!(shown, folded(&events, at));
    }
    let now = json_of(&app, &format!("{}/state", own(&tenant)), &auditor).await;
    assert_eq!(now["licenses"], folded(&events, "9999")["licenses"]);
    let before =
        json_of(&app, &format!("{}/state?at=2020-01-01T00:00:00%2B01:00", own(&tenant)), &auditor).await;
    assert_eq!(before, json!({ "at": "2019-12-31T23:00:00.000Z", "licenses": [] }));
}

#[tokio::test]
async fn the_command_what_if_names_what_is_wrong_in_one_line() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let (id, nobody) = (tenant["id"].as_str().unwrap(), uuid::Uuid::now_v7().to_string());
    for (tenant, question, named) in [
        (nobody.as_str(), "--seats=1", "--tenant"),
        (id, "--seats -1", "seats"),
        (id, "--ttl-seconds -1", "ttl_seconds"),
    ] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"));
        let range = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"];
        command.args(["what-if", "--tenant", tenant]).args(range);
        command.args(question.split(' ')).env("DATABASE_URL", app.database.url());
        let said = command.output().await.unwrap().stderr;
        let said = String::from_utf8(said).unwrap();
        assert!(said.lines().count() == 1 && said.contains(named), "{said}");
    }
}

#[tokio::test]
async fn replay_prints_what_the_api_says_without_a_server() {
    let app = start().await;
    let tenant = a_busy_day(&app).await;
    let events = app.events(&tenant).await;
    let at = events[events.len() / 2]["occurred_at"].as_str().unwrap();
    let replay = async |tenant: &str, arguments: [&str; 2]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"));
        command.args(["replay", "--tenant", tenant]).args(arguments);
        command.env("DATABASE_URL", app.database.url()).output().await.unwrap()
    };
    let lines = |output: std::process::Output| -> Vec<Value> {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let id = tenant["id"].as_str().unwrap();
    let state = json_of(&app, &format!("{}/state?at={at}", own(&tenant)), &app.platform()).await;
    assert_eq!(lines(replay(id, ["--at", at]).await), [state]);
    let until: Vec<_> =
        events.iter().filter(|one| one["occurred_at"].as_str().unwrap() <= at).cloned().collect();
    assert_eq!(lines(replay(id, ["--until", at]).await), until);
    for (tenant, arguments, says) in [
        (id, ["--at", "noon"], "--at"),
        (id, ["--at", "2099-01-01T00:00:00Z"], "future"),
        ("x", ["--at", at], "--tenant"),
        (tenant["license_id"].as_str().unwrap(), ["--at", at], "no such tenant"),
    ] {
        let refused = replay(tenant, arguments).await;
        assert!(
            !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(says),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn questions_about_a_time_or_a_session_find_all_of_it() {
    let app = start().await;
    let tenant = a_busy_day(&app).await;
    let (auditor, all) = (app.role(&tenant, "auditor"), app.events(&tenant).await);
    let times: Vec<_> = all.iter().map(|event| event["occurred_at"].as_str().unwrap()).collect();
    for (from, to) in [(0, times.len() - 1), (2, 7), (times.len() - 2, times.len() - 1), (3, 3)] {
        let (from, to) = (times[from], times[to]);
        let expected: Vec<_> = all
            .iter()
            .filter(|event| (from..to).contains(&event["occurred_at"].as_str().unwrap()))
            .cloned()
            .collect();
        let path = format!("{}/events?from={from}&to={to}&limit=1000", own(&tenant));
        assert_eq!(json_of(&app, &path, &auditor).await["items"], json!(expected), "{from} {to}");
    }
    let far = format!("{}/events?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z", own(&tenant));
    assert_eq!(json_of(&app, &far, &auditor).await["items"], json!([]));
    let (event, type_of) = (&all[all.len() - 1], |name: &str| format!("{}/events?type={name}", own(&tenant)));
    assert_eq!(event["type"], "seat_revoked");
    for session in all.iter().filter_map(|event| event["session_id"].as_str()) {
        let expected: Vec<_> = all.iter().filter(|event| event["session_id"] == session).cloned().collect();
        let path = format!("{}/events?session_id={session}", own(&tenant));
        assert_eq!(json_of(&app, &path, &auditor).await["items"], json!(expected));
    }
    for name in ["seat_heartbeat", "seat_denied", "license_updated", "user_removed"] {
        let expected: Vec<_> = all.iter().filter(|event| event["type"] == name).cloned().collect();
        assert!(!expected.is_empty(), "{name}");
        assert_eq!(json_of(&app, &type_of(name), &auditor).await["items"], json!(expected));
    }
}

#[tokio::test]
async fn a_long_history_is_walked_back_only_as_far_as_its_sessions_reach() {
    let app = start().await;
    let tenant = app.tenant(3).await;
    let stays = app.user(&tenant, "stays");
    app.granted(&stays, "laptop-of-stays").await;
    for n in 0..150 {
        let user = app.user(&tenant, &format!("user-{}", n % 7));
        let held = app.granted(&user, &format!("laptop-{n}")).await;
        if n % 50 != 49 {
            app.release(&user, &held["session_id"]).await;
        }
        if n == 40 {
            app.put(&own(&tenant), &app.platform(), &json!({ "max_seats": 9 })).await;
        }
    }
    let (auditor, events) = (app.role(&tenant, "auditor"), app.events(&tenant).await);
    for event in events.iter().step_by(23) {
        let at = event["occurred_at"].as_str().unwrap();
        let shown = json_of(&app, &format!("{}/state?at={at}", own(&tenant)), &auditor).await;
        assert_eq!(shown, folded(&events, at));
    }
}

#[tokio::test]
async fn lists_come_as_pages_lines_and_tables() {
    let app = start().await;
    let tenant = a_busy_day(&app).await;
    let admin = app.role(&tenant, "tenant_admin");
    for (list, key) in [
        ("events", "event_id"),
        ("trail", "event_id"),
        ("sessions?state=all", "session_id"),
        ("users", "user_id"),
        ("licenses", "license_id"),
        ("denials", "denied_at"),
    ] {
        let path = format!("{}/{list}", own(&tenant));
        let whole = json_of(&app, &path, &admin).await;
        let items = whole["items"].as_array().unwrap();
        assert!(!items.is_empty() && whole["next"].is_null(), "{list}: {whole}");
        // Page by page it is the same.
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = json_of(&app, &format!("{path}{mark}limit=1{after}"), &admin).await;
            paged.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(&paged, items, "{list}");
        let lines = accept(&app, &path, &admin, "application/x-ndjson").await;
        assert_eq!(lines.headers()["content-type"], "application/x-ndjson");
        let lines = lines.text().await.unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(&lines, items, "{list}");
        let table = accept(&app, &path, &admin, "text/csv").await;
        assert_eq!(table.headers()["content-type"], "text/csv");
        let table = table.bytes().await.unwrap();
        let mut table = csv::Reader::from_reader(&table[..]);
        let column = table.headers().unwrap().iter().position(|name| name == key).unwrap();
        let keys: Vec<_> = table.records().map(|row| row.unwrap()[column].to_owned()).collect();
        assert_eq!(keys, items.iter().map(|item| item[key].as_str().unwrap()).collect::<Vec<_>>(), "{list}");
    }
    let active = json_of(&app, &format!("{}/sessions", own(&tenant)), &admin).await;
    let ended = json_of(&app, &format!("{}/sessions?state=ended", own(&tenant)), &admin).await;
    let states = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| format!("{} {}", item["user_id"].as_str().unwrap(), item["state"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(states(&active), ["bob active", "alice active"]);
    assert_eq!(states(&ended), ["alice released", "carol revoked"]);
    let trail = json_of(&app, &format!("{}/trail?type=seat_revoked", own(&tenant)), &admin).await;
    assert!(trail["items"][0]["sentence"].as_str().unwrap().contains("carol"), "{trail}");
}

#[tokio::test]
async fn usage_and_denials_say_what_clients_did() {
    let app = start().await;
    let tenant = a_busy_day(&app).await;
    let analyst = app.role(&tenant, "analyst");
    let day = json_of(&app, &format!("{}/usage?bucket=day", own(&tenant)), &analyst).await;
    let today = day["items"].as_array().unwrap().last().unwrap().clone();
    for (field, value) in
        [("peak", 3), ("acquired", 4), ("denied", 1), ("released", 1), ("revoked", 1), ("unique_users", 3)]
    {
        assert_eq!(today[field], value, "{field} of {today}");
    }
    assert_eq!((&today["license_id"], &today["seats_total"]), (&Value::Null, &json!(7)));
    let first = tenant["license_id"].as_str().unwrap();
    let pool =
        json_of(&app, &format!("{}/usage?bucket=day&license_id={first}", own(&tenant)), &analyst).await;
    let pool = pool["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&pool["peak"], &pool["acquired"], &pool["license_id"]),
        (&json!(2), &json!(3), &json!(first))
    );
    // A month of minutes, the empty ones included: read in parts, and one answer in any of the formats.
    let month =
        format!("{}/usage?bucket=minute&from=2025-01-01T00:00:00Z&to=2025-02-01T00:00:00Z", own(&tenant));
    let minutes = json_of(&app, &month, &analyst).await;
    let minutes = minutes["items"].as_array().unwrap();
    assert_eq!(minutes.len(), 31 * 24 * 60);
    assert!(minutes.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"]));
    let table = accept(&app, &month, &analyst, "text/csv").await.text().await.unwrap();
    assert_eq!(table.lines().next().unwrap().split(',').next(), Some("from"));
    assert_eq!(table.lines().skip(1).filter(|line| line.starts_with("2025-01-")).count(), minutes.len());
    let lines = accept(&app, &month, &analyst, "application/x-ndjson").await.text().await.unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines, minutes);
    let none = format!("{}/usage?from=2025-01-01T00:00:00Z&to=2025-01-01T00:00:00Z", own(&tenant));
    assert_eq!(json_of(&app, &none, &analyst).await["items"], json!([]));

    let denials = json_of(&app, &format!("{}/denials", own(&tenant)), &analyst).await;
    let denial = &denials["items"][0];
    assert_eq!((&denial["user_id"], &denial["reason"]), (&json!("carol"), &json!("no_seats_available")));
    assert!(denial["granted_after_seconds"].as_f64().unwrap() > 0.0);

    // With a third seat nobody would have waited.
    let what_if = json_of(&app, &format!("{}/usage/what-if?seats=3", own(&tenant)), &analyst).await;
    assert_eq!((&what_if["as_it_was"]["denied"], &what_if["what_if"]["denied"]), (&json!(1), &json!(0)));
    assert_eq!(what_if["license_id"], first);
    let path = format!("{}/usage/what-if?seats=3", own(&tenant));
    let table = accept(&app, &path, &analyst, "text/csv").await;
    assert_eq!(table.headers()["content-type"], "text/csv");
    let table = table.text().await.unwrap();
    let waited: Vec<&str> = table.lines().collect();
    assert!(waited[0].starts_with("outcome,user_id,"), "{table}");
    assert!(waited[1].starts_with("as_it_was,,2,3,1,0,"), "{table}");
    assert!(waited[2].starts_with("as_it_was,carol,,,1,,"), "{table}");
    assert!(waited[3].starts_with("what_if,,3,3,0,0,0"), "{table}");
    assert_eq!(waited.len(), 4, "{table}");
}

#[tokio::test]
async fn a_bad_question_names_its_bad_part() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let admin = app.role(&tenant, "tenant_admin");
    for (question, field) in [
        ("events?after=nonsense", "after"),
        ("events?after=9-0-0", "after"),
        ("events?limit=0", "limit"),
        ("events?limit=1001", "limit"),
        ("events?limit=-1", "limit"),
        ("events?limit=ten", "limit"),
        ("events?type=seat_stolen", "type"),
        ("events?session_id=x", "session_id"),
        ("events?from=yesterday", "from"),
        ("events?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("trail?after=nonsense", "after"),
        ("state?at=noon", "at"),
        ("state?at=2099-01-01T00:00:00Z", "at"),
        ("usage?bucket=week", "bucket"),
        ("usage?from=noon", "from"),
        ("usage?bucket=minute&from=2000-01-01T00:00:00Z", "to"),
        ("usage?license_id=x", "license_id"),
        ("usage/what-if", "seats"),
        ("usage/what-if?seats=few", "seats"),
        ("usage/what-if?seats=-1", "seats"),
        ("usage/what-if?ttl_seconds=0", "ttl_seconds"),
        ("denials?after=nonsense", "after"),
        ("denials?to=noon", "to"),
        ("sessions?state=sleeping", "state"),
        ("sessions?after=nonsense", "after"),
        ("users?after=%25", "after"),
        ("licenses?after=nonsense", "after"),
    ] {
        let refused =
            problem(app.get(&format!("{}/{question}", own(&tenant)), &admin).await, 400, "invalid_request")
                .await;
        assert_eq!(refused["field"], field, "{question}");
        let streamed = accept(&app, &format!("{}/{question}", own(&tenant)), &admin, "text/csv").await;
        problem(streamed, 400, "invalid_request").await;
    }
    let unknown = format!("{}/usage?license_id={}", own(&tenant), uuid::Uuid::now_v7());
    problem(app.get(&unknown, &admin).await, 404, "license_not_found").await;
}

#[tokio::test]
async fn each_role_reads_what_the_contract_gives_it() {
    let app = start().await;
    let tenant = app.tenant(1).await;
    let read = [
        ("", "tenant_admin"),
        ("/users", "tenant_admin"),
        ("/licenses", "tenant_admin"),
        ("/sessions", "tenant_admin analyst"),
        ("/events", "tenant_admin auditor"),
        ("/trail", "tenant_admin auditor"),
        ("/state", "tenant_admin auditor"),
        ("/usage", "tenant_admin analyst"),
        ("/denials", "tenant_admin analyst"),
        ("/usage/what-if?seats=1", "tenant_admin analyst"),
    ];
    for (path, may) in read {
        let path = format!("{}{path}", own(&tenant));
        assert_eq!(app.get(&path, &app.platform()).await.status(), StatusCode::OK);
        for role in ["tenant_admin", "auditor", "analyst", "none"] {
            let answer = app.get(&path, &app.role(&tenant, role)).await;
            if may.split(' ').any(|one| one == role) {
                assert_eq!(answer.status(), StatusCode::OK, "{role} on {path}");
            } else {
                problem(answer, 403, "forbidden").await;
            }
        }
    }
}
