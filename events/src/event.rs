//! The facts. Past tense, never edited: a change of shape is a new format with an upcast in `codec.rs`.

use serde::{Deserialize, Serialize};

use crate::change::double_option;
use crate::{MachineName, Product, Seats, Time};

/// A fact about a tenant or a pool. Serialised as `{"type": "...", "data": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// A tenant came to be.
    TenantCreated(TenantTerms),
    /// Some of a tenant's terms changed.
    TenantUpdated(TenantChange),
    /// A user joined the tenant.
    UserAdded {
        /// As the identity provider or an admin gave it.
        email: Option<String>,
        /// Roles stored with the user, beside those of its token.
        roles: Vec<String>,
        /// What brought the user in.
        reason: AddReason,
    },
    /// Some of a user's fields changed.
    UserUpdated(UserChange),
    /// A user was removed; its acquires are refused from here on.
    UserRemoved {},
    /// A license was issued: version 1 of every pool.
    LicenseIssued(LicenseTerms),
    /// Some of a license's terms changed.
    LicenseUpdated(LicenseChange),
    /// A session began and holds a seat.
    SeatAcquired {
        /// Seats in use, this one included.
        seats_used: u32,
        /// The limit in force.
        seats_total: Seats,
        /// When the session ends if no heartbeat comes; stamped by Postgres.
        deadline: Time,
        /// What admins see beside the session.
        #[serde(default)]
        machine_name: Option<MachineName>,
    },
    /// The holder lives; an observation without a version.
    SeatHeartbeat {
        /// The new deadline.
        deadline: Time,
    },
    /// The holder gave the seat back.
    SeatReleased {},
    /// The deadline passed without a heartbeat.
    SeatExpired {
        /// The deadline that passed.
        deadline: Time,
    },
    /// An acquire was refused; an observation without a version.
    SeatDenied {
        /// The error's code: `no_seats_available`, `license_inactive`, `license_expired`, `tenant_inactive`.
        reason: String,
        /// Seats in use then.
        seats_used: u32,
        /// The limit in force then.
        seats_total: Seats,
    },
    /// An admin ended the session.
    SeatRevoked {
        /// Who did.
        by: RevokedBy,
        /// Why, in the admin's words.
        reason: String,
    },
    /// A key that signs license tokens was made. Key events stand on the platform's own stream.
    SigningKeyCreated {
        /// RFC 7638 thumbprint.
        kid: String,
        /// Where its private half is: `local`, or the name of a KMS version.
        held_by: String,
        /// The operator who did it.
        by: String,
    },
    /// A public key entered the published set.
    SigningKeyPublished {
        /// The key.
        kid: String,
        /// Where its private half is.
        held_by: String,
        /// An operator, or `serve`: a replica found the key in its signer.
        by: String,
    },
    /// A replica began to sign with a key, or to sign for longer than was known.
    SigningKeyActivated {
        /// The key.
        kid: String,
        /// Grace of the tokens of licenses that do not say.
        offline_grace_seconds: u32,
    },
    /// A key signs no more, and left the published set.
    SigningKeyRetired {
        /// The key.
        kid: String,
        /// It was retired although tokens that it signed may be alive: it is believed compromised.
        emergency: bool,
        /// Why, in the operator's words.
        reason: String,
        /// The operator who did it.
        by: String,
    },
}

/// What brought a user into a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddReason {
    /// An admin added it.
    Admin,
    /// It acquired for the first time with a token of this tenant.
    FirstAcquire,
}

/// `sub` of the admin who revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevokedBy(pub String);

/// All terms of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantTerms {
    /// For people.
    pub name: String,
    /// Unique.
    pub subdomain: String,
    /// For people and billing.
    pub plan: String,
    /// Seats of the tenant's first license.
    pub max_seats: Seats,
    /// Inactive: every pool of the tenant refuses.
    pub active: bool,
    /// What the identity provider calls the tenant; unique.
    #[serde(default)]
    pub identity_tenant: Option<String>,
}

/// The terms of a tenant that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each field is the one of TenantTerms")]
pub struct TenantChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seats: Option<Seats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(deserialize_with = "double_option", skip_serializing_if = "Option::is_none")]
    pub identity_tenant: Option<Option<String>>,
}

/// The fields of a user that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each field is the one of UserAdded")]
pub struct UserChange {
    #[serde(deserialize_with = "double_option", skip_serializing_if = "Option::is_none")]
    pub email: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
}

/// All terms of a license.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseTerms {
    /// What it is for; never changes.
    pub product: Product,
    /// For people and billing; a claim of the license token.
    pub plan: String,
    /// How many sessions may live at a time.
    pub seats_total: Seats,
    /// Inactive: acquires and heartbeats are refused.
    pub active: bool,
    /// Claims of the license token.
    pub features: Vec<String>,
    /// Refused before; `None`: no bound.
    pub valid_from: Option<Time>,
    /// Refused from here on; `None`: no bound.
    pub valid_until: Option<Time>,
    /// Seconds that a license token outlives its issue; `None`: the service's default.
    pub offline_grace_seconds: Option<u32>,
}

