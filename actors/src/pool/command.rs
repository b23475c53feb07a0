//! What can be asked of a pool, and what it answers.

use events::{HardwareId, Seats, UserId};
use events::{
    IdempotencyKey, LicenseChange, LicenseTerms, MachineName, SessionEnd, SessionId, Standing, Time,
};
use std::sync::Arc;

/// A request to a pool.
#[derive(Debug, Clone)]
pub enum Command {
    /// A seat for a user on a machine.
    Acquire {
        /// The session's id, should a seat be granted.
        session_id: SessionId,
        /// Who.
        user_id: UserId,
        /// Where.
        hardware_id: HardwareId,
        /// What admins see beside the session.
        machine_name: Option<MachineName>,
        /// Recorded with the grant.
        key: Option<IdempotencyKey>,
        /// It repeats the acquire that was granted this session: kept alive while it lives, and never granted anew.
        renews: Option<SessionId>,
    },
    /// The holder gives the seat back.
    Release {
        /// Which session.
        session_id: SessionId,
        /// Who claims to hold it.
        user_id: UserId,
        /// A grant that could not be answered is given back, unless somebody was answered with it since.
        give_back: bool,
        /// The key that a given back grant forgets.
        forget: Option<IdempotencyKey>,
    },
    /// An admin ends a session.
    Revoke {
        /// Which session.
        session_id: SessionId,
        /// `sub` of the admin.
        by: String,
        /// In the admin's words.
        reason: String,
    },
    /// Sessions whose deadline has passed end.
    Expire {
        /// Somebody found an overdue seat in the log: a state that knows of none has missed something.
        overdue: bool,
    },
    /// The license's terms change.
    ChangeLicense {
        /// What changes.
        change: LicenseChange,
        /// The version that the admin saw, if it matters.
        if_version: Option<i64>,
    },
}

/// A seat that somebody holds.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Its machine.
    pub hardware_id: HardwareId,
    /// The terms in force.
    pub license: Arc<LicenseTerms>,
    /// When it ends if no heartbeat comes.
    pub deadline: Time,
    /// Seats in use.
    pub used: u32,
    /// The limit.
    pub total: Seats,
}

/// Why an acquire was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// All seats are taken.
    NoSeatsAvailable,
    /// The pool does not accept.
    Standing(Standing),
}

impl Reason {
    /// The error's code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSeatsAvailable => "no_seats_available",
            Self::Standing(standing) => standing.as_str(),
        }
    }
}

/// A pool's answer. A refusal is an answer, not an error.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A new session holds a seat.
    Granted(Grant),
    /// The live session of this user and machine, kept alive.
    Renewed(Grant),
    /// No seat.
    Denied {
        /// Why.
        reason: Reason,
        /// Seats in use.
        used: u32,
        /// The limit.
        total: Seats,
    },
    /// The user is not of this tenant yet.
    UserUnknown,
    /// The user was removed.
    UserRemoved,
    /// Another grant has this Idempotency-Key.
    KeyTaken,
    /// The session lives until then.
    Alive {
        /// When it ends if no further heartbeat comes.
        deadline: Time,
    },
    /// A heartbeat that is not accepted.
    NotAccepted(Standing),
    /// The seat is free.
    Released,
    /// The session was revoked.
    Revoked,
    /// The session ended before, or is none of this user's.
    NotHeld {
        /// How it ended; `None` if this user never had such a session.
        end: Option<SessionEnd>,
    },
    /// Lapsed sessions were ended.
    Expired,
    /// The terms now in force, and their version.
    Changed {
        /// All terms.
        license: Arc<LicenseTerms>,
        /// The pool's version.
        version: i64,
    },
    /// The license has changed since the version that the admin saw.
    Stale,
    /// Another active license of the tenant has this product.
    ProductTaken,
}
