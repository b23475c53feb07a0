//! Private Postgres and Redis for development and tests: found, started, ended.
//!
//! [`Postgres`] and [`Redis`] are one server each, in a directory of the caller's choice, reached over a unix socket. They can be
//! frozen, killed and started again, and they end with the value that stands for them; if the whole process is killed, the kernel ends them.
//! [`TestEngines`] gives every test an empty database of its own. The binary `engines` starts both around a command.
//!
//! Linux only: the processes of a server are found in `/proc`, and `setpriv` drops privileges and asks for the death signal.
//! The crate knows no other crate of this workspace.

mod find;
mod keeper;
mod launch;
mod layout;
mod postgres;
mod processes;
mod redis;
mod running;
mod scratch;
mod signal;
mod test_engines;
mod user;

pub use find::{Found, find_postgres, find_redis};
pub use postgres::{Postgres, PostgresOptions};
pub use processes::{descendants, end_tree};
pub use redis::{Redis, RedisOptions};
pub use scratch::Scratch;
pub use signal::Signal;
pub use test_engines::{TestDatabase, TestEngines};
