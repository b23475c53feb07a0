//! Who decides.
//!
//! Each license pool is an actor that serializes its seat decisions: it folds the pool's events ([`PoolState`]), decides
//! with a pure function ([`decide`]), asks the gate in Redis, and writes on condition that nobody else has written since
//! the state it decided on. Only committed events are answered. This crate owns `lua/`; it alone speaks Redis and ractor.

mod clock;
mod fail_point;
mod gate;
mod pool;
mod reaper;
mod registry;
#[cfg(test)]
mod simulation;
mod supervisor;
mod tenants;
mod writer;

pub use clock::PostgresClock;
pub use gate::Gate;
pub use pool::batch::Preview;
pub use pool::command::{Answer, Command, Grant, Reason};
pub use pool::decide::{Proposed, Refusal, decide};
pub use pool::state::{PoolState, Session};
pub use reaper::reap;
pub use registry::{AcquireSeat, NoAnswer, Pools, Request};
pub use tenants::{AddUser, AdminRefusal, Members, NewTenant, NewUser, TenantState, Tenants};
pub use writer::{Job, Signing, Writer};
