//! What if there had been other seats, or another TTL: a license's own history, played again.
//!
//! **The model.** A *wish* is the time for which somebody wanted a seat, on one machine.
//! - A session is a wish from its first refusal (if the same user was refused on the way to it, without a longer pause
//!   than [`RETRY_PAUSE_MS`]) or else its acquire, to its end. Its end does not move: who starts later works less.
//! - Refusals that no session of that user follows in time are a wish from the first to the last of them, and once granted a
//!   seat is held for as long as the median session of the range.
//! - A wish that finds no seat waits, as a client does that goes on asking, and is granted in the order of asking; when
//!   its time is over it gives up.
//! - A session that expired ends a TTL after its last sign of life, whatever TTL is asked about; one that was released or
//!   revoked ends when it did.
//!
//! **Its limits.** Nobody who was never refused and never started appears, though more seats may have drawn them in. A TTL
//! shorter than the clients' heartbeats would end live sessions; that is not played. Refusals for other reasons than the
//! want of a seat are left out. Sessions that live at the range's beginning hold their seats first, in the order in which
//! they began.

mod play;
mod wishes;

use events::{LicenseId, TenantId, Time};

use crate::query::{QueryError, ReadModels};
use play::play;
use wishes::{Past, Wish};

/// Refusals of one user farther apart than this are different wishes.
const RETRY_PAUSE_MS: i64 = 30 * 60 * 1_000;

/// Most sessions and refusals of a question.
const MAX_ROWS: i64 = 500_000;

/// Users that an answer names.
const MAX_USERS: usize = 100;

/// Longest TTL that may be asked about: a week.
const MAX_TTL_SECONDS: i64 = 7 * 86_400;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct WhatIfQuestion {
    /// The license; `None`: the tenant's first.
    pub license_id: Option<LicenseId>,
    /// From this time on.
    pub from: Time,
    /// Before this time.
    pub to: Time,
    /// So many seats all the time; `None`: as many as there were.
    pub seats: Option<i64>,
    /// This TTL; `None`: the one that there was.
    pub ttl_seconds: Option<i64>,
}

/// How a history went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Most seats held at a time.
    pub peak: i64,
    /// Most seats held or waited for at a time: with so many, nobody waits.
    pub peak_demand: i64,
    /// Wishes that did not find a seat at once.
    pub denied: i64,
    /// Those of them that never got one.
    pub never_granted: i64,
    /// Minutes that wishes waited, together.
    pub denial_minutes: f64,
    /// Whose wishes waited, longest first.
    pub users: Vec<Waiter>,
}

/// A user who waited.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiter {
    /// Who.
    pub user_id: String,
    /// How many of its wishes did not find a seat at once.
    pub denied: i64,
    /// How long they waited, together.
    pub denial_minutes: f64,
}

/// The answer: the same wishes, twice.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct WhatIf {
    pub license_id: LicenseId,
    pub from: Time,
    pub to: Time,
    pub seats: Option<i64>,
    pub ttl_seconds: Option<i64>,
    /// Wishes of the range.
    pub wishes: i64,
    /// Played with the limits and the TTL that there were.
    pub as_it_was: Outcome,
    /// Played with those that were asked about.
    pub what_if: Outcome,
}

impl ReadModels {
    /// Plays a license's history again.
    ///
    /// # Errors
    /// A question without a change, or out of bounds, or about too long a history; the database.
    pub async fn what_if(
        &self,
        tenant_id: TenantId,
        question: &WhatIfQuestion,
    ) -> Result<WhatIf, QueryError> {
        check(question)?;
        self.settled().await?;
        let license_id = self.which_license(tenant_id, question.license_id).await?;
        let past = Past::read(self, tenant_id, license_id, question).await?;
        let (now, ttl) = (past.wishes(None), past.wishes(question.ttl_seconds.map(|one| one * 1_000)));
        let constant = question.seats.map(|seats| vec![(i64::MIN, seats)]);
        Ok(WhatIf {
            license_id,
            from: question.from,
            to: question.to,
            seats: question.seats,
            ttl_seconds: question.ttl_seconds,
            wishes: i64::try_from(now.len()).unwrap_or(i64::MAX),
            as_it_was: played(&now, past.limits()),
            what_if: played(&ttl, constant.as_deref().unwrap_or(past.limits())),
        })
    }

    async fn which_license(
        &self,
        tenant_id: TenantId,
        named: Option<LicenseId>,
    ) -> Result<LicenseId, QueryError> {
        let mut all = self.log.licenses_of(tenant_id).await?.into_iter();
        let found = match named {
            Some(named) => all.find(|one| *one == named),
            None => all.next(),
        };
        found.ok_or_else(|| QueryError::invalid("license_id", "the tenant has no such license"))
    }
}

fn check(question: &WhatIfQuestion) -> Result<(), QueryError> {
    if question.from > question.to {
        return Err(QueryError::invalid("from", "must not be after to"));
    }
    if question.seats.is_none() && question.ttl_seconds.is_none() {
        return Err(QueryError::invalid("seats", "seats or ttl_seconds must be given"));
    }
    if question.seats.is_some_and(|seats| !(0..=i64::from(events::Seats::MAX)).contains(&seats)) {
        return Err(QueryError::invalid("seats", format!("must be 0 to {}", events::Seats::MAX)));
    }
    if question.ttl_seconds.is_some_and(|ttl| !(1..=MAX_TTL_SECONDS).contains(&ttl)) {
        return Err(QueryError::invalid("ttl_seconds", format!("must be 1 to {MAX_TTL_SECONDS}")));
    }
    Ok(())
}

fn played(wishes: &[Wish], limits: &[(i64, i64)]) -> Outcome {
    let mut outcome = play(wishes, limits);
    outcome.users.sort_by(|a, b| {
        b.denial_minutes.total_cmp(&a.denial_minutes).then_with(|| a.user_id.cmp(&b.user_id))
    });
    outcome.users.truncate(MAX_USERS);
    outcome
}
