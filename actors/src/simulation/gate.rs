//! The gate in memory: what the Lua scripts do, unless it lies, forgets, or is away.

use std::collections::BTreeMap;

use events::SessionId;

use super::world::TTL;
use crate::gate::Pass;

/// A mirror of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    pub known: bool,
    pub limit: u32,
    pub version: i64,
    /// Session -> holder, deadline by the gate's clock.
    pub seats: BTreeMap<SessionId, (String, i64)>,
}

/// Redis.
#[derive(Debug, Default)]
pub struct Gate {
    pub mirror: Mirror,
    /// What a restart would bring back.
    pub saved: Mirror,
    pub up: bool,
    /// Answers anything.
    pub lying: bool,
    /// How far its clock is ahead.
    pub clock: i64,
    pub repairs: u64,
    pub lies: u64,
}

impl Gate {
    /// `acquire_seat.lua`; `None`: no answer or an unknown pool.
    pub fn acquire(
        &mut self,
        requests: &[(SessionId, String)],
        now: i64,
        rng: &mut fastrand::Rng,
    ) -> Option<Vec<Pass>> {
        if !self.up || !self.mirror.known {
            return None;
        }
        if self.lying {
            self.lies += 1;
            let any = self.mirror.seats.keys().next().copied();
            return Some(
                requests
                    .iter()
                    .map(|(session, _)| match rng.u8(..3) {
                        0 => Pass::Granted,
                        1 => Pass::Full,
                        _ => Pass::Held(any.unwrap_or(*session)),
                    })
                    .collect(),
            );
        }
        let now = now + self.clock;
        let mut passes = Vec::new();
        for (session, holder) in requests {
            let held = self.mirror.seats.iter().find(|(_, (of, until))| of == holder && *until > now);
            let live = self.mirror.seats.values().filter(|(_, until)| *until > now).count();
            passes.push(if let Some((held, _)) = held {
                Pass::Held(*held)
            } else if live >= self.mirror.limit as usize {
                Pass::Full
            } else {
                self.mirror.seats.insert(*session, (holder.clone(), now + TTL));
                Pass::Granted
            });
        }
        Some(passes)
    }

    /// `extend_ttl.lua`.
    pub fn extend(&mut self, session: SessionId, now: i64) {
        if self.up
            && let Some((_, until)) = self.mirror.seats.get_mut(&session)
        {
            *until = (*until).max(now + self.clock + TTL);
        }
    }

    /// `release_seat.lua`.
    pub fn release(&mut self, sessions: impl Iterator<Item = SessionId>) {
        for session in sessions {
            if self.up {
                self.mirror.seats.remove(&session);
            }
        }
    }

    /// `sync_pool.lua`, by force: the caller has read the log.
    pub fn sync(
        &mut self,
        version: i64,
        limit: u32,
        seats: impl Iterator<Item = (SessionId, String, i64)>,
        now: i64,
    ) {
        if self.up {
            self.repairs += 1;
            let seats = seats.map(|(id, holder, remaining)| (id, (holder, now + self.clock + remaining)));
            self.mirror = Mirror { known: true, limit, version, seats: seats.collect() };
        }
    }
}
