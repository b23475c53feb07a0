//! What is shown: read models folded from the log. This crate knows the log, and never sees an actor.
//!
//! Delivery: a projection writes its rows and its cursor in one transaction, under a lock that one runner of all
//! replicas holds; what is read twice changes nothing.

mod runner;
mod tenants;

pub use runner::run;
pub use tenants::TenantList;
