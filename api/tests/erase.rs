//! A person is erased: nothing in the database names them any more, everything else verifies as before.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::process::Output;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{TestApp, eventually, start};
use tokio_postgres::Client;

const EMAIL: &str = "Ada.Lovelace@example.com";

async fn run(app: &TestApp, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coditect-license"));
    command.args(arguments).env("DATABASE_URL", &app.config.database.database_url);
    command.output().await.unwrap()
}

/// Whether the log verifies, and what was said.
async fn verify(app: &TestApp) -> (bool, String) {
    let done = run(app, &["verify"]).await;
    (done.status.success(), String::from_utf8(done.stdout).unwrap())
}

async fn sealed(client: &Client) {
    let behind = "select count(*) from events e, notary n where (e.xid, e.position) > (n.xid, n.position)
                  union all select count(*) from trees where sealed_size < size";
    eventually("everything is sealed", async || {
        let rows = client.query(behind, &[]).await.unwrap();
        rows.iter().all(|row| row.get::<_, i64>(0) == 0)
    })
    .await;
}

/// The tables in which a text stands anywhere, whatever the case of its letters.
async fn tables_with(client: &Client, text: &str) -> Vec<String> {
    let tables = "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                  where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')";
    let mut found = Vec::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let sql =
            format!("select exists (select from {table} t where position(lower($1) in lower(t::text)) > 0)");
        if client.query_one(&sql, &[&text]).await.unwrap().get(0) {
            found.push(table);
        }
    }
    found
}

fn own(tenant: &Value, path: &str) -> String {
    format!("/api/v1/tenants/{}{path}", tenant["id"].as_str().unwrap())
}

async fn delete(app: &TestApp, path: &str, token: &str) {
    let gone = app.http.delete(format!("{}{path}", app.url())).bearer_auth(token).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT, "{path}");
}

/// Invited by email, came, worked, was denied, acted as an admin, and was removed.
async fn a_life(app: &TestApp) -> Value {
    let tenant = app.tenant(2).await;
    let platform = app.platform();
    let invited = json!({ "email": EMAIL });
    app.post(&own(&tenant, "/users"), &platform, &invited).await.error_for_status().unwrap();
    let ada = app.token(&json!({ "sub": "ada-of-acme", "tenant_id": tenant["id"], "email": EMAIL,
                                 "roles": ["tenant_admin"] }));
    let bob = app.user(&tenant, "bob");
    let first = app.granted(&ada, "laptop-of-ada").await;
    let body = json!({ "hardware_id": "desk-of-ada", "machine_name": "Ada's desk" });
    app.post("/api/v1/licenses/acquire", &ada, &body).await.error_for_status().unwrap();
    assert_eq!(app.acquire(&ada, "third-of-ada").await.status(), StatusCode::CONFLICT);
    app.heartbeat(&ada, &first["session_id"]).await.error_for_status().unwrap();
    app.release(&ada, &first["session_id"]).await.error_for_status().unwrap();
    // The admin revokes a seat of somebody else: the event names both.
    let held = app.granted(&bob, "laptop-of-bob").await;
    delete(app, &own(&tenant, &format!("/sessions/{}", held["session_id"].as_str().unwrap())), &ada).await;
    app.granted(&bob, "laptop-of-bob").await;
    tenant
}

