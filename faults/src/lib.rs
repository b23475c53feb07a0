//! The fault suite: Postgres, Redis, an issuer and several replicas of the real binary, as processes of this machine,
//! with a proxy on every way between them; something that is broken while clients play; and the checker's verdict.
//!
//! No code is shared with the service: it is what `coditect-license serve` does that counts. A test is a [`Trial`]: it
//! starts a [`Stand`], lets the checker's clients play, breaks something in a way of its own, heals it, and fails
//! unless all invariants held **and** the fault really happened.

mod account;
mod clock;
mod proxy;
mod redis;
mod replica;
mod stand;
mod table;
mod trial;

pub use account::{Account, Answer};
pub use clock::FakeClock;
pub use proxy::{Proxy, Upstream};
pub use redis::RedisClient;
pub use replica::{Replica, port, server_binary};
pub use stand::{Prepare, Stand, StandOptions};
pub use table::{Line, forget, print};
pub use trial::{Seen, Trial};
