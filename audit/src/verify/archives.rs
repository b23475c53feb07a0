//! Archived heartbeats: which leaves they are, and, if the files are given, the events themselves, in their order.

use std::fs::File;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use uuid::Uuid;

use super::merge::{Hashed, Runs, hash_one};
use crate::AuditError;
use crate::export::read_parquet_of;
use crate::personal::Salts;

/// Events that a file is read ahead of the merge.
const AHEAD: usize = 1_000;

/// The archives that have leaves of one tenant.
#[derive(Default)]
pub(super) struct Archives(Vec<Archive>);

struct Archive {
    tenant_id: Uuid,
    runs: Runs,
    salts: Arc<Salts>,
    file: Option<PathBuf>,
    /// The file from where the merge stands; `None`: not opened yet.
    events: Option<Events>,
    /// The leaf after the last one that was asked for.
    next: u64,
}

/// Events with the leaves that the file says they are.
type Events = Peekable<mpsc::IntoIter<(Option<u64>, Hashed)>>;

/// What an archive has for a leaf.
pub(super) enum InFile {
    /// Its file was not given: the leaf's stored hash must do.
    NotGiven,
    /// Its file was given, or cannot be read, and has no such event there.
    Missing,
    /// The file has this event, too, which was never sealed there.
    Strange(Uuid),
    /// The event.
    Found(Hashed),
}

impl Archives {
    /// Adds an archive: what it should have, and its file.
    pub(super) fn add(&mut self, tenant_id: Uuid, runs: Runs, salts: Arc<Salts>, file: Option<PathBuf>) {
        self.0.push(Archive { tenant_id, runs, salts, file, events: None, next: 0 });
    }

    /// The event of a leaf; `None`: the leaf is not archived. Leaves are asked for in their order.
    pub(super) fn event(&mut self, index: u64) -> Option<InFile> {
        let archive = self.0.iter_mut().find(|archive| archive.runs.contains(index))?;
        Some(archive.event(index))
    }
}

impl Archive {
    fn event(&mut self, index: u64) -> InFile {
        let Some(file) = &self.file else { return InFile::NotGiven };
        let events = match &mut self.events {
            Some(events) => events,
            None => self.events.insert(read(file, self.tenant_id, self.salts.clone())),
        };
        // Events in between were found elsewhere: nobody asks the archive for what is still in the log.
        let passed = self.next..index;
        self.next = index + 1;
        let was_passed =
            |leaf: Option<u64>| leaf.is_some_and(|leaf| passed.contains(&leaf) && self.runs.contains(leaf));
        while events.next_if(|(leaf, _)| was_passed(*leaf)).is_some() {}
        let Some((_, event)) = events.next_if(|(leaf, _)| *leaf == Some(index)) else {
            let is_later =
                |leaf: Option<u64>| leaf.is_some_and(|leaf| leaf > index && self.runs.contains(leaf));
            return match events.peek() {
                Some((leaf, event)) if !is_later(*leaf) => InFile::Strange(event.event_id),
                _ => InFile::Missing,
            };
        };
        if self.runs.end() == index + 1
            && let Some((_, more)) = events.next()
        {
            return InFile::Strange(more.event_id);
        }
        InFile::Found(event)
    }
}

/// Reads a file ahead, on a thread of its own that ends when nobody listens any more.
fn read(file: &Path, tenant_id: Uuid, salts: Arc<Salts>) -> Events {
    let (sender, events) = mpsc::sync_channel(AHEAD);
    let file = file.to_owned();
    std::thread::spawn(move || {
        let each = |event: crate::StoredEvent| {
            sender.send((event.index, hash_one(&event, &salts))).map_err(AuditError::unreadable)
        };
        let opened = File::open(&file).map_err(AuditError::file(&file));
        if let Err(error) = opened.and_then(|opened| read_parquet_of(opened, tenant_id, each)) {
            tracing::warn!(%error, "an archive was not read to its end");
        }
    });
    events.into_iter().peekable()
}
