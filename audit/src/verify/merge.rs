//! The leaf index and the events of one tenant, side by side.

use std::collections::VecDeque;

use merkle::{Digest, Frontier};
use uuid::Uuid;

use super::archives::{Archives, InFile};
use super::{Finding, Wrong};
use crate::canonical::leaf_of;
use crate::personal::{ERASED, MissingSalt, Salts};
use crate::stored::StoredEvent;

/// An event and its recomputed leaf.
#[derive(Debug, Clone)]
pub(super) struct Hashed {
    pub(super) event_id: Uuid,
    pub(super) leaf: Result<Digest, MissingSalt>,
    pub(super) erased: bool,
    /// Whether it says itself that it was sealed: in exports.
    pub(super) is_sealed: bool,
    /// Of a decision: its stream, and its version there.
    pub(super) version: Option<(Uuid, i64)>,
}

/// Recomputes the leaf of one event.
pub(super) fn hash_one(event: &StoredEvent, salts: &Salts) -> Hashed {
    Hashed {
        event_id: event.event_id,
        leaf: leaf_of(event, salts),
        erased: event.user_id.as_deref().is_some_and(|user| user.starts_with(ERASED)),
        is_sealed: event.index.is_some(),
        version: event.version.map(|version| (event.stream_id(), version)),
    }
}

/// Recomputes leaves on all cores.
pub(super) fn hash_all(events: &[StoredEvent], salts: &Salts) -> Vec<Hashed> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = events.len().div_ceil(cores).max(256);
    std::thread::scope(|scope| {
        let shares: Vec<_> = events
            .chunks(share)
            .map(|share| {
                scope.spawn(move || share.iter().map(|event| hash_one(event, salts)).collect::<Vec<_>>())
            })
            .collect();
        shares.into_iter().flat_map(|share| share.join().unwrap_or_default()).collect()
    })
}

/// A sealed size of the tree and its root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) size: u64,
    pub(super) root: Digest,
    pub(super) number: u64,
}

/// Where index and events part. What it means is for whoever can look the ids up.
#[derive(Debug, Clone)]
pub(super) struct Parting {
    pub(super) index: u64,
    /// What the index says.
    pub(super) expected: Uuid,
    /// What stands there; `None`: the events ended.
    pub(super) found: Option<Uuid>,
}

/// Merges as both sides come in. Stops at the first thing that is wrong, but reads the index on to the next sealed root:
/// that tells whether the index itself may be trusted.
pub(super) struct Merge {
    pub(super) tenant_id: Uuid,
    sealed: VecDeque<Sealed>,
    archived: Archives,
    pub(super) leaves: VecDeque<(Uuid, Digest)>,
    pub(super) events: VecDeque<Hashed>,
    pub(super) no_more_leaves: bool,
    pub(super) no_more_events: bool,
    tree: Frontier,
    /// The first leaf after the last root that fitted.
    trusted: u64,
    first_untrusted: Option<Uuid>,
    pub(super) recomputed: u64,
    pub(super) skipped: u64,
    pub(super) erased: u64,
    pub(super) parting: Option<Parting>,
    pub(super) finding: Option<Finding>,
}

impl Merge {
    pub(super) fn new(tenant_id: Uuid, sealed: Vec<Sealed>, archived: Archives) -> Self {
        Self {
            tenant_id,
            sealed: sealed.into(),
            archived,
            leaves: VecDeque::new(),
            events: VecDeque::new(),
            no_more_leaves: false,
            no_more_events: false,
            tree: Frontier::default(),
            trusted: 0,
            first_untrusted: None,
            recomputed: 0,
            skipped: 0,
            erased: 0,
            parting: None,
            finding: None,
        }
    }

    /// Whether the index is to be read on.
    pub(super) fn wants_leaves(&self) -> bool {
        self.leaves.is_empty() && !self.no_more_leaves && !self.is_done()
    }

    /// Whether events are to be read on.
    pub(super) fn wants_events(&self) -> bool {
        self.events.is_empty() && !self.no_more_events && !self.parted()
    }

    fn parted(&self) -> bool {
        self.parting.is_some() || self.finding.is_some()
    }

    /// Something is wrong, and the index was read to the next root (or there is none).
    pub(super) fn is_done(&self) -> bool {
        self.parted() && (self.trusted == self.tree.size() || self.sealed.is_empty())
    }

    /// Leaves that were merged or skipped.
    pub(super) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Merges what is there.
    pub(super) fn advance(&mut self) {
        while !self.is_done() && (self.parted() || !self.events.is_empty() || self.no_more_events) {
            let Some((expected, sealed)) = self.leaves.pop_front() else { break };
            if !self.parted() {
                self.compare(expected, &sealed);
            }
            self.first_untrusted.get_or_insert(expected);
            self.tree.push(sealed);
            self.check_root();
        }
    }

    /// One leaf with the event that should be there.
    fn compare(&mut self, expected: Uuid, sealed: &Digest) {
        let index = self.tree.size();
        if self.events.front().is_none_or(|event| event.event_id != expected) {
            match self.archived.event(index) {
                None => {
                    self.parting = Some(Parting {
                        index,
                        expected,
                        found: self.events.front().map(|event| event.event_id),
                    });
                }
                Some(InFile::NotGiven) => self.skipped += 1,
                Some(InFile::Found(event)) if event.event_id == expected => self.judge(&event, sealed),
                Some(InFile::Strange(event)) => {
                    let detail = "its archive was given, and this event was never sealed there".to_owned();
                    self.finding = Some(self.about(Wrong::Inserted, Some(event), None, detail));
                }
                Some(InFile::Found(_) | InFile::Missing) => {
                    let detail = "its archive was given, and does not have this event".to_owned();
                    self.finding = Some(self.about(Wrong::Removed, Some(expected), Some(index), detail));
                }
            }
            return;
        }
        let Some(event) = self.events.pop_front() else { return };
        self.judge(&event, sealed);
    }

