//! Trees of any size: the frontier, the tree in memory and another implementation agree; no forged proof passes.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::collections::HashMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use merkle::{
    Digest, Frontier, Span, Tree, consistency_spans, inclusion_spans, leaf_hash, verify_consistency,
    verify_inclusion,
};
use proptest::prelude::*;
use sha2::Sha256;

fn leaf(number: u64) -> Vec<u8> {
    format!("leaf {number}").into_bytes()
}

fn leaves(size: u64) -> Vec<Digest> {
    (0..size).map(|number| leaf_hash(&leaf(number))).collect()
}

fn other(size: u64) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    (0..size).for_each(|number| tree.push(leaf(number)));
    tree
}

fn bytes(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|one| one.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_another_implementation(size in 1_u64..300, a in any::<prop::sample::Index>()) {
        let (tree, other) = (Tree::new(leaves(size)), other(size));
        let (ours, theirs) = (tree.root(), other.root());
        prop_assert_eq!(ours.0.as_slice(), theirs.as_bytes().as_slice());
        let place = a.index(usize::try_from(size).unwrap());
        let inclusion = tree.inclusion_proof(place as u64).unwrap();
        let theirs = other.prove_inclusion(place);
        prop_assert_eq!(bytes(&inclusion), theirs.as_bytes());
        let consistency = tree.consistency_proof(size - place as u64).unwrap();
        let theirs = other.prove_consistency(place);
        prop_assert_eq!(bytes(&consistency), theirs.as_bytes());
    }

    #[test]
    fn every_proof_holds_and_only_where_it_belongs(size in 1_u64..200, a in any::<u64>(), b in any::<u64>()) {
        let hashes = leaves(size);
        let tree = Tree::new(hashes.clone());
        let (index, elsewhere) = (a % size, b % size);
        let proof = tree.inclusion_proof(index).unwrap();
        let leaf = hashes[usize::try_from(index).unwrap()];
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &tree.root()).is_ok());
        if elsewhere != index {
            prop_assert!(verify_inclusion(&leaf, elsewhere, size, &proof, &tree.root()).is_err());
        }
        let old = a % size + 1;
        let before = tree.root_at(old).unwrap();
        let proof = tree.consistency_proof(old).unwrap();
        prop_assert!(verify_consistency((old, &before), (size, &tree.root()), &proof).is_ok());
        if old < size {
            prop_assert!(verify_consistency((old, &leaf_hash(b"x")), (size, &tree.root()), &proof).is_err());
        }
    }

    #[test]
    fn a_changed_proof_proves_nothing(size in 2_u64..200, a in any::<u64>(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let hashes = leaves(size);
        let tree = Tree::new(hashes.clone());
        let index = a % size;
        let good = tree.inclusion_proof(index).unwrap();
        let leaf = hashes[usize::try_from(index).unwrap()];
        let mut changed = good.clone();
        changed[at.index(good.len())].0[at.index(32)] ^= 1 << bit;
        let (mut longer, mut shorter) = (good.clone(), good);
        longer.push(leaf);
        shorter.pop();
        for bad in [changed, longer, shorter] {
            prop_assert!(verify_inclusion(&leaf, index, size, &bad, &tree.root()).is_err());
        }
    }

    #[test]
    fn no_proof_from_a_stranger_panics(
        index: u64, size: u64, old: u64, hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let proof: Vec<Digest> = hashes.into_iter().map(Digest).collect();
        let root = leaf_hash(b"root");
        prop_assert!(verify_inclusion(&root, index, size, &proof, &root).is_err() || size == 1);
        let _ = verify_consistency((old, &root), (size, &root), &proof);
    }

    #[test]
    fn a_stored_frontier_goes_on_and_its_nodes_make_every_proof(size in 1_u64..300, stop in any::<u64>(), a in any::<u64>()) {
        let hashes = leaves(size);
        let tree = Tree::new(hashes.clone());
        let stop = stop % size;
        let mut frontier = Frontier::default();
        let mut stored = HashMap::new();
        for (number, hash) in (0..).zip(&hashes) {
            if number == stop {
                frontier = Frontier::from_bytes(frontier.size(), &frontier.to_bytes()).unwrap();
            }
            frontier.append(*hash, |node, hash| { stored.insert(node, hash); });
        }
        prop_assert_eq!(frontier.root(), tree.root());
        prop_assert!(Frontier::from_bytes(size + 1 , &frontier.to_bytes()).is_err() || (size + 1).count_ones() == size.count_ones());
        let look_up = |span: Span| {
            Span::root(&span.nodes().iter().map(|node| stored[node]).collect::<Vec<_>>()).unwrap()
        };
        let index = a % size;
        let proof: Vec<_> = inclusion_spans(index, size).unwrap().into_iter().map(look_up).collect();
        prop_assert_eq!(proof, tree.inclusion_proof(index).unwrap());
        let proof: Vec<_> = consistency_spans(index + 1, size).unwrap().into_iter().map(look_up).collect();
        prop_assert_eq!(proof, tree.consistency_proof(index + 1).unwrap());
    }
}

#[test]
fn reads_hashes_as_it_writes_them_and_no_others() {
    let text = leaf_hash(b"").to_string();
    assert_eq!(text.parse(), Ok(leaf_hash(b"")));
    for bad in
        ["", "6e34", &text[1..], &text.to_uppercase(), &format!("{}g", &text[1..]), &format!("{text}0")]
    {
        assert!(bad.parse::<Digest>().is_err(), "{bad}");
    }
}
