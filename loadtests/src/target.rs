//! A server under measurement: where it is, and how its three client endpoints are asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::crowd::User;
use crate::http::{Call, Endpoint};

/// Where a request carries its token. The contract allows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer …`
    Header,
    /// `jwt_token` in the body, beside `user_id`.
    Body,
}

/// A server and the way to ask it.
pub struct Target {
    /// Where it listens.
    pub endpoint: Endpoint,
    credential: Credential,
    /// Sets this run's machines apart from those of any other run against the same server.
    run: u64,
    machines: AtomicU64,
}

impl Target {
    /// A server at this endpoint.
    pub fn new(endpoint: Endpoint, credential: Credential) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = since_epoch.as_millis() as u64 & 0xffff_ffff;
        Self { endpoint, credential, run, machines: AtomicU64::new(0) }
    }

    /// A machine that nobody has named before, so that an acquire from it is a grant and not a renewal.
    pub fn new_machine(&self) -> String {
        let n = self.machines.fetch_add(1, Ordering::Relaxed);
        format!("load-{:08x}-{n:08x}", self.run)
    }

    /// A seat for this user on this machine.
    pub fn acquire(&self, user: &User, hardware_id: &str) -> Call {
        const PATH: &str = "/api/v1/licenses/acquire";
        match self.credential {
            Credential::Header => {
                let body = format!(r#"{{"hardware_id":"{hardware_id}"}}"#);
                Call::post(PATH, Some(user.authorization.clone()), body)
            }
            Credential::Body => {
                let body = json!({"user_id": user.id, "hardware_id": hardware_id, "jwt_token": user.token});
                Call::post(PATH, None, body.to_string())
            }
        }
    }

    /// A sign of life.
    pub fn heartbeat(&self, user: &User, session_id: &str) -> Call {
        self.session("/api/v1/licenses/heartbeat", user, session_id)
    }

    /// The seat goes back.
    pub fn release(&self, user: &User, session_id: &str) -> Call {
        self.session("/api/v1/licenses/release", user, session_id)
    }

    fn session(&self, path: &'static str, user: &User, session_id: &str) -> Call {
        match self.credential {
            Credential::Header => {
                let body = format!(r#"{{"session_id":"{session_id}"}}"#);
                Call::post(path, Some(user.authorization.clone()), body)
            }
            Credential::Body => {
                let body = json!({"session_id": session_id, "jwt_token": user.token});
                Call::post(path, None, body.to_string())
            }
        }
    }
}
