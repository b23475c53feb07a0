//! One named test a fault. `make faults` runs them all and prints a table; `make test` runs those that are not ignored.
//!
//! Each starts processes of its own and plays some seconds, so nothing is shared but the machine.
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

mod network;
mod outages;
mod overload;
mod postgres;
mod redis;
mod redis_cluster;
mod replicas;
mod upgrade;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLIS: Duration = Duration::from_millis(1);
