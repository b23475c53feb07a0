//! The end of a schedule: all faults are over, and what was promised for then is asked for.

use events::{LicenseChange, Seats};

use super::super::client::Said;
use super::super::replica::{Ask, Replica, What};
use super::{GAP, TTL, World, client, session};
use crate::pool::command::Command;

impl World {
    /// All faults end, all clients fall silent: their seats are free after a TTL, and each replica grants one.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.log_away = false;
        self.gate.up = true;
        self.gate.lying = false;
        for replica in &mut self.replicas {
            replica.frozen = false;
            replica.clock = 0;
        }
        for client in &mut self.clients {
            client.crash();
        }
        self.settle_everything()?;
        // Not in every schedule: a replica that is asked for a seat learns what it had missed.
        if self.rng.bool() {
            self.kept_elsewhere();
            self.everybody_can_have_a_seat(150)?;
        }
        let silent_since = self.now;
        while self.now <= silent_since + 2 * TTL + GAP {
            self.now += GAP / 2;
            self.log.tick(self.now);
            self.reap()?;
        }
        if let Some(session) = self.log.seats.keys().next() {
            let until = self.log.deadline(*session);
            return Err(format!(
                "I8: nobody holds {session} any more, and it does not end (deadline {until:?})"
            ));
        }
        self.everybody_can_have_a_seat(100)
    }

    /// All sessions live on by heartbeats that none of the replicas saw: to those they have lapsed.
    fn kept_elsewhere(&mut self) {
        for _ in 0..5 {
            self.log.tick(self.now);
            self.log.keep_all(self.now);
            self.now += GAP;
        }
        self.log.tick(self.now);
    }

    /// What is under way comes to its end.
    fn settle_everything(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            if let Some(index) = self.replicas.iter().position(Replica::can_begin) {
                self.begin(index);
            } else if self.flights.is_empty() {
                self.replies.clear();
                return Ok(());
            } else {
                self.flight_arrives();
            }
        }
        Err("I8: what is under way does not come to an end".to_owned())
    }

    /// The reaper serves all pools from the seats table, in any replica.
    fn reap(&mut self) -> Result<(), String> {
        if self.log.seats.values().all(|seat| seat.deadline >= self.now) {
            return Ok(());
        }
        self.reaper_acts();
        self.settle_everything()
    }

    /// An acquire succeeds, through each replica.
    fn everybody_can_have_a_seat(&mut self, first: u8) -> Result<(), String> {
        self.log.tenant_active = true;
        let seats = Seats::new((self.log.seats.len() + self.replicas.len()) as i64)
            .map_err(|error| error.to_string())?;
        self.log.change(LicenseChange { seats_total: Some(seats), ..LicenseChange::default() }, self.now);
        for index in 0..self.replicas.len() {
            let newcomer = client(first + index as u8)?;
            self.next_id += 1;
            let id = self.next_id;
            let acquire = Command::Acquire {
                session_id: session(id),
                user_id: newcomer.user_id,
                hardware_id: newcomer.hardware_id,
                machine_name: None,
                key: None,
                renews: None,
            };
            self.replicas[index].inbox.push(Ask { id, client: None, what: What::Decision(acquire) });
            self.grant(index, id)?;
        }
        Ok(())
    }

    fn grant(&mut self, index: usize, id: u64) -> Result<(), String> {
        for _ in 0..200 {
            if let Some(reply) = self.replies.iter().find(|reply| reply.id == id) {
                return match reply.said {
                    Said::Granted(_) => Ok(()),
                    ref other => {
                        Err(format!("I8: replica {index} answers {other:?} although seats are free"))
                    }
                };
            }
            if !self.replicas[index].is_busy() && self.flights.is_empty() {
                self.begin(index);
            } else {
                self.flight_arrives();
            }
        }
        Err(format!("I8: replica {index} does not answer although seats are free"))
    }
}
