//! How the tenants of one seal hang below one public root without learning of each other.
//!
//! A head is hashed together with 32 secret bytes, fresh at each seal. The hashes are filled up with random ones to a
//! power of two and sorted, so that a place says nothing; above their root the tree is lifted with random siblings, left
//! or right at random, to [`DEPTH`] levels. So every path has the same length, every sibling on it looks random, and no
//! sibling comes twice: nobody can tell how many others there are, who they are, or whether they changed.
//! All of the randomness follows from one secret per seal, which never leaves the database.

use aws_lc_rs::hmac;
use merkle::{Digest, Tree, leaf_hash, node_hash, verify_inclusion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Hex;

/// Levels between a head and the public root.
pub const DEPTH: u8 = 16;

/// Most tenants of one seal.
pub const WIDTH: usize = 1 << DEPTH;

/// A head's hash with its blinding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blinded(pub(crate) Digest);

impl Blinded {
    pub(crate) fn new(blinding: [u8; 32], head: &[u8]) -> Self {
        Self(leaf_hash(&[&blinding[..], head].concat()))
    }
}

/// How a head hangs below a public root: a leaf of an RFC 6962 tree of 65,536 leaves, and its inclusion proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Place of the leaf.
    pub index: u64,
    /// Siblings from the leaf up.
    pub siblings: Vec<Hex>,
}

impl Path {
    pub(crate) fn leads_to(&self, head: &Blinded, root: &Digest) -> bool {
        let siblings: Vec<Digest> = self.siblings.iter().map(|one| one.0).collect();
        verify_inclusion(&head.0, self.index, WIDTH as u64, &siblings, root).is_ok()
    }
}

/// The secret of a seal, and what follows from it.
pub(crate) struct Secret(hmac::Key);

impl Secret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub(crate) fn blinding(&self, tenant_id: Uuid) -> [u8; 32] {
        self.derive("blinding", tenant_id.as_bytes())
    }

    fn derive(&self, purpose: &str, what: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(what);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }
}

/// The tree of one seal.
pub(crate) struct Seal {
    leaves: Vec<Digest>,
    tree: Tree,
    /// Siblings above the tree, and whether they stand on its left.
    lifts: Vec<(Digest, bool)>,
}

impl Seal {
    /// The tree over these heads, at most [`WIDTH`].
    pub(crate) fn new(secret: &Secret, heads: &[Blinded]) -> Self {
        let mut leaves: Vec<Digest> = heads.iter().map(|head| head.0).collect();
        let full = leaves.len().next_power_of_two();
        let missing = full - leaves.len();
        leaves.extend((0..missing as u64).map(|n| Digest(secret.derive("filler", &n.to_be_bytes()))));
        leaves.sort_unstable();
        let height = full.trailing_zeros() as u8;
        let lifts = (height..DEPTH)
            .map(|level| {
                (Digest(secret.derive("sibling", &[level])), secret.derive("side", &[level])[0] % 2 == 1)
            })
            .collect();
        Self { tree: Tree::new(leaves.clone()), leaves, lifts }
    }

    pub(crate) fn root(&self) -> Digest {
        self.lifts.iter().fold(self.tree.root(), |root, (sibling, left)| {
            if *left { node_hash(sibling, &root) } else { node_hash(&root, sibling) }
        })
    }

    /// How a head hangs in it; `None` if it is not one of them.
    pub(crate) fn path(&self, head: &Blinded) -> Option<Path> {
        let place = self.leaves.binary_search(&head.0).ok()? as u64;
        let height = DEPTH as usize - self.lifts.len();
        let index = (0..)
            .zip(&self.lifts)
            .fold(place, |index, (n, (_, left))| index | u64::from(*left) << (height + n));
        let siblings = self.tree.inclusion_proof(place)?;
        let siblings = siblings.into_iter().chain(self.lifts.iter().map(|lift| lift.0)).map(Hex).collect();
        Some(Path { index, siblings })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]
mod tests {
    use super::{Blinded, DEPTH, Seal, Secret};

    #[test]
    fn every_head_hangs_below_the_root_by_a_path_of_one_length() {
        for count in [1_u8, 2, 3, 5, 8, 100] {
            let secret = Secret::new(&[count; 32]);
            let heads: Vec<_> = (0..count).map(|n| Blinded::new([n; 32], b"head")).collect();
            let seal = Seal::new(&secret, &heads);
            for (n, head) in heads.iter().enumerate() {
                let mut path = seal.path(head).unwrap();
                assert_eq!(path.siblings.len(), usize::from(DEPTH));
                assert!(path.leads_to(head, &seal.root()));
                let other = heads[(n + 1) % heads.len()];
                assert!(heads.len() == 1 || !path.leads_to(&other, &seal.root()));
                path.index ^= 1;
                assert!(!path.leads_to(head, &seal.root()));
            }
            assert_eq!(seal.path(&Blinded::new([200; 32], b"head")), None);
            assert_ne!(seal.root(), Seal::new(&Secret::new(&[99; 32]), &heads).root());
        }
    }
}
