//! Checkpoints in files: what somebody kept, and what an export carries.

use std::path::{Path, PathBuf};

use merkle::Digest;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::AuditError;
use crate::checkpoint::{Checkpoint, TenantCheckpoint};

/// A checkpoint that somebody kept: a public one, or a tenant's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As `GET /api/v1/checkpoints` shows it.
    Public(Checkpoint),
    /// As a tenant is shown its own.
    Tenant(Box<TenantCheckpoint>),
}

impl Kept {
    /// The public checkpoint in it.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        match self {
            Self::Public(checkpoint) => checkpoint,
            Self::Tenant(own) => &own.checkpoint,
        }
    }

    pub(super) fn public(&self, number: u64) -> Option<&Checkpoint> {
        Some(self.checkpoint()).filter(|checkpoint| checkpoint.number == number)
    }
}

/// Reads kept checkpoints: JSON values one after the other, pages (`{"items": […]}`) and NDJSON included.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_kept(file: &Path) -> Result<Vec<Kept>, AuditError> {
    let text = std::fs::read_to_string(file).map_err(AuditError::file(file))?;
    let unreadable =
        |error: &dyn std::fmt::Display| AuditError::unreadable(format!("{}: {error}", file.display()));
    let mut kept = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|error| unreadable(&error))?;
        let items = match value {
            Value::Array(items) => items,
            Value::Object(ref page) if page.contains_key("items") => {
                page["items"].as_array().cloned().unwrap_or_default()
            }
            other => vec![other],
        };
        for item in items.into_iter().filter(is_checkpoint) {
            kept.push(checkpoint_of(item).map_err(|error| unreadable(&error))?);
        }
    }
    if kept.is_empty() { Err(unreadable(&"there is no checkpoint in it")) } else { Ok(kept) }
}

/// Files of checkpoints have other lines too: the leaf index, and what is archived.
fn is_checkpoint(item: &Value) -> bool {
    item.get("hashes").is_none() && item.get("archived").is_none()
}

fn checkpoint_of(item: Value) -> Result<Kept, serde_json::Error> {
    if item.get("tenant_id").is_some() {
        Ok(Kept::Tenant(Box::new(serde_json::from_value(item)?)))
    } else {
        Ok(Kept::Public(serde_json::from_value(item)?))
    }
}

/// A line of a tenant's leaf index in a file of checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub(crate) struct LeafLine {
    /// Index of the first leaf.
    pub(crate) first: u64,
    /// base64, 16 bytes each.
    pub(crate) event_ids: String,
    /// base64, 32 bytes each.
    pub(crate) hashes: String,
}

/// A line that says which leaves are archived, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub(crate) struct ArchivedLine {
    /// The file's name, without `.parquet`.
    pub(crate) archived: String,
    /// base64 of the runs of leaves.
    pub(crate) runs: String,
}

impl ArchivedLine {
    /// The file in a folder; a name that leads out of it is not believed.
    pub(crate) fn file_in(&self, folder: &Path) -> Result<PathBuf, AuditError> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.archived.is_empty() || !self.archived.chars().all(good) {
            return Err(AuditError::unreadable(format!("{:?} is no name of an archive", self.archived)));
        }
        Ok(folder.join(format!("{}.parquet", self.archived)))
    }
}

/// Event ids and hashes as they are stored one after the other.
pub(crate) fn leaves(event_ids: &[u8], hashes: &[u8]) -> impl Iterator<Item = (Uuid, Digest)> {
    event_ids
        .chunks_exact(16)
        .zip(hashes.chunks_exact(32))
        .filter_map(|(id, hash)| Some((Uuid::from_slice(id).ok()?, Digest::try_from(hash).ok()?)))
}
