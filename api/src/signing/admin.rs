//! What operators do with the signing keys: list, rotate, retire, while replicas run.
//!
//! Guaranteed: a rotation breaks nobody, because the new key waits until every client has it; a key that may have
//! signed a living token is not retired, unless it is believed compromised; each act is an event (`register.rs`).
//! Replicas learn of an act within a second, from Postgres.

use std::sync::Arc;
use std::time::Duration;

use events::{Event, EventLog, PublishedKey, Time};
use serde::Serialize;

use super::register::{KeyFacts, Register, record, unavailable};
use super::ring::{REFRESH, pick, publish};
use super::{PublicKey, Schedule, Signer, SigningError};

/// All keys that were ever published are listed: those of the last hundred years.
const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// A replica notes the use of its key every [`REFRESH`]: the last token may be so much younger than the note, and as
/// much again for a replica that was held up.
const UNNOTED: Duration = Duration::from_secs(2 * REFRESH.as_secs());

/// What a key is good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It signs.
    Signs,
    /// It is published and signs later.
    Waits,
    /// It verifies what it signed.
    Verifies,
    /// It is published and never signed.
    Unused,
    /// It neither signs nor verifies.
    Retired,
}

/// One key, as an operator sees it.
#[derive(Debug, Clone, Serialize)]
pub struct KeyLine {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it is good for.
    pub state: KeyState,
    /// Where its private half is or was.
    pub held_by: String,
    /// The signer has it now.
    pub held: bool,
    /// When it entered the published set.
    pub published_at: String,
    /// When it last signed, to about a minute.
    pub last_used_at: Option<String>,
    /// A key that waits signs from then on.
    pub signs_from: Option<String>,
    /// A token that it signed may live so long; until then it is not retired.
    pub tokens_until: Option<String>,
}

/// What came of a rotation.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Rotated {
    /// There is a new key.
    Created(KeyLine),
    /// A key waits already: nothing was done.
    AlreadyWaits(KeyLine),
}

/// How a key is retired.
#[derive(Debug, Clone, Default)]
pub struct Retire {
    /// At once, although tokens that it signed may be alive.
    pub emergency: bool,
    /// Why, for the log.
    pub reason: String,
}

/// What came of a retirement.
#[derive(Debug, Clone, Serialize)]
pub struct Retired {
    /// The key.
    pub kid: String,
    /// It was retired before.
    pub already: bool,
    /// A key that was made because no other was left.
    pub created: Option<String>,
    /// Why it is not certain that a key is left to sign, if it is not.
    pub none_left: Option<String>,
    /// What was done to its private half.
    pub private_half: String,
}

/// Acts on the keys of one signer.
pub struct KeyAdmin {
    signer: Arc<dyn Signer>,
    log: EventLog,
    schedule: Schedule,
    by: String,
}

/// Everything about the keys at one moment.
struct Survey {
    register: Register,
    published: Vec<PublishedKey>,
    held: Vec<PublicKey>,
    current: Option<String>,
    longest_grace: u32,
}

