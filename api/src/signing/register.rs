//! What was done with the signing keys: events of the platform's own stream, and their fold.
//!
//! A key's public half lies in `signing_keys`; that it was published, activated or retired, by whom and why, are facts
//! of the log. Whoever acts compares and sets the stream's version, so two acts never overlook each other.

use std::collections::BTreeMap;
use std::time::Duration;

use events::{
    Batch, Event, EventLog, LogError, NewEvent, Recorded, Refused, StreamWrite, Subject, TenantId, Time,
};

use super::SigningError;

/// How often an act is decided again because another came first, or sent again because its outcome is unknown.
const MAX_ROUNDS: u32 = 20;

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(25);

/// What the log says of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyFacts {
    /// Where its private half was when it was published.
    pub held_by: String,
    /// It entered the published set.
    pub published: bool,
    /// Longest default grace, in seconds, of the replicas that signed with it; `None`: no replica did.
    pub activated: Option<u32>,
    /// When it was retired.
    pub retired_at: Option<Time>,
}

/// The platform's stream, folded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Register {
    /// Of the latest event.
    pub version: i64,
    keys: BTreeMap<String, KeyFacts>,
}

impl Register {
    /// Folds the stream.
    pub(crate) async fn read(log: &EventLog) -> Result<Self, SigningError> {
        let mut register = Self::default();
        for recorded in log.decisions(TenantId::PLATFORM.0).await.map_err(unavailable)? {
            register.apply(&recorded);
        }
        Ok(register)
    }

    /// The version alone, which is cheap to ask for.
    pub(crate) async fn version(log: &EventLog) -> Result<i64, SigningError> {
        let head = log.stream_head(TenantId::PLATFORM.0).await.map_err(unavailable)?;
        Ok(head.map_or(0, |head| head.version))
    }

    fn apply(&mut self, recorded: &Recorded) {
        self.version = recorded.version.unwrap_or(self.version);
        match &recorded.event {
            Event::SigningKeyPublished { kid, held_by, .. } => {
                let key = self.keys.entry(kid.clone()).or_default();
                (key.published, key.held_by) = (true, held_by.clone());
            }
            Event::SigningKeyActivated { kid, offline_grace_seconds } => {
                let key = self.keys.entry(kid.clone()).or_default();
                key.activated = key.activated.max(Some(*offline_grace_seconds));
            }
            Event::SigningKeyRetired { kid, .. } => {
                self.keys.entry(kid.clone()).or_default().retired_at = Some(recorded.occurred_at);
            }
            _ => {}
        }
    }

    /// What is known of a key.
    pub(crate) fn of(&self, kid: &str) -> KeyFacts {
        self.keys.get(kid).cloned().unwrap_or_default()
    }

    /// Whether a key was retired: it never signs again, whatever its signer holds.
    pub(crate) fn is_retired(&self, kid: &str) -> bool {
        self.keys.get(kid).is_some_and(|key| key.retired_at.is_some())
    }
}

/// Decides on the register as it is, and records the outcome, unless another act came first: then it decides again.
/// Nothing decided, nothing recorded. Answers the register after it.
pub(crate) async fn record<E: From<SigningError>>(
    log: &EventLog,
    mut decide: impl FnMut(&Register) -> Result<Vec<Event>, E>,
) -> Result<Register, E> {
    for _ in 0..MAX_ROUNDS {
        let register = Register::read(log).await?;
        let events = decide(&register)?;
        if events.is_empty() {
            return Ok(register);
        }
        if append(log, register.version, events).await? {
            return Ok(Register::read(log).await?);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(SigningError::Unavailable("too many acts on the signing keys at the same time".to_owned()).into())
}

/// Writes events on condition; `false`: somebody was faster. Sent again, the same, until the outcome is known.
async fn append(log: &EventLog, expected: i64, events: Vec<Event>) -> Result<bool, SigningError> {
    let events = events.into_iter().map(|event| NewEvent {
        event_id: uuid::Uuid::now_v7(),
        subject: Subject::default(),
        event,
        request_id: None,
        key: None,
        give_back: false,
    });
    let stream = StreamWrite {
        stream_id: TenantId::PLATFORM.0,
        tenant_id: TenantId::PLATFORM,
        product: None,
        expected,
        standing: None,
        events: events.collect(),
    };
    let batch = Batch { whole: true, ttl: Duration::from_secs(1), streams: vec![stream], ..Batch::default() };
    let mut last = String::new();
    for _ in 0..MAX_ROUNDS {
        let appended = match log.database().get().await {
            Ok(connection) => EventLog::append_on(&connection, &batch).await,
            Err(error) => Err(error),
        };
        match appended {
            Ok(appended) => {
                return Ok(!appended.refused.iter().any(|one| matches!(one, Refused::Conflict { .. })));
            }
            Err(error) if error.is_retryable() => last = error.to_string(),
            Err(error) => return Err(unavailable(error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(SigningError::Unavailable(last))
}

pub(crate) fn unavailable(error: LogError) -> SigningError {
    SigningError::Unavailable(error.to_string())
}
