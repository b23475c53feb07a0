//! Whether a pool accepts: the same rule, in the same words, as `standing` in `schema/`.

use serde::{Deserialize, Serialize};

/// Why a pool does not accept acquires and heartbeats, or [`Standing::Ok`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It accepts.
    Ok,
    /// Its tenant is deactivated.
    TenantInactive,
    /// It is deactivated, or not valid yet.
    LicenseInactive,
    /// Its end has passed.
    LicenseExpired,
}

impl Standing {
    /// The word in the log, in SQL and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::TenantInactive => "tenant_inactive",
            Self::LicenseInactive => "license_inactive",
            Self::LicenseExpired => "license_expired",
        }
    }
}