impl KeyAdmin {
    /// For an operator, as the log shall call it.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>, log: EventLog, schedule: Schedule, by: String) -> Self {
        Self { signer, log, schedule, by }
    }

    /// Every key that was ever published, oldest first.
    ///
    /// # Errors
    /// When the signer or the database cannot be asked.
    pub async fn list(&self) -> Result<Vec<KeyLine>, SigningError> {
        let survey = self.survey(self.signer.keys().await?).await?;
        Ok(survey.published.iter().map(|key| self.line(&survey, key)).collect())
    }

    /// Makes a key and publishes it; it signs once it has been published for long enough. While one waits, another is
    /// not made.
    ///
    /// # Errors
    /// When the signer cannot make a key, or the database cannot be asked.
    pub async fn rotate(&self) -> Result<Rotated, SigningError> {
        let waits = |line: &KeyLine| line.state == KeyState::Waits;
        if let Some(waiting) = self.list().await?.into_iter().find(waits) {
            return Ok(Rotated::AlreadyWaits(waiting));
        }
        let kid = self.create().await?;
        let line = self.list().await?.into_iter().find(|line| line.kid == kid);
        line.map(Rotated::Created).ok_or_else(|| SigningError::Corrupt(format!("{kid} was not published")))
    }

    /// Makes a key unable to sign and takes it out of the published set, on every replica.
    ///
    /// # Errors
    /// When there is no such key, it signs now, or a token that it signed may be alive (the last two: unless in an
    /// emergency); when the database or, but for an emergency, the signer cannot be asked. In an emergency a signer that
    /// does not answer keeps no key alive: the key is retired all the same, and the answer says what is left to do.
    pub async fn retire(&self, kid: &str, how: &Retire) -> Result<Retired, SigningError> {
        let (held, unknown) = match self.signer.keys().await {
            Err(error) if how.emergency => (Vec::new(), Some(error)),
            other => (other?, None),
        };
        let survey = self.survey(held).await?;
        let kid = survey.find(kid)?;
        let already = survey.register.is_retired(&kid);
        let (mut created, mut none_left) = (None, None);
        if let Some(error) = &unknown {
            none_left = Some(format!("whether another key is left to sign is not known ({error})"));
        } else if how.emergency && !already && survey.is_last(&kid) {
            match self.create().await {
                Ok(kid) => created = Some(kid),
                Err(error) => {
                    none_left = Some(format!("no other key is left, and none could be made ({error})"))
                }
            }
        }
        record(&self.log, |register| {
            let facts = register.of(&kid);
            if facts.retired_at.is_some() {
                return Ok(Vec::new());
            }
            if !how.emergency {
                self.refuse_if_needed(&survey, &kid, &facts)?;
            }
            Ok::<_, SigningError>(vec![Event::SigningKeyRetired {
                kid: kid.clone(),
                emergency: how.emergency,
                reason: how.reason.clone(),
                by: self.by.clone(),
            }])
        })
        .await?;
        let private_half = match (self.signer.disable(&kid).await, unknown) {
            (Ok(Some(done)), _) => done,
            (Ok(None), None) => "the signer does not hold its private half".to_owned(),
            (Err(error), _) | (Ok(None), Some(error)) => format!(
                "ITS PRIVATE HALF IS STILL THERE ({error}): no replica uses it; repeat this, or remove it yourself"
            ),
        };
        Ok(Retired { kid, already, created, none_left, private_half })
    }

    /// Makes a key, publishes it, and records both.
    async fn create(&self) -> Result<String, SigningError> {
        let key = self.signer.create().await?;
        self.log.publish_key(&key.kid, &key.pem).await.map_err(unavailable)?;
        let (kid, held_by, by) = (key.kid.clone(), self.signer.held_by(&key.kid), self.by.clone());
        let created = Event::SigningKeyCreated { kid: kid.clone(), held_by, by };
        let mut said = false;
        record(&self.log, |_| {
            let events = if said { Vec::new() } else { vec![created.clone()] };
            said = true;
            Ok::<_, SigningError>(events)
        })
        .await?;
        publish(self.signer.as_ref(), &self.log, &[key], &self.by).await?;
        Ok(kid)
    }

    fn refuse_if_needed(&self, survey: &Survey, kid: &str, facts: &KeyFacts) -> Result<(), SigningError> {
        if survey.current.as_deref() == Some(kid) {
            let why = "it signs now: `keys rotate` first, and retire it when its last token has expired";
            return Err(SigningError::Refused(format!("{kid} is not retired: {why}")));
        }
        let Some(key) = survey.published.iter().find(|key| key.kid == kid) else { return Ok(()) };
        let now = key.published_at.after(key.age);
        // Activated since the survey: by now it may have signed.
        let until = survey.tokens_until(key, facts).or(facts.activated.map(|_| now.after(UNNOTED)));
        match until {
            Some(until) if now < until => Err(SigningError::Refused(format!(
                "{kid} is not retired: a token that it signed may live until {until}; --emergency does it all the same"
            ))),
            _ => Ok(()),
        }
    }

    async fn survey(&self, held: Vec<PublicKey>) -> Result<Survey, SigningError> {
        let register = Register::read(&self.log).await?;
        let published = self.log.published_keys(EVER).await.map_err(unavailable)?;
        let longest = self.log.longest_offline_grace().await.map_err(unavailable)?;
        let ages: Vec<_> = held
            .iter()
            .filter(|key| !register.is_retired(&key.kid))
            .filter_map(|key| Some((key.clone(), published.iter().find(|one| one.kid == key.kid)?.age)))
            .collect();
        let current = pick(&ages, self.schedule.published_before_use).map(|key| key.kid.clone());
        let longest_grace = longest.unwrap_or(0).max(self.schedule.offline_grace_seconds);
        Ok(Survey { register, published, held, current, longest_grace })
    }

    fn line(&self, survey: &Survey, key: &PublishedKey) -> KeyLine {
        let facts = survey.register.of(&key.kid);
        let held = survey.held.iter().any(|one| one.kid == key.kid);
        let tokens_until = survey.tokens_until(key, &facts);
        let waits = held && key.age < self.schedule.published_before_use && tokens_until.is_none();
        let state = match () {
            () if facts.retired_at.is_some() => KeyState::Retired,
            () if survey.current.as_deref() == Some(&key.kid) => KeyState::Signs,
            () if waits => KeyState::Waits,
            () if tokens_until.is_some() => KeyState::Verifies,
            () => KeyState::Unused,
        };
        let signs_from = key.published_at.after(self.schedule.published_before_use);
        KeyLine {
            state,
            held,
            held_by: if held { self.signer.held_by(&key.kid) } else { facts.held_by },
            published_at: key.published_at.to_string(),
            last_used_at: key.last_used_at.map(|at| at.to_string()),
            signs_from: (state == KeyState::Waits).then(|| signs_from.to_string()),
            tokens_until: tokens_until.filter(|_| state != KeyState::Retired).map(|at| at.to_string()),
            kid: key.kid.clone(),
        }
    }
}

impl Survey {
    /// The key of an id, or of the beginning of one.
    fn find(&self, kid: &str) -> Result<String, SigningError> {
        let mut found = self.published.iter().filter(|key| key.kid.starts_with(kid) && !kid.is_empty());
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(key.kid.clone()),
            (Some(_), Some(_)) => Err(SigningError::Refused(format!("more than one key begins with {kid}"))),
            (None, _) => Err(SigningError::Refused(format!("no key is called {kid}: see `keys list`"))),
        }
    }

    /// Whether no key that can sign is left without this one.
    fn is_last(&self, kid: &str) -> bool {
        !self.held.iter().any(|key| key.kid != kid && !self.register.is_retired(&key.kid))
    }

    /// Until when a token that a key signed may live; `None`: it never signed.
    fn tokens_until(&self, key: &PublishedKey, facts: &KeyFacts) -> Option<Time> {
        let grace = self.longest_grace.max(facts.activated.unwrap_or(0));
        Some(key.last_used_at?.after(UNNOTED + Duration::from_secs(grace.into())))
    }
}
