//! Where the log and its mirror are.

use clap::Args;

/// Postgres.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// Postgres: `postgres://user@host/database`, TCP or unix socket (`?host=/path`); TLS by `sslmode`
    #[arg(long, env, hide_env_values = true, value_parser = postgres_url)]
    pub database_url: String,
}

/// What the database's own client will read later on.
fn postgres_url(text: &str) -> Result<String, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        Ok(text.to_owned())
    } else {
        Err("it must begin with postgres://".to_owned())
    }
}

/// Redis.
#[derive(Debug, Clone, Args)]
pub struct RedisConfig {
    /// Redis: `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`, or `redis+unix:///path`
    #[arg(long, env, hide_env_values = true, value_parser = redis_url)]
    pub redis_url: String,
}

fn redis_url(text: &str) -> Result<String, String> {
    let schemes = [
        "redis",
        "rediss",
        "redis-cluster",
        "rediss-cluster",
        "redis-sentinel",
        "rediss-sentinel",
        "redis+unix",
        "unix",
    ];
    super::url(text, &schemes)
}
