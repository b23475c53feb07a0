//! The load generator: virtual clients that acquire seats, keep them with heartbeats and release them,
//! and the measurements taken of a server while they do.
//!
//! It shares no code with the service, so that a mistake in the server cannot be repeated here. Two kinds of
//! measurement, which know the service by HTTP alone and answer two questions:
//!
//! - [`bench()`] is **closed loop**: N connections, each sending its next request as soon as the last is
//!   answered. How much can the server do at most?
//! - [`load()`] is **open loop**: requests fall due at fixed times whether or not the server keeps up, and
//!   latency counts from that time. What do clients experience at a given load?
//!
//! And a proof: [`check`] plays clients that crash, repeat and come late, and holds what they were told against the
//! protocol's invariants, the log, the seats table, Redis and the read API.

mod baseline;
mod bench;
pub mod check;
mod cli;
mod crowd;
mod http;
mod issuer;
mod keys;
mod load;
mod plot;
mod process;
mod stand;
mod tally;
mod target;
mod token;
mod usage;

pub use bench::{BenchOptions, bench};
pub use cli::{Cli, Command};
pub use crowd::{Crowd, User};
pub use http::{Answer, Call, Connection, Endpoint};
pub use issuer::Issuer;
pub use load::{Client, Goal, LoadOptions, Next, Report, Run, Scenario, Script, drive, load};
pub use process::{Process, free_port};
pub use stand::{Stand, StandOptions, server_path};
pub use tally::{Outcome, Summary, Tally};
pub use target::{Credential, Target};
pub use token::{Issuing, JwtKey};

/// A new RSA-4096 key for `SIGNING_KEY_FILE`, PKCS#8 PEM.
///
/// # Errors
/// When the key cannot be made.
pub fn signing_key_pem() -> anyhow::Result<String> {
    keys::to_pem(&keys::generate(aws_lc_rs::rsa::KeySize::Rsa4096)?)
}
