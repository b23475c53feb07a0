//! Time, and who keeps up with it.

use uuid::Uuid;

use super::super::client::Held;
use super::{GAP, TTL, World};
use crate::writer::Job;

impl World {
    /// Time passes for everybody. Whoever is steadfast sees to its session first.
    pub(super) fn time_passes(&mut self) -> Result<(), String> {
        let most = if self.steadfast { TTL / 3 } else { 2 * TTL };
        let by = self.rng.i64(1..most);
        if self.steadfast && !self.log_away {
            self.keep_sessions(by)?;
        }
        if !self.log_away && self.rng.u8(..8) > 0 {
            self.log.tick(self.now);
        }
        self.now += by;
        if !self.log_away && by <= GAP && self.rng.u8(..8) > 0 {
            self.log.tick(self.now);
        }
        Ok(())
    }

    /// Heartbeats that reach the log at once, of all sessions that would else end before the next chance.
    pub(super) fn keep_sessions(&mut self, by: i64) -> Result<(), String> {
        for index in 0..self.clients.len() {
            let Some(held) = self.clients[index].held else { continue };
            if held.until > self.now + by + TTL / 3 {
                continue;
            }
            let beat = events::HeartbeatWrite {
                event_id: Uuid::now_v7(),
                stream_id: self.log.stream_id,
                session_id: held.session,
                user_id: self.clients[index].user_id.clone(),
                request_id: None,
                key: None,
            };
            let job = Job { heartbeats: vec![beat], ..Job::default() };
            let appended = self.log.append(&job, self.now);
            let lost = appended.refused.iter().any(|one| matches!(one, events::Refused::Missing { .. }));
            if lost && !self.given_up.contains(&held.session) {
                return Err(format!("rule 7: {} kept {} alive, and lost it", index, held.session));
            }
            if appended.refused.is_empty() {
                self.clients[index].held = Some(Held { until: self.now + TTL, ..held });
            }
        }
        Ok(())
    }

    pub(super) fn log_ticks(&mut self) {
        if !self.log_away {
            self.log.tick(self.now);
        }
    }
}