    /// Whether an event gives the leaf that was sealed.
    fn judge(&mut self, event: &Hashed, sealed: &Digest) {
        let index = self.tree.size();
        self.recomputed += 1;
        self.erased += u64::from(event.erased);
        let (wrong, detail) = match &event.leaf {
            Ok(leaf) if leaf == sealed => return,
            Ok(leaf) => (Wrong::Changed, format!("its content gives leaf hash {leaf}, sealed was {sealed}")),
            Err(missing) => (Wrong::SaltMissing, missing.to_string()),
        };
        self.finding = Some(self.about(wrong, Some(event.event_id), Some(index), detail));
    }

    /// At a sealed size: does the index give the sealed root?
    fn check_root(&mut self) {
        let size = self.tree.size();
        while let Some(next) = self.sealed.front().filter(|next| next.size <= size).copied() {
            self.sealed.pop_front();
            if next.size == size && next.root == self.tree.root() {
                self.trusted = size;
                self.first_untrusted = None;
                continue;
            }
            // Not even the index is what was sealed: which of its events it was cannot be told any more.
            let detail = format!(
                "leaves {}..{size} do not give the root that was sealed: events and leaf index were both changed, \
                 or the head was; the first of these events is named",
                self.trusted
            );
            self.parting = None;
            let finding = self.about(Wrong::Rewritten, self.first_untrusted, Some(self.trusted), detail);
            self.finding = Some(Finding { checkpoint: Some(next.number), ..finding });
            self.trusted = size;
            self.sealed.clear();
        }
    }

    /// After everything was read: the index must reach the last sealed size.
    pub(super) fn finish(&mut self) {
        if self.parted() {
            return;
        }
        if let Some(next) = self.sealed.front().copied() {
            let size = self.tree.size();
            let detail = format!("{} events were sealed, the leaf index ends after {size}", next.size);
            let finding = self.about(Wrong::Cut, None, Some(size), detail);
            self.finding = Some(Finding { checkpoint: Some(next.number), ..finding });
        }
    }

    pub(super) fn about(
        &self,
        wrong: Wrong,
        event_id: Option<Uuid>,
        index: Option<u64>,
        detail: String,
    ) -> Finding {
        Finding { tenant_id: Some(self.tenant_id), wrong, event_id, index, checkpoint: None, detail }
    }

    /// What a parting means, once both ids were looked up.
    pub(super) fn explain(
        &self,
        parting: &Parting,
        expected_exists: bool,
        found_was_sealed: bool,
    ) -> Finding {
        let Parting { index, expected, found } = parting;
        let (wrong, named, detail) = match (found, expected_exists, found_was_sealed) {
            (None, false, _) => {
                (Wrong::Cut, *expected, "this sealed event and everything after it is gone".to_owned())
            }
            (Some(found), false, false) => (
                Wrong::Changed,
                *expected,
                format!("in its place stands event {found}, which was never sealed"),
            ),
            (Some(_), false, true) => (Wrong::Removed, *expected, "this sealed event is gone".to_owned()),
            (Some(found), true, false) => {
                (Wrong::Inserted, *found, format!("it was never sealed; sealed here is event {expected}"))
            }
            (Some(found), true, true) => {
                (Wrong::Reordered, *expected, format!("in its place stands event {found}"))
            }
            (None, true, _) => {
                (Wrong::Reordered, *expected, "it is no longer in its place in this tenant's log".to_owned())
            }
        };
        self.about(wrong, Some(named), Some(*index), detail)
    }
}

/// Which leaves are archived: ranges in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(pub(crate) Vec<(u64, u64)>);

impl Runs {
    pub(crate) fn contains(&self, index: u64) -> bool {
        let next = self.0.partition_point(|(_, end)| *end <= index);
        self.0.get(next).is_some_and(|(start, _)| *start <= index)
    }

    /// How many leaves.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The index after the last leaf.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }

    /// Adds an index that is larger than all before it.
    pub(crate) fn push(&mut self, index: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == index => *end += 1,
            _ => self.0.push((index, index + 1)),
        }
    }

    /// Both sets; neither has a leaf of the other.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.sort_unstable();
        self
    }

    /// (gap, length) pairs as LEB128.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = 0;
        for (start, end) in &self.0 {
            for mut value in [start - at, end - start] {
                while value >= 0x80 {
                    bytes.push((value & 0x7f) as u8 | 0x80);
                    value >>= 7;
                }
                bytes.push(value as u8);
            }
            at = *end;
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; what is damaged ends it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (mut values, mut value, mut shift) = (Vec::new(), 0_u64, 0);
        for byte in bytes {
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            shift += 7;
            if byte & 0x80 == 0 {
                values.push(value);
                (value, shift) = (0, 0);
            }
        }
        let mut runs = Vec::new();
        let mut at = 0_u64;
        for pair in values.chunks_exact(2) {
            let start = at.saturating_add(pair[0]);
            at = start.saturating_add(pair[1]);
            runs.push((start, at));
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn runs_are_stored_and_asked() {
        let mut runs = Runs::default();
        let members = [0, 1, 2, 5, 6, 1_000, 1_001, 5_000_000_000];
        members.iter().for_each(|index| runs.push(*index));
        assert_eq!(Runs::from_bytes(&runs.to_bytes()), runs);
        for index in (0..2_000).chain([4_999_999_999, 5_000_000_000, 5_000_000_001]) {
            assert_eq!(runs.contains(index), members.contains(&index), "{index}");
        }
    }
}
