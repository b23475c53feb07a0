//! Values of the domain, parsed once at the border: inside, nothing is checked again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A value that is not what its type demands; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new UUIDv7.
            #[must_use]
            pub fn mint() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidValue;
            /// Only the hyphenated form is an id.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.len() != 36 {
                    return Err(InvalidValue("must be a UUID".to_owned()));
                }
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidValue("must be a UUID".to_owned()))
            }
        }
    };
}

id!(
    /// A customer organisation.
    TenantId
);
impl TenantId {
    /// Whose stream the service's own acts are on, those that concern every tenant: the nil UUID, which no tenant has.
    pub const PLATFORM: Self = Self(Uuid::nil());
}

id!(
    /// A tenant's right to seats of one product; also the id of its pool's stream.
    LicenseId
);
id!(
    /// One (user, machine) holding a seat.
    SessionId
);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr, $say:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// When the text is not of the form that the type's documentation names.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
                let text = text.as_ref();
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(InvalidValue($say.to_owned())) }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Length in characters within bounds, and nothing that a terminal or a log would act on.
fn printable(text: &str, most: usize) -> bool {
    let length = text.chars().count();
    (1..=most).contains(&length) && !text.chars().any(char::is_control)
}

text!(
    /// `sub` of the caller's JWT: 1 to 128 characters, never assumed to be a UUID.
    UserId,
    |text| printable(text, 128),
    "must be 1 to 128 characters without control characters"
);
text!(
    /// Machine fingerprint chosen by the client: 8 to 128 characters of `[A-Za-z0-9._:-]`.
    HardwareId,
    |text| (8..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)),
    "must be 8 to 128 characters of [A-Za-z0-9._:-]"
);
text!(
    /// What a license is for: 1 to 64 characters of `[a-z0-9._-]`.
    Product,
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)),
    "must be 1 to 64 characters of [a-z0-9._-]"
);
text!(
    /// What admins see beside a session: 1 to 64 characters.
    MachineName,
    |text| printable(text, 64),
    "must be 1 to 64 characters without control characters"
);

/// A number of seats: 0 to 1,000,000 (the most that one pool's actor keeps in memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Seats(u32);

impl Seats {
    /// The largest pool.
    pub const MAX: u32 = 1_000_000;

    /// Parses a number of seats.
    ///
    /// # Errors
    /// Below zero or above [`Seats::MAX`].
    pub fn new(count: i64) -> Result<Self, InvalidValue> {
        u32::try_from(count)
            .ok()
            .filter(|count| *count <= Self::MAX)
            .map(Self)
            .ok_or_else(|| InvalidValue(format!("must be 0 to {}", Self::MAX)))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Seats {
    type Error = InvalidValue;
    fn try_from(count: i64) -> Result<Self, Self::Error> {
        Self::new(count)
    }
}

impl From<Seats> for i64 {
    fn from(seats: Seats) -> Self {
        Self::from(seats.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{HardwareId, Product, Seats, SessionId, UserId};

    #[test]
    fn accepts_what_the_contract_allows_and_nothing_else() {
        assert!(HardwareId::new("abcd1234").is_ok());
        assert!(HardwareId::new("a".repeat(128)).is_ok());
        for bad in ["short", "with space 123", "sémantique", &"a".repeat(129)] {
            assert!(HardwareId::new(bad).is_err(), "{bad}");
        }
        assert!(UserId::new("google-oauth2|1234").is_ok());
        assert!(
            UserId::new("").is_err() && UserId::new("ü".repeat(129)).is_err() && UserId::new("a\nb").is_err()
        );
        assert!(UserId::new("ü".repeat(128)).is_ok());
        assert!(Product::new("coditect").is_ok() && Product::new("Coditect").is_err());
        assert!(Seats::new(-1).is_err() && Seats::new(1_000_001).is_err() && Seats::new(0).is_ok());
        assert!("0190f7c0e1d07c31a6d1a0f0a0f0a0f0".parse::<SessionId>().is_err());
    }
}
