//! A token of one tenant learns nothing of another, on any route of the OpenAPI document: what belongs to another tenant
//! answers, byte for byte, as what does not exist.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{TestApp, start};

/// Ids of things that are there, or of nothing.
struct Ids {
    tenant: String,
    license: String,
    session: String,
    user: String,
    event: String,
}

impl Ids {
    fn of_nothing() -> Self {
        let id = || uuid::Uuid::now_v7().to_string();
        Self { tenant: id(), license: id(), session: id(), user: id(), event: id() }
    }

    async fn of_a_tenant(app: &TestApp) -> (Value, Self) {
        let tenant = app.tenant(2).await;
        let victim = app.user(&tenant, "victim");
        let held = app.granted(&victim, "laptop-of-victim").await;
        let event = app.events(&tenant).await.pop().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = Self {
            tenant: text(&tenant["id"]),
            license: text(&tenant["license_id"]),
            session: text(&held["session_id"]),
            user: "victim".to_owned(),
            event: text(&event["event_id"]),
        };
        (tenant, ids)
    }

    fn path(&self, pattern: &str) -> String {
        let filled = pattern
            .replace("{tenant_id}", &self.tenant)
            .replace("{license_id}", &self.license)
            .replace("{session_id}", &self.session)
            .replace("{user_id}", &self.user)
            .replace("{event_id}", &self.event);
        assert!(!filled.contains('{'), "a parameter that this test does not know: {filled}");
        filled
    }
}

/// Status and body, without what differs between any two requests.
async fn answer(app: &TestApp, method: &Method, path: &str, token: &str) -> (u16, String) {
    let request = app.http.request(method.clone(), format!("{}{path}", app.url())).bearer_auth(token);
    let request = request.header("X-Request-Id", "the-same-one");
    let request = match *method {
        Method::GET | Method::DELETE => request,
        _ => request.json(&json!({ "name": "New", "session_id": path.len(), "email": "x@example.com" })),
    };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn operations(app: &TestApp) -> Vec<(Method, String)> {
    let document: Value = app.get("/openapi.json", "").await.json().await.unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { panic!("{method}") };
            all.push((method, path.clone()));
        }
    }
    all
}

#[tokio::test]
async fn a_foreign_tenant_answers_as_none() {
    let app = start().await;
    let ((tenant, own), (_, foreign), nothing) =
        (Ids::of_a_tenant(&app).await, Ids::of_a_tenant(&app).await, Ids::of_nothing());
    let under_a_tenant: Vec<_> =
        operations(&app).await.into_iter().filter(|(_, path)| path.contains("{tenant_id}")).collect();
    assert!(under_a_tenant.len() >= 15, "{under_a_tenant:?}");
    for (method, pattern) in &under_a_tenant {
        for role in ["none", "tenant_admin", "auditor", "analyst"] {
            let token = app.role(&tenant, role);
            let there = answer(&app, method, &foreign.path(pattern), &token).await;
            let nowhere = answer(&app, method, &nothing.path(pattern), &token).await;
            assert_eq!(there, nowhere, "{role}: {method} {pattern}");
            assert!(there.0 == 404 && there.1.contains("tenant_not_found"), "{method} {pattern}: {there:?}");
            // Another's thing under the own tenant's path is not there either.
            if pattern.matches('{').count() > 1 {
                let smuggled =
                    Ids { tenant: own.tenant.clone(), user: nothing.user.clone(), ..Ids::of_nothing() };
                let mixed = Ids {
                    tenant: own.tenant.clone(),
                    license: foreign.license.clone(),
                    session: foreign.session.clone(),
                    event: foreign.event.clone(),
                    user: nothing.user.clone(),
                };
                let there = answer(&app, method, &mixed.path(pattern), &token).await;
                let nowhere = answer(&app, method, &smuggled.path(pattern), &token).await;
                assert_eq!(there, nowhere, "{role}: {method} {pattern}");
                assert_eq!(there.0, 404, "{role}: {method} {pattern}: {there:?}");
            }
        }
    }
    // Nothing was changed by trying.
    let types = app.event_types(&json!({ "id": foreign.tenant })).await;
    assert!(!types.iter().any(|name| name.contains("updated") || name.contains("revoked")), "{types:?}");
}

#[tokio::test]
async fn a_foreign_session_answers_as_none() {
    let app = start().await;
    let (tenant, _) = Ids::of_a_tenant(&app).await;
    let (_, foreign) = Ids::of_a_tenant(&app).await;
    let mallory = app.user(&tenant, "victim");
    for act in ["heartbeat", "release"] {
        let body = async |session: &str| {
            let request = app.http.post(format!("{}/api/v1/licenses/{act}", app.url())).bearer_auth(&mallory);
            let request =
                request.header("X-Request-Id", "the-same-one").json(&json!({ "session_id": session }));
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let there = body(&foreign.session).await;
        assert_eq!(there, body(&uuid::Uuid::now_v7().to_string()).await);
        assert_eq!(there.0, 404);
    }
}
