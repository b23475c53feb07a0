//! Partial changes: a field that is absent stays, one that is null is cleared.

use serde::{Deserialize, Deserializer};

/// For `#[serde(default, deserialize_with)]`: absent is `None`, null is `Some(None)`.
///
/// # Errors
/// Whatever the inner type's deserialisation refuses.
pub fn double_option<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
