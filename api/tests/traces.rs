//! Traces as a collector gets them: one of each acquire, from the edge to gate, append and signature.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::config::{LogFormat, TelemetryConfig, TokenFormat};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use poem::{Endpoint, IntoResponse, Request, Response, Server};
use prost::Message;
use serde_json::json;
use support::{Settings, TestApp};

/// An OpenTelemetry collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Endpoint for Collector {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        assert_eq!(request.uri().path(), "/v1/traces");
        let body = request.take_body().into_bytes().await?;
        let sent = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(().into_response())
    }
}

/// All spans by their id.
struct Spans(HashMap<Vec<u8>, Span>);

impl Spans {
    fn of_trace(&self, trace: &[u8]) -> Vec<&Span> {
        self.0.values().filter(|span| span.trace_id == trace).collect()
    }

    /// The names from a span up to the one whose parent nobody sent, and that parent's id.
    fn chain(&self, span: &Span) -> (Vec<String>, Vec<u8>) {
        let (mut names, mut here) = (vec![span.name.clone()], span);
        while let Some(parent) = self.0.get(&here.parent_span_id) {
            assert_eq!(parent.trace_id, here.trace_id, "a child is of its parent's trace");
            names.push(parent.name.clone());
            here = parent;
        }
        (names, here.parent_span_id.clone())
    }

    /// The spans below one.
    fn below(&self, top: &Span) -> Vec<String> {
        let inside = |span: &&Span| {
            let mut here = *span;
            while let Some(parent) = self.0.get(&here.parent_span_id) {
                if parent.span_id == top.span_id {
                    return true;
                }
                here = parent;
            }
            false
        };
        self.0.values().filter(inside).map(|span| span.name.clone()).collect()
    }
}

/// One acquire under a trace that its client began.
async fn acquire(app: &TestApp, user: &str, trace: u128) {
    let url = format!("{}/api/v1/licenses/acquire", app.url());
    let request = app.http.post(url).bearer_auth(user).json(&json!({ "hardware_id": "machine-0001" }));
    let answer = request.header("traceparent", format!("00-{trace:032x}-{CLIENT:016x}-01")).send().await;
    assert_eq!(answer.unwrap().status(), 200);
}

/// The client's span.
const CLIENT: u64 = 0x00f0_67aa_0ba9_02b7;

const ALONE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const TOGETHER: u128 = 0x1000;
const CLIENTS: u128 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_is_one_trace_from_edge_to_gate_append_and_signature() {
    let collector = Collector::default();
    let (acceptor, address) = api::app::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    tokio::spawn(Server::new_with_acceptor(acceptor).run(collector.clone()));
    let telemetry = api::telemetry::start(&TelemetryConfig {
        log_format: LogFormat::Text,
        rust_log: "warn".to_owned(),
        otel_exporter_otlp_endpoint: Some(format!("http://{address}")),
    });
    let telemetry = telemetry.unwrap();
    let mut app = TestApp::start(Settings { replicas: 0, ..Settings::default() }).await;
    app.config.signing.token_format = TokenFormat::Batch;
    app.add_replica().await;
    let tenant = app.tenant(100).await;
    acquire(&app, &app.user(&tenant, "alice"), ALONE).await;
    app.granted(&app.user(&tenant, "bob"), "machine-0001").await;
    let users: Vec<_> = (0..CLIENTS).map(|n| app.user(&tenant, &format!("user-{n}"))).collect();
    futures_util::future::join_all(users.iter().zip(0..).map(|(user, n)| acquire(&app, user, TOGETHER + n)))
        .await;
    // Sends what is left.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();
    let spans = collector.0.lock().unwrap().iter().map(|span| (span.span_id.clone(), span.clone())).collect();
    let spans = Spans(spans);

    alone(&spans);
    unnamed(&spans);
    together(&spans);
}

/// Everything of an acquire is in the trace that its client began, each part below the one that caused it.
fn alone(spans: &Spans) {
    let trace = spans.of_trace(&ALONE.to_be_bytes());
    let chain = |name: &str| -> Vec<String> {
        let found: Vec<_> = trace.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {trace:?}");
        let (names, client) = spans.chain(found[0]);
        assert_eq!(client, CLIENT.to_be_bytes(), "{name} leads to the client's own span");
        names
    };
    assert_eq!(chain("edge"), ["edge"]);
    assert_eq!(chain("batch"), ["batch", "edge"]);
    assert_eq!(chain("statement")[..2], ["statement", "append"]);
    assert_eq!(chain("signature"), ["signature", "sign", "edge"]);
    for name in ["gate", "append"] {
        let below_batch = trace.iter().filter(|span| span.name == name).any(|span| {
            let (names, client) = spans.chain(span);
            names == [name, "batch", "edge"] && client == CLIENT.to_be_bytes()
        });
        assert!(below_batch, "{name} in {trace:?}");
    }
}

/// A client that names no trace gets one.
fn unnamed(spans: &Spans) {
    let roots = spans.0.values().filter(|span| span.name == "edge" && span.parent_span_id.is_empty());
    assert!(roots.clone().count() >= 2, "the tenant's and bob's requests at least");
    assert!(roots.into_iter().all(|span| span.trace_id.len() == 16 && span.trace_id != [0; 16]));
}

/// A gate call, an append and a signature that served several are in one trace, and the others are linked to them.
fn together(spans: &Spans) {
    let mut linked = 0;
    for n in 0..CLIENTS {
        let trace = spans.of_trace(&(TOGETHER + n).to_be_bytes());
        let one = |name: &str| *trace.iter().find(|span| span.name == name).unwrap();
        let (edge, sign) = (one("edge"), one("sign"));
        let reached = |span: &Span| {
            let links = span.links.iter().filter_map(|link| spans.0.get(&link.span_id));
            let mut names = spans.below(span);
            for span in links {
                linked += usize::from(span.trace_id != edge.trace_id);
                names.push(span.name.clone());
                names.extend(spans.below(span));
            }
            names
        };
        let mut reached = reached;
        let (of_edge, of_sign) = (reached(edge), reached(sign));
        for name in ["batch", "gate", "append"] {
            assert!(of_edge.iter().any(|found| found == name), "{name} from {edge:?}: {of_edge:?}");
        }
        assert!(of_sign.iter().any(|found| found == "signature"), "{sign:?}");
    }
    assert!(linked > 0, "nothing was shared");
}
