//! Verification of proofs, as RFC 9162 writes it (2.1.3.2 and 2.1.4.2). A proof may come from anybody.

use crate::{Digest, node_hash};

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No such leaf, or no such earlier tree.
    #[error("there is no such place in a tree of {size} leaves")]
    OutOfRange {
        /// The tree's size.
        size: u64,
    },
    /// Too few or too many hashes.
    #[error("the proof has a wrong number of hashes")]
    WrongLength,
    /// It leads to another root.
    #[error("the proof leads to another root")]
    WrongRoot,
}

/// Checks that a leaf is in the tree with this size and root, at this index.
///
/// # Errors
/// When the proof does not show it.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if inclusion_root(leaf, index, size, proof)? == *root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

/// The root that a proof leads to, for whoever learns from elsewhere (a signature, say) whether it is the right one.
///
/// # Errors
/// When a tree of this size has no leaf at this index, or the proof has a wrong number of hashes.
pub fn inclusion_root(leaf: &Digest, index: u64, size: u64, proof: &[Digest]) -> Result<Digest, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange { size });
    }
    let (mut here, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for beside in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if here % 2 == 1 || here == last {
            hash = node_hash(beside, &hash);
            rise_to_right_child(&mut here, &mut last);
        } else {
            hash = node_hash(&hash, beside);
        }
        here >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(hash) } else { Err(ProofError::WrongLength) }
}

/// Checks that the tree of `new` leaves begins with the tree of `old` ones.
///
/// # Errors
/// When the proof does not show it; a tree without leaves has no proof, everything begins with it.
pub fn verify_consistency(
    old: (u64, &Digest),
    new: (u64, &Digest),
    proof: &[Digest],
) -> Result<(), ProofError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size > new_size {
        return Err(ProofError::OutOfRange { size: new_size });
    }
    if old_size == new_size {
        let same = if old_root == new_root { Ok(()) } else { Err(ProofError::WrongRoot) };
        return if proof.is_empty() { same } else { Err(ProofError::WrongLength) };
    }
    // An old tree that is a complete subtree of the new one is its own first hash.
    let (first, rest) = if old_size.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(ProofError::WrongLength)?;
        (*first, rest)
    };
    let (mut here, mut last) = (old_size - 1, new_size - 1);
    let shift = here.trailing_ones();
    here >>= shift;
    last >>= shift;
    let (mut old_hash, mut new_hash) = (first, first);
    for beside in rest {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if here % 2 == 1 || here == last {
            old_hash = node_hash(beside, &old_hash);
            new_hash = node_hash(beside, &new_hash);
            rise_to_right_child(&mut here, &mut last);
        } else {
            new_hash = node_hash(&new_hash, beside);
        }
        here >>= 1;
        last >>= 1;
    }
    finish(last, &[(old_hash, *old_root), (new_hash, *new_root)])
}

/// On the right edge a node without a sibling stands for its parent: go up until it is a right child.
fn rise_to_right_child(here: &mut u64, last: &mut u64) {
    while here.is_multiple_of(2) && *here != 0 {
        *here >>= 1;
        *last >>= 1;
    }
}

fn finish(last: u64, reached: &[(Digest, Digest)]) -> Result<(), ProofError> {
    if last != 0 {
        return Err(ProofError::WrongLength);
    }
    if reached.iter().all(|(hash, root)| hash == root) { Ok(()) } else { Err(ProofError::WrongRoot) }
}
