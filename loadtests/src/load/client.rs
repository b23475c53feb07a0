//! A virtual client as a state machine: acquire, some heartbeats, release, and again. No clock, no I/O.

use crate::tally::Outcome;

/// What clients of a scenario do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Heartbeats between acquire and release; without a number a session is kept to the end.
    pub heartbeats: Option<u32>,
    /// Whether a full pool is part of the scenario (then a refusal is no error).
    pub refusals_expected: bool,
}

/// What a client does when its next request falls due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Asks for a seat.
    Acquire,
    /// Keeps this session.
    Heartbeat(String),
    /// Ends this session.
    Release(String),
}

/// One user at one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    session: Option<Session>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    id: String,
    heartbeats: u32,
}

impl Client {
    /// The next request.
    pub fn next(&self, script: Script) -> Next {
        match &self.session {
            None => Next::Acquire,
            Some(session) if script.heartbeats.is_some_and(|wanted| session.heartbeats >= wanted) => {
                Next::Release(session.id.clone())
            }
            Some(session) => Next::Heartbeat(session.id.clone()),
        }
    }

    /// Moves on by what came back (`None`: no answer), and says whether that was as expected. A request
    /// that failed for a passing reason is repeated when the next one falls due.
    pub fn answered(
        &mut self,
        request: &Next,
        script: Script,
        answer: Option<(u16, Option<&str>)>,
    ) -> Outcome {
        let Some((status, session_id)) = answer else { return Outcome::Lost };
        match (request, status) {
            (Next::Acquire, 200) => {
                let Some(id) = session_id else { return Outcome::Status(status) };
                self.session = Some(Session { id: id.to_owned(), heartbeats: 0 });
                Outcome::Expected
            }
            (Next::Acquire, 409) if script.refusals_expected => Outcome::Expected,
            (Next::Heartbeat(_), 200) => {
                if let Some(session) = &mut self.session {
                    session.heartbeats += 1;
                }
                Outcome::Expected
            }
            (Next::Release(_), 200) => {
                self.session = None;
                Outcome::Expected
            }
            // The session is gone; the client begins anew.
            (Next::Heartbeat(_) | Next::Release(_), 403 | 404 | 410) => {
                self.session = None;
                Outcome::Status(status)
            }
            _ => Outcome::Status(status),
        }
    }

    /// The session it holds.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str())
    }
}
