//! What goes wrong in a schedule.

use super::super::gate::Mirror;
use super::super::replica::Replica;
use super::{GAP, TTL, World};

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        let index = self.some_replica();
        match self.rng.u8(..10) {
            0 | 1 => {
                self.tally.count("crashes", 1);
                self.replicas[index].crash();
            }
            2 => self.replicas[index].frozen = !self.replicas[index].frozen,
            3 => {
                let client = self.rng.usize(..self.clients.len());
                self.clients[client].crash();
            }
            4 => {
                self.replicas[index].clock =
                    *self.rng.choice(&[-3_600_000, -500, 0, 40, 3_600_000]).unwrap_or(&0);
            }
            5 => self.outage()?,
            6 => self.gate_fault(),
            7 => {
                self.gate.up = !self.gate.up;
                self.replicas.iter_mut().for_each(Replica::doubt_mirror);
            }
            8 => self.gate.lying = !self.gate.lying,
            _ => self.late_duplicate(),
        }
        Ok(())
    }

    /// The log goes away for up to three TTLs, or comes back. After a silence that is no outage yet (the beacon does not
    /// notice it), a steadfast client is back before the next one.
    fn outage(&mut self) -> Result<(), String> {
        self.log_away = !self.log_away;
        if self.log_away {
            self.tally.count("outages", 1);
            self.away_since = self.now;
            self.now += self.rng.i64(1..3 * TTL);
        } else if self.steadfast && self.now - self.away_since <= GAP {
            self.keep_sessions(0)?;
        }
        Ok(())
    }

    fn gate_fault(&mut self) {
        match self.rng.u8(..4) {
            0 => self.gate.mirror = Mirror::default(),
            1 => self.gate.saved = self.gate.mirror.clone(),
            2 => self.gate.mirror = self.gate.saved.clone(),
            _ => self.gate.clock = *self.rng.choice(&[-3_600_000, 0, 3_600_000]).unwrap_or(&0),
        }
    }

    /// A request of long ago arrives once more.
    fn late_duplicate(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let which = self.rng.usize(..self.sent.len());
        let ask = self.fresh(self.sent[which].clone());
        let index = self.some_replica();
        self.replicas[index].inbox.push(ask);
    }
}
