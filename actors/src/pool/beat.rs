//! Heartbeats. They need no state, for Postgres judges each by its seats table, and they never conflict: so they go
//! straight to the writer, beside the pool's actor, which is told afterwards.
//!
//! Delivery: a heartbeat is answered from its committed event only. Whoever does not wait for the answer leaves the actor
//! untold: it then takes the session for older than it is, until Postgres refuses to end it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use events::{LicenseId, LogError, SessionId, Time, UserId};

use super::batch::{Context, not_held};
use super::command::Answer;
use crate::writer::Job;

/// Sessions that live on, and until when: what a pool has not been told of its heartbeats.
#[derive(Debug, Default)]
pub(crate) struct Beaten(Mutex<HashMap<SessionId, Time>>);

impl Beaten {
    /// Notes that a session lives until `deadline`; of two appends the later one may be answered first. Whether this is the
    /// first since [`Beaten::take`]: then the pool does not know yet that there is something to take.
    pub(crate) fn note(&self, session_id: SessionId, deadline: Time) -> bool {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = sessions.is_empty();
        let known = sessions.entry(session_id).or_insert(deadline);
        *known = deadline.max(*known);
        first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Everything noted since the last time.
    pub(crate) fn take(&self) -> HashMap<SessionId, Time> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes one heartbeat to its end.
///
/// # Errors
/// When the log cannot be written, or asked how the session ended.
pub(crate) async fn run(
    context: &Context,
    license_id: LicenseId,
    session_id: SessionId,
    user_id: UserId,
    request_id: Option<String>,
) -> Result<Answer, LogError> {
    let job = Job::heartbeat(license_id, session_id, user_id.clone(), request_id);
    let appended = context.writer.append(job).await?;
    match appended.heartbeat(session_id) {
        Ok(at) => Ok(Answer::Alive { deadline: at.after(context.ttl) }),
        Err(Some(standing)) => Ok(Answer::NotAccepted(standing)),
        Err(None) => not_held(&context.log, license_id, session_id, Some(&user_id)).await,
    }
}
