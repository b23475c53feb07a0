//! A tree that only grows: of all its leaves it keeps the roots of the complete subtrees on its right edge.

use crate::{Digest, Node, empty_root, node_hash};

/// What is needed to go on appending: one hash for each bit that is set in the number of leaves. Cheap to store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of complete subtrees from the left, largest first.
    roots: Vec<Digest>,
}

/// Bytes that are no frontier of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the frontier of a tree of {size} leaves")]
pub struct InvalidFrontier {
    /// The size named.
    pub size: u64,
}

impl Frontier {
    /// How many leaves were appended.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash. `completed` is told every subtree that it completes, the leaf itself first.
    pub fn append(&mut self, leaf: Digest, mut completed: impl FnMut(Node, Digest)) {
        let mut here = Node { level: 0, index: self.size };
        let mut hash = leaf;
        completed(here, hash);
        while here.index % 2 == 1 {
            let Some(left) = self.roots.pop() else { break };
            hash = node_hash(&left, &hash);
            here = Node { level: here.level + 1, index: here.index / 2 };
            completed(here, hash);
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Digest) {
        self.append(leaf, |_, _| {});
    }

    /// The root of the tree as it stands.
    #[must_use]
    pub fn root(&self) -> Digest {
        join(&self.roots).unwrap_or_else(empty_root)
    }

    /// The hashes one after the other; the size is stored beside them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.roots.iter().flat_map(|root| root.0).collect()
    }

    /// Goes on from what [`Self::to_bytes`] stored.
    ///
    /// # Errors
    /// When there are more or fewer hashes than a tree of that size has.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Result<Self, InvalidFrontier> {
        let roots: Vec<Digest> = bytes.chunks(32).filter_map(|chunk| Digest::try_from(chunk).ok()).collect();
        if !bytes.len().is_multiple_of(32) || roots.len() != size.count_ones() as usize {
            return Err(InvalidFrontier { size });
        }
        Ok(Self { size, roots })
    }
}

/// The root over neighbours, from the right: each is a complete subtree, larger than what stands right of it.
pub(crate) fn join(roots: &[Digest]) -> Option<Digest> {
    let (last, rest) = roots.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}
