//! What is measured, and over which tenants.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A new session, with its signature.
    Acquire,
    /// A sign of life for a live session.
    Heartbeat,
    /// A live session's end.
    Release,
    /// An acquire from a pool that is full.
    Refused,
}

impl Work {
    /// The status that makes it a success.
    pub fn expected_status(self) -> u16 {
        match self {
            Self::Acquire | Self::Heartbeat | Self::Release => 200,
            Self::Refused => 409,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Acquire => "acquire",
            Self::Heartbeat => "heartbeat",
            Self::Release => "release",
            Self::Refused => "refused",
        })
    }
}

/// Where the load falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Over all tenants, on all connections.
    Spread,
    /// On one tenant, on all connections.
    Hot,
    /// Over all tenants, on a single connection.
    Alone,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Measurement {
    /// What is asked.
    pub work: Work,
    /// Of whom.
    pub shape: Shape,
}

impl Measurement {
    /// Everything, in an order in which each kind of work leaves behind what the next one needs: acquires
    /// make the sessions that are kept alive and then released.
    pub fn all() -> Vec<Self> {
        let line = |work, shape| Self { work, shape };
        vec![
            line(Work::Acquire, Shape::Spread),
            line(Work::Acquire, Shape::Alone),
            line(Work::Heartbeat, Shape::Spread),
            line(Work::Heartbeat, Shape::Alone),
            line(Work::Release, Shape::Spread),
            line(Work::Acquire, Shape::Hot),
            line(Work::Heartbeat, Shape::Hot),
            line(Work::Release, Shape::Hot),
            line(Work::Refused, Shape::Spread),
            line(Work::Refused, Shape::Hot),
        ]
    }
}
