//! The scenarios: how many clients, how many requests a second, of whom, and what they do.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::client::Script;

/// The built-in scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// 100 users: acquire, 3 heartbeats, release; 1,000 requests a minute for 10 minutes.
    Plan,
    /// Monday morning: 10,000 clients acquire within 60 s, then send a heartbeat, then release.
    Monday,
    /// 10,000 sessions are there and kept alive, with the heartbeats of 300,000.
    Steady,
    /// All clients belong to one tenant.
    HotTenant,
    /// 10,000 tenants of one client each.
    SmallTenants,
    /// 1,000 clients besiege a pool of 100 seats.
    FullPool,
    /// The plan's script at 6 times its rate, for an hour; watch memory and latency over time.
    Soak,
}

/// A scenario with all its numbers.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Virtual clients. The n-th request of all is the turn of client n modulo this, so each has its own
    /// fixed times, clients/rate apart.
    pub clients: usize,
    /// Requests a second, of all clients together.
    pub rate: f64,
    /// For how long requests fall due.
    pub duration: Duration,
    /// Over how many tenants the clients are spread.
    pub tenants: usize,
    /// Seats of each tenant's pool.
    pub seats: u32,
    /// What each client does.
    pub script: Script,
    /// Whether every client holds a session before the measurement begins.
    pub sessions_first: bool,
    /// What must be reached.
    pub goal: Goal,
}

/// The limits of a good run, over all requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Goal {
    /// 99 of 100 requests are faster.
    pub p99_ms: f64,
    /// Fewer than this part fail.
    pub error_rate: f64,
}

/// The plan's goal, and a fair one for the others.
const GOAL: Goal = Goal { p99_ms: 500.0, error_rate: 0.01 };
const CYCLE: Script = Script { heartbeats: Some(3), refusals_expected: false };
const PLENTY_OF_SEATS: u32 = 1_000_000;

impl ScenarioName {
    /// The scenario at its full size.
    pub fn scenario(self) -> Scenario {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let plan = Scenario {
            name,
            clients: 100,
            rate: 1_000.0 / 60.0,
            duration: Duration::from_secs(600),
            tenants: 10,
            seats: PLENTY_OF_SEATS,
            script: CYCLE,
            sessions_first: false,
            goal: GOAL,
        };
        match self {
            Self::Plan => plan,
            Self::Monday => Scenario {
                clients: 10_000,
                // One round of all clients in 60 s; three rounds: acquire, heartbeat, release.
                rate: 10_000.0 / 60.0,
                duration: Duration::from_secs(180),
                tenants: 100,
                script: Script { heartbeats: Some(1), ..CYCLE },
                ..plan
            },
            Self::Steady => Scenario {
                clients: 10_000,
                rate: 1_000.0,
                duration: Duration::from_secs(120),
                tenants: 100,
                script: Script { heartbeats: None, ..CYCLE },
                sessions_first: true,
                ..plan
            },
            Self::HotTenant => Scenario {
                clients: 1_000,
                rate: 500.0,
                duration: Duration::from_secs(120),
                tenants: 1,
                ..plan
            },
            Self::SmallTenants => Scenario {
                clients: 10_000,
                rate: 500.0,
                duration: Duration::from_secs(120),
                tenants: 10_000,
                seats: 5,
                ..plan
            },
            Self::FullPool => Scenario {
                clients: 1_000,
                rate: 500.0,
                duration: Duration::from_secs(120),
                tenants: 1,
                seats: 100,
                script: Script { refusals_expected: true, ..CYCLE },
                ..plan
            },
            Self::Soak => Scenario {
                clients: 1_000,
                rate: 100.0,
                duration: Duration::from_secs(3_600),
                tenants: 100,
                ..plan
            },
        }
    }
}

impl Scenario {
    /// How many requests fall due.
    pub fn requests(&self) -> u64 {
        (self.rate * self.duration.as_secs_f64()).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_ten_thousand_requests_in_ten_minutes() {
        let plan = ScenarioName::Plan.scenario();
        assert_eq!((plan.name.as_str(), plan.clients, plan.requests()), ("plan", 100, 10_000));
    }

    #[test]
    fn monday_is_every_client_once_a_minute() {
        let monday = ScenarioName::Monday.scenario();
        assert_eq!(monday.requests(), 30_000);
        assert!((monday.clients as f64 / monday.rate - 60.0).abs() < 1e-9);
    }
}
