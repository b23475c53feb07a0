//! Archived heartbeats: which leaves they are, and, if the files are given, the events themselves.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::merge::{Hashed, Runs, hash_one};
use crate::AuditError;
use crate::export::read_parquet_of;
use crate::personal::Salts;

/// The archives that have leaves of one tenant.
#[derive(Default)]
pub(super) struct Archives(Vec<Archive>);

struct Archive {
    tenant_id: Uuid,
    runs: Runs,
    salts: Arc<Salts>,
    file: Option<PathBuf>,
    /// One day's heartbeats of one tenant.
    loaded: Option<Loaded>,
}

/// What a file has.
#[derive(Default)]
struct Loaded {
    by_leaf: HashMap<u64, Hashed>,
    /// An event that is no leaf of this archive, or stands for one that another event stands for, too.
    strange: Option<Uuid>,
}

/// What an archive has for a leaf.
pub(super) enum InFile {
    /// Its file was not given: the leaf's stored hash must do.
    NotGiven,
    /// Its file was given, or cannot be read, and has no such event.
    Missing,
    /// The file has this event, too, which was never sealed there.
    Strange(Uuid),
    /// The event.
    Found(Hashed),
}

impl Archives {
    /// Adds an archive: what it should have, and its file.
    pub(super) fn add(&mut self, tenant_id: Uuid, runs: Runs, salts: Arc<Salts>, file: Option<PathBuf>) {
        self.0.push(Archive { tenant_id, runs, salts, file, loaded: None });
    }

    /// The event of a leaf; `None`: the leaf is not archived.
    pub(super) fn event(&mut self, index: u64) -> Option<InFile> {
        let place = self.0.iter().position(|archive| archive.runs.contains(index))?;
        let archive = &mut self.0[place];
        let Some(file) = &archive.file else { return Some(InFile::NotGiven) };
        if archive.loaded.is_none() {
            archive.loaded = Some(load(file, archive).unwrap_or_else(|error| {
                tracing::warn!(%error, "an archive cannot be read");
                Loaded::default()
            }));
            // Days overlap by moments only: what lies further back is not asked for again.
            for old in self.0.iter_mut().take(place.saturating_sub(1)) {
                old.loaded = None;
            }
        }
        let loaded = self.0[place].loaded.as_mut()?;
        if let Some(strange) = loaded.strange.take() {
            return Some(InFile::Strange(strange));
        }
        Some(loaded.by_leaf.remove(&index).map_or(InFile::Missing, InFile::Found))
    }
}

fn load(file: &PathBuf, archive: &Archive) -> Result<Loaded, AuditError> {
    let opened = File::open(file).map_err(AuditError::file(file))?;
    let mut loaded = Loaded::default();
    read_parquet_of(opened, archive.tenant_id, |event| {
        let index = event.index.filter(|index| archive.runs.contains(*index));
        let taken = match index {
            Some(index) => loaded.by_leaf.insert(index, hash_one(&event, &archive.salts)).is_some(),
            None => true,
        };
        if taken {
            loaded.strange.get_or_insert(event.event_id);
        }
        Ok(())
    })?;
    Ok(loaded)
}
