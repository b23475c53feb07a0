//! The tree hash of RFC 6962 (section 2.1) and RFC 9162, with SHA-256: leaves, roots, proofs.
//!
//! Pure: no I/O, no clock, no crate of the workspace. A log too large for memory keeps a [`Frontier`] (some dozens of
//! hashes), stores what [`Frontier::append`] completes, and looks up the [`Node`]s that a proof needs; a small one is a
//! [`Tree`] in memory. Verification takes leaf hashes, so that a leaf may be proved whose content is gone.
//!
//! Guarantee: equal roots of equal sizes mean equal leaves in equal order, as long as SHA-256 holds. Proofs from
//! strangers are checked in full: nothing in them makes the code panic.
//!
//! The algorithms are short and fixed by the RFCs. The crates that exist keep every leaf in memory, cannot resume from
//! a stored frontier, and prove whole values only; the best of them (`ct-merkle`) is what the tests compare with.

mod digest;
mod frontier;
mod proof;
mod span;
mod tree;

pub use digest::{Digest, InvalidDigest, empty_root, leaf_hash, node_hash};
pub use frontier::{Frontier, InvalidFrontier};
pub use proof::{ProofError, inclusion_root, verify_consistency, verify_inclusion};
pub use span::{Node, Span, consistency_spans, inclusion_spans};
pub use tree::Tree;
