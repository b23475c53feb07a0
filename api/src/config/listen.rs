//! The edge: addresses, limits, what it reports.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Addresses.
#[derive(Debug, Clone, Args)]
pub struct ListenConfig {
    /// HTTP
    #[arg(long, env, default_value = "127.0.0.1:8000")]
    pub listen_addr: SocketAddr,
    /// Prometheus
    #[arg(long, env, default_value = "127.0.0.1:9000")]
    pub metrics_addr: SocketAddr,
    /// Seconds that work in hand may take after SIGTERM
    #[arg(long, env, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub shutdown_grace_seconds: u32,
    /// Origins that browsers may call from, comma separated
    #[arg(long, env, value_delimiter = ',', value_parser = super::http_url)]
    pub cors_allowed_origins: Vec<String>,
}

impl ListenConfig {
    /// How long work in hand may take after SIGTERM.
    #[must_use]
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds.into())
    }
}

/// Requests that one caller may make; each replica counts for itself.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitConfig {
    /// Requests of one user a minute; 0: no limit
    #[arg(long, env, default_value_t = 600)]
    pub rate_limit_per_user_per_minute: u32,
    /// Requests of one tenant a second; 0: no limit
    #[arg(long, env, default_value_t = 5_000)]
    pub rate_limit_per_tenant_per_second: u32,
}

impl LimitConfig {
    /// `None`: no limit.
    #[must_use]
    pub fn per_user_per_minute(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.rate_limit_per_user_per_minute)
    }

    /// `None`: no limit.
    #[must_use]
    pub fn per_tenant_per_second(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.rate_limit_per_tenant_per_second)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Logs and traces.
#[derive(Debug, Clone, Args)]
pub struct TelemetryConfig {
    /// How log lines look
    #[arg(long, env, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged, as tracing's filter directives
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
    /// OpenTelemetry collector (OTLP over HTTP) that traces go to; left out: none are made
    #[arg(long, env)]
    pub otel_exporter_otlp_endpoint: Option<String>,
}
