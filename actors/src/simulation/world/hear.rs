//! What clients hear, and whether it is true.

use super::super::client::{Kind, Said};
use super::super::replica::{Ask, Reply};
use super::World;
use crate::pool::command::Command;

impl World {
    pub(super) fn reply_arrives(&mut self) -> Result<(), String> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let which = self.rng.usize(..self.replies.len());
        let reply = self.replies.swap_remove(which);
        if self.rng.u8(..15) == 0 {
            return Ok(());
        }
        self.hear(&reply)
    }

    /// A client hears an answer; what it says must be true.
    fn hear(&mut self, reply: &Reply) -> Result<(), String> {
        if let Said::Granted(session) | Said::Renewed(session) = &reply.said
            && !self.log.granted.contains(session)
        {
            return Err(format!("I3: {session} was answered and never written"));
        }
        let Some(index) = reply.client else { return Ok(()) };
        let keyed = self.clients[index].key.is_some();
        let before = self.clients[index].held;
        let Some((kind, _)) = self.clients[index].hear(reply.id, &reply.said, self.now) else {
            return Ok(());
        };
        let word = match &reply.said {
            Said::Granted(_) => "granted",
            Said::Renewed(_) => "renewed",
            Said::Denied => "denied",
            Said::Alive => "alive",
            Said::Released => "released",
            Said::Ended => "ended",
        };
        self.tally.count(word, 1);
        if reply.said == Said::Ended && kind == Kind::Acquire && keyed {
            self.tally.count("keys of ended sessions", 1);
        }
        if let (Said::Ended, Kind::Heartbeat, Some(held)) = (&reply.said, kind, before)
            && self.log.seats.contains_key(&held.session)
        {
            return Err(format!("I3: {} was said to have ended, and lives", held.session));
        }
        if reply.said == Said::Released && kind == Kind::Release {
            self.was_released(reply)?;
        }
        Ok(())
    }

    fn was_released(&self, reply: &Reply) -> Result<(), String> {
        let asked = self.sent.iter().find(|ask| ask.id == reply.id);
        if let Some(Command::Release { session_id, .. }) = asked.and_then(Ask::command)
            && self.log.seats.contains_key(session_id)
        {
            return Err(format!("I3: {session_id} was said to be released, and lives"));
        }
        Ok(())
    }
}
