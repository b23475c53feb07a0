//! What the service tells of itself: logs, metrics with their help and units, traces.
//!
//! An acquire is one trace: `edge`, under it `batch` with `gate` and `append`, and `sign`. A batch, a statement and a
//! shared signature serve several requests at once: each is a child of the first's span, and the others' spans are
//! linked to it, so that no trace claims for itself alone what it shared.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use poem::http::HeaderMap;
use tracing::Level;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogFormat, TelemetryConfig};

/// Upper bounds of the duration buckets, in seconds: from a call within the machine to a request's longest time.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the batch buckets, in events.
const EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0];

/// Crates whose spans are traces.
const TRACED: [&str; 5] = ["api", "actors", "events", "projections", "coditect_license"];

/// Flushes what is left of the traces when it is dropped.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown();
        }
    }
}

/// Logs to standard error, and traces where configured.
///
/// # Errors
/// When a filter or the collector's address cannot be used.
pub fn start(config: &TelemetryConfig) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&config.rust_log).context("RUST_LOG")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed()
        }
        LogFormat::Text => lines.boxed(),
    };
    let traces = config.otel_exporter_otlp_endpoint.as_deref().map(exporter).transpose()?;
    let spans = traces.as_ref().map(|traces| {
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer("coditect-license"));
        // Ours alone: libraries have spans of their own.
        layer.with_filter(Targets::new().with_targets(TRACED.map(|name| (name, Level::INFO)))).boxed()
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init()?;
    Ok(Telemetry { traces })
}

/// A span goes on the trace that the caller named (W3C Trace Context), if it named one.
pub(crate) fn continue_trace(span: &tracing::Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // Without a collector there are no traces to go on.
        let _ = span.set_parent(parent);
    }
}

/// A request's headers, as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name("coditect-license").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Serves `/metrics` on an address of its own.
///
/// # Errors
/// When the address is taken.
pub fn serve_metrics(address: SocketAddr) -> anyhow::Result<()> {
    let (recorder, exporter) = builder()?
        .with_http_listener(address)
        .build()
        .with_context(|| format!("METRICS_ADDR: cannot listen on {address}"))?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| anyhow::anyhow!("metrics were started twice"))?;
    describe();
    tokio::spawn(exporter);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            handle.run_upkeep();
        }
    });
    Ok(())
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), EVENTS)?)
}

/// The contract's metrics, each with its help; those that nothing has touched yet show as zero.
fn describe() {
    describe_counter!("license_http_requests_total", "HTTP requests answered.");
    describe_histogram!(
        "license_http_request_duration_seconds",
        Unit::Seconds,
        "Time to answer an HTTP request."
    );
    describe_counter!("license_seat_decisions_total", "Seat decisions that were committed.");
    describe_gauge!(
        "license_sessions_active",
        "Live sessions of the whole system: take the maximum over replicas."
    );
    describe_gauge!("license_pool_actors", "Pools with a live actor in this replica.");
    describe_counter!("license_actor_restarts_total", "Actors started again after a failure.");
    describe_histogram!(
        "license_event_append_duration_seconds",
        Unit::Seconds,
        "Time of one append statement."
    );
    describe_histogram!("license_event_append_batch_size", "Events of one append statement.");
    describe_counter!("license_events_appended_total", "Events written by this replica.");
    describe_counter!("license_append_conflicts_total", "Pools refused because another writer was faster.");
    describe_gauge!("license_redis_up", "1 while Redis answers; 0: decisions are made without the gate.");
    describe_histogram!("license_redis_call_duration_seconds", Unit::Seconds, "Time of one script call.");
    describe_gauge!("license_postgres_up", "1 while Postgres answers; 0: requests are answered 503.");
    describe_gauge!("license_notary_checkpoint", "Number of the latest checkpoint that this replica sealed.");
    describe_counter!("license_notary_tenants_sealed_total", "Heads of tenants that were sealed.");
    describe_counter!("license_mirror_repairs_total", "Mirrors in Redis that were written from the log.");
    describe_histogram!(
        "license_signature_duration_seconds",
        Unit::Seconds,
        "Time of one signature, which serves one license token or, with TOKEN_FORMAT=batch, many."
    );
    describe_histogram!("license_signature_batch_size", "License tokens under one signature.");
    describe_counter!(
        "license_signature_failures_total",
        "License tokens, checkpoints and certificates that got no signature."
    );
    describe_gauge!(
        "license_projection_lag_events",
        "Events that a projection has not folded yet, counted up to 100,000; heartbeats are none of them."
    );
    describe_gauge!(
        "license_projection_lag_seconds",
        "Age of the oldest event that a projection has not folded; one long write transaction anywhere in the cluster holds it back."
    );
    for decision in ["granted", "renewed", "denied", "released", "expired", "revoked"] {
        metrics::counter!("license_seat_decisions_total", "decision" => decision).absolute(0);
    }
    for counter in
        ["license_actor_restarts_total", "license_append_conflicts_total", "license_mirror_repairs_total"]
    {
        metrics::counter!(counter).absolute(0);
    }
    metrics::gauge!("license_pool_actors").set(0.0);
}
