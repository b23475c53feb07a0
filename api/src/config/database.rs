//! Where the log and its mirror are.

use clap::Args;

/// Postgres.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// Postgres: `postgres://user@host/database`, TCP or unix socket (`?host=/path`); TLS by `sslmode`
    #[arg(long, env, hide_env_values = true)]
    pub database_url: String,
}

/// Redis.
#[derive(Debug, Clone, Args)]
pub struct RedisConfig {
    /// Redis: `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`, or `redis+unix:///path`
    #[arg(long, env, hide_env_values = true)]
    pub redis_url: String,
}
