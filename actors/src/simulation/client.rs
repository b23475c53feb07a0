//! A client: one user on one machine, that believes only what it was answered.

use events::{HardwareId, SessionId, UserId};

use super::world::TTL;

/// What it waits for.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Of the request: an answer to another one is ignored.
    pub id: u64,
    pub kind: Kind,
    /// When it was sent, by the client's clock: its deadline counts from here (protocol, rule 6).
    pub sent: i64,
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Acquire,
    Heartbeat,
    Release,
}

/// A seat that it believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub session: SessionId,
    pub until: i64,
}

/// What a replica said. Silence is possible as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Granted(SessionId),
    Renewed(SessionId),
    Denied,
    Alive,
    Ended,
    Released,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Client {
    pub user_id: UserId,
    pub hardware_id: HardwareId,
    pub waiting: Option<Waiting>,
    pub held: Option<Held>,
    /// The key of the acquire that it repeats until it is answered.
    pub key: Option<String>,
}

impl Client {
    /// Takes an answer, if it still waits for that one. Answers what it was for, and the session it speaks of.
    pub fn hear(&mut self, id: u64, said: &Said, now: i64) -> Option<(Kind, Option<SessionId>)> {
        let waiting = self.waiting.take_if(|waiting| waiting.id == id)?;
        let session = self.held.map(|held| held.session);
        match said {
            Said::Granted(session) | Said::Renewed(session) => {
                self.key = None;
                // An answer that comes after its own deadline is none: the client asks again.
                let until = waiting.sent + TTL;
                self.held = (until > now).then_some(Held { session: *session, until });
                return Some((waiting.kind, Some(*session)));
            }
            Said::Alive => {
                if let Some(held) = &mut self.held {
                    held.until = held.until.max(waiting.sent + TTL);
                }
            }
            Said::Ended => {
                self.key = None;
                self.held = None;
            }
            Said::Denied => self.key = None,
            Said::Released => {}
        }
        Some((waiting.kind, session))
    }

    /// The process dies and another starts: it knows nothing. What it held is nobody's until it lapses.
    pub fn crash(&mut self) {
        self.waiting = None;
        self.held = None;
        self.key = None;
    }
}
