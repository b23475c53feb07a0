//! A tree in memory, for proofs over a known set of leaves.

use crate::frontier::join;
use crate::{Digest, Node, Span, consistency_spans, empty_root, inclusion_spans, node_hash};

/// Every complete subtree of some leaves: twice as many hashes as leaves.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over these leaf hashes.
    #[must_use]
    pub fn new(leaves: Vec<Digest>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let above = below.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root_of(Span { start: 0, end: self.size() }).unwrap_or_else(empty_root)
    }

    /// The root that it had when it was this large; `None` if it never was.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        match size {
            0 => Some(empty_root()),
            _ if size > self.size() => None,
            _ => self.root_of(Span { start: 0, end: size }),
        }
    }

    /// What proves that a leaf is in it; `None` if there is no such leaf.
    #[must_use]
    pub fn inclusion_proof(&self, index: u64) -> Option<Vec<Digest>> {
        inclusion_spans(index, self.size())?.into_iter().map(|span| self.root_of(span)).collect()
    }

    /// What proves that it begins with the tree that it was at `old` leaves; `None` if it never was that large.
    #[must_use]
    pub fn consistency_proof(&self, old: u64) -> Option<Vec<Digest>> {
        consistency_spans(old, self.size())?.into_iter().map(|span| self.root_of(span)).collect()
    }

    fn root_of(&self, span: Span) -> Option<Digest> {
        let find =
            |node: Node| self.levels.get(usize::from(node.level))?.get(usize::try_from(node.index).ok()?);
        let roots: Vec<Digest> =
            span.nodes().into_iter().map(find).map(|one| one.copied()).collect::<Option<_>>()?;
        join(&roots)
    }
}

impl Span {
    /// The root over its leaves, from the roots of its [`Span::nodes`] in their order; `None` without any.
    #[must_use]
    pub fn root(roots: &[Digest]) -> Option<Digest> {
        join(roots)
    }
}
