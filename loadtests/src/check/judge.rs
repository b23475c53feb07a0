//! The invariants, one file for each group of them. All of it is pure: a history and what was read go in, a
//! verdict comes out, so that a test can falsify either and see the verdict turn.

pub(crate) mod versions;