#[tokio::test]
async fn an_erased_person_is_named_nowhere_and_everything_verifies() {
    let app = start().await;
    let tenant = a_life(&app).await;
    let client = app.superuser().await;
    let id = tenant["id"].as_str().unwrap();
    let erase = ["erase", "--tenant", id, "--user", "ada-of-acme"];
    let said = async |arguments: &[&str]| {
        let done = run(&app, arguments).await;
        (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let whole = async || {
        let sql = "select md5(string_agg(e::text, '|' order by e.xid, e.position)) from events e";
        client.query_one(sql, &[]).await.unwrap().get::<_, String>(0)
    };

    // Whoever is a member stays, and so does everything; as does whom nothing names.
    sealed(&client).await;
    let before = whole().await;
    assert!(matches!(said(&erase).await, (false, why) if why.contains("remove the user first")));
    let nobody = ["erase", "--tenant", id, "--user", "ada"];
    assert!(matches!(said(&nobody).await, (false, why) if why.contains("names user")));
    assert_eq!(whole().await, before);

    delete(&app, &own(&tenant, "/users/ada-of-acme"), &app.platform()).await;
    eventually("her last seat is free", async || {
        let sql = "select count(*) from seats where user_id = 'ada-of-acme'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    sealed(&client).await;
    let (good, report) = verify(&app).await;
    assert!(good && report.contains(" 0 with erased fields"), "{report}");
    let named = tables_with(&client, "ada-of-acme").await;
    assert!(named.contains(&"events_decision".to_owned()) && named.contains(&"sessions_view".to_owned()));
    assert!(tables_with(&client, EMAIL).await.contains(&"users".to_owned()));
    let bobs = async || {
        client
            .query_one("select count(*) from events where user_id = 'bob'", &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    let count = bobs().await;

    let (good, report) = said(&erase).await;
    assert!(good && report.contains("the salts are deleted"), "{report}");
    for text in ["ada-of-acme", EMAIL, "laptop-of-ada", "desk-of-ada", "third-of-ada", "Ada's desk"] {
        assert_eq!(tables_with(&client, text).await, Vec::<String>::new(), "{text}");
    }
    assert_eq!(bobs().await, count);
    let (good, report) = verify(&app).await;
    assert!(good && !report.contains(" 0 with erased fields"), "{report}");

    // What is shown agrees: her sessions are there, and name nobody.
    let admin = app.role(&tenant, "tenant_admin");
    let sessions = app.get(&own(&tenant, "/sessions?state=all"), &admin).await;
    let sessions: Value = sessions.error_for_status().unwrap().json().await.unwrap();
    let erased = |session: &&Value| session["user_id"].as_str().unwrap().starts_with("erased:");
    assert_eq!(sessions["items"].as_array().unwrap().iter().filter(erased).count(), 2);
    for path in ["/events?limit=1000", "/trail", "/denials", "/state", "/users"] {
        let shown = app.get(&own(&tenant, path), &app.platform()).await;
        let shown = shown.error_for_status().unwrap().text().await.unwrap().to_lowercase();
        assert!(!shown.contains("ada-of") && !shown.contains(&EMAIL.to_lowercase()), "{path}: {shown}");
    }
    // Life goes on, and nothing is left to erase.
    let seat = app.granted(&app.user(&tenant, "carol"), "laptop-of-carol").await;
    app.release(&app.user(&tenant, "carol"), &seat["session_id"]).await.error_for_status().unwrap();
    assert!(matches!(said(&erase).await, (false, why) if why.contains("names user")));
    sealed(&client).await;
    assert!(verify(&app).await.0);
    app.assert_consistent().await;
}

#[tokio::test]
async fn nothing_but_an_erasure_changes_an_event() {
    let app = start().await;
    a_life(&app).await;
    let client = app.superuser().await;
    sealed(&client).await;
    let erased = format!("erased:{}", "x".repeat(43));
    let mut allowed = 0;
    for (change, of, fine) in [
        (format!("user_id = '{erased}'"), "user_id = 'ada-of-acme'", true),
        ("user_id = 'ada-of-acme'".to_owned(), "user_id like 'erased:%'", false),
        (format!("user_id = '{}'", erased.replace('x', "y")), "user_id like 'erased:%'", false),
        ("hardware_id = 'erased:short'".to_owned(), "hardware_id is not null", false),
        ("hardware_id = null".to_owned(), "hardware_id is not null", false),
        (format!("user_id = '{erased}'"), "user_id is null", false),
        (format!("data = data || '{{\"email\": \"{erased}\"}}'"), "data ->> 'email' is not null", true),
        (format!("data = data || '{{\"email\": \"{erased}\"}}'"), "not data ? 'email'", false),
        ("data = data - 'by'".to_owned(), "data ? 'by'", false),
        (format!("data = data || '{{\"reason\": \"{erased}\"}}'"), "type = 'user_added'", false),
        ("data = data || '{\"seats_used\": 7}'".to_owned(), "data ? 'seats_used'", false),
        (format!("hardware_id = '{erased}', occurred_at = now()"), "hardware_id is not null", false),
        ("version = version + 1".to_owned(), "version is not null", false),
        ("request_id = request_id".to_owned(), "true", false),
    ] {
        let matching = format!("select count(*) from events where {of}");
        assert!(client.query_one(&matching, &[]).await.unwrap().get::<_, i64>(0) > 0, "{of}");
        let done = client.execute(&format!("update events set {change} where {of}"), &[]).await;
        assert_eq!(done.is_ok(), fine, "{change} where {of}: {done:?}");
        allowed += u64::from(fine);
    }
    assert_eq!(allowed, 2);
    assert!(client.execute("delete from events where user_id like 'erased:%'", &[]).await.is_err());
    // A commitment that is not the sealed one is found.
    let (good, report) = verify(&app).await;
    assert!(!good && report.contains("FOUND changed"), "{report}");
}