/// The terms of a license that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each field is the one of LicenseTerms")]
pub struct LicenseChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seats_total: Option<Seats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    #[serde(deserialize_with = "double_option", skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Option<Time>>,
    #[serde(deserialize_with = "double_option", skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Option<Time>>,
    #[serde(deserialize_with = "double_option", skip_serializing_if = "Option::is_none")]
    pub offline_grace_seconds: Option<Option<u32>>,
}

impl LicenseTerms {
    /// The terms after a change.
    pub fn change(&mut self, change: &LicenseChange) {
        let LicenseChange {
            plan,
            seats_total,
            active,
            features,
            valid_from,
            valid_until,
            offline_grace_seconds,
        } = change.clone();
        self.plan = plan.unwrap_or_else(|| self.plan.clone());
        self.seats_total = seats_total.unwrap_or(self.seats_total);
        self.active = active.unwrap_or(self.active);
        self.features = features.unwrap_or_else(|| self.features.clone());
        self.valid_from = valid_from.unwrap_or(self.valid_from);
        self.valid_until = valid_until.unwrap_or(self.valid_until);
        self.offline_grace_seconds = offline_grace_seconds.unwrap_or(self.offline_grace_seconds);
    }
}

impl TenantTerms {
    /// The terms after a change.
    pub fn change(&mut self, change: &TenantChange) {
        let TenantChange { name, plan, max_seats, active, identity_tenant } = change.clone();
        self.name = name.unwrap_or_else(|| self.name.clone());
        self.plan = plan.unwrap_or_else(|| self.plan.clone());
        self.max_seats = max_seats.unwrap_or(self.max_seats);
        self.active = active.unwrap_or(self.active);
        self.identity_tenant = identity_tenant.unwrap_or_else(|| self.identity_tenant.clone());
    }
}

/// Takes a new value out of a change when the value in force is the same.
fn unless_same<T: PartialEq>(asked: Option<T>, in_force: &T) -> Option<T> {
    asked.filter(|value| value != in_force)
}

impl LicenseTerms {
    /// What of a change is not in force already.
    #[must_use]
    pub fn difference(&self, change: LicenseChange) -> LicenseChange {
        LicenseChange {
            plan: unless_same(change.plan, &self.plan),
            seats_total: unless_same(change.seats_total, &self.seats_total),
            active: unless_same(change.active, &self.active),
            features: unless_same(change.features, &self.features),
            valid_from: unless_same(change.valid_from, &self.valid_from),
            valid_until: unless_same(change.valid_until, &self.valid_until),
            offline_grace_seconds: unless_same(change.offline_grace_seconds, &self.offline_grace_seconds),
        }
    }
}

impl TenantTerms {
    /// What of a change is not in force already.
    #[must_use]
    pub fn difference(&self, change: TenantChange) -> TenantChange {
        TenantChange {
            name: unless_same(change.name, &self.name),
            plan: unless_same(change.plan, &self.plan),
            max_seats: unless_same(change.max_seats, &self.max_seats),
            active: unless_same(change.active, &self.active),
            identity_tenant: unless_same(change.identity_tenant, &self.identity_tenant),
        }
    }
}

impl Event {
    /// Whether the event moves its stream's version. Heartbeats and denials are observations.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        !matches!(self, Self::SeatHeartbeat { .. } | Self::SeatDenied { .. })
    }

    /// Every type there is.
    pub const NAMES: [&'static str; 17] = [
        "tenant_created",
        "tenant_updated",
        "user_added",
        "user_updated",
        "user_removed",
        "license_issued",
        "license_updated",
        "seat_acquired",
        "seat_heartbeat",
        "seat_released",
        "seat_expired",
        "seat_denied",
        "seat_revoked",
        "signing_key_created",
        "signing_key_published",
        "signing_key_activated",
        "signing_key_retired",
    ];

    /// The type, as the log, the API and the metrics call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TenantCreated(_) => "tenant_created",
            Self::TenantUpdated(_) => "tenant_updated",
            Self::UserAdded { .. } => "user_added",
            Self::UserUpdated(_) => "user_updated",
            Self::UserRemoved {} => "user_removed",
            Self::LicenseIssued(_) => "license_issued",
            Self::LicenseUpdated(_) => "license_updated",
            Self::SeatAcquired { .. } => "seat_acquired",
            Self::SeatHeartbeat { .. } => "seat_heartbeat",
            Self::SeatReleased {} => "seat_released",
            Self::SeatExpired { .. } => "seat_expired",
            Self::SeatDenied { .. } => "seat_denied",
            Self::SeatRevoked { .. } => "seat_revoked",
            Self::SigningKeyCreated { .. } => "signing_key_created",
            Self::SigningKeyPublished { .. } => "signing_key_published",
            Self::SigningKeyActivated { .. } => "signing_key_activated",
            Self::SigningKeyRetired { .. } => "signing_key_retired",
        }
    }
}
