//! Times as they are stored and shown: UTC, whole milliseconds.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::InvalidValue;

/// An instant, truncated to milliseconds; written as RFC 3339 with `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(DateTime<Utc>);

impl Time {
    /// Truncates to whole milliseconds.
    #[must_use]
    pub fn new(at: DateTime<Utc>) -> Self {
        Self(at.trunc_subsecs(3))
    }

    /// From Unix milliseconds; `None` outside of what a calendar can hold.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        DateTime::from_timestamp_millis(millis).map(Self)
    }

    /// Reads RFC 3339 with any offset.
    ///
    /// # Errors
    /// When the text is not an RFC 3339 time of the years 1 to 9999 in UTC: what is outside of them cannot be stored.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue("must be an RFC 3339 time".to_owned());
        let at = DateTime::parse_from_rfc3339(text).map_err(|_| bad())?.with_timezone(&Utc);
        if (1..=9_999).contains(&at.year()) { Ok(Self::new(at)) } else { Err(bad()) }
    }

    /// The instant as chrono knows it.
    #[must_use]
    pub fn as_datetime(self) -> DateTime<Utc> {
        self.0
    }

    /// Unix time in milliseconds.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// Unix time in whole seconds, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.timestamp()
    }

    /// Later by `by`; saturates at the end of the calendar.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let by = chrono::Duration::from_std(by).unwrap_or(chrono::Duration::MAX);
        Self::new(self.0.checked_add_signed(by).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// How long after `earlier`; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Time {
    fn from(at: DateTime<Utc>) -> Self {
        Self::new(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test stops where something is wrong")]
mod tests {
    use super::Time;

    #[test]
    fn writes_utc_milliseconds() {
        let time = Time::parse("2026-01-02T03:04:05.123987+02:00").expect("RFC 3339");
        assert_eq!(time.to_string(), "2026-01-02T01:04:05.123Z");
        assert!(Time::parse("2026-01-02").is_err());
        assert!(Time::parse("0000-06-01T00:00:00Z").is_err());
        assert!(Time::parse("9999-12-31T23:59:59-01:00").is_err());
    }
}
